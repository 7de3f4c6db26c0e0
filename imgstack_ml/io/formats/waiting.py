"""Decoders of animations that wait between two blocks, so that a block does not begin with the first frame."""

import threading
from typing import Any, NamedTuple

__all__ = ["keep_decoder", "take_decoder"]

_MOST_BYTES = 64 << 20  # of all that wait, as far as is known
_lock = threading.Lock()


class _Decoder(NamedTuple):
    identity: tuple[Any, ...]
    frame: int  # that it would decode next
    n_bytes: int
    state: dict[str, Any]


_waiting: list[_Decoder] = []


def keep_decoder(identity: tuple[Any, ...], frame: int, n_bytes: int, state: dict[str, Any]) -> None:
    """Keep the state of a decoder that would decode `frame` next; the oldest ones go if all take too much memory."""
    with _lock:
        _waiting.append(_Decoder(identity, frame, n_bytes, state))
        while sum(decoder.n_bytes for decoder in _waiting) > _MOST_BYTES:
            del _waiting[0]


def take_decoder(identity: tuple[Any, ...], first: int, last: int) -> dict[str, Any] | None:
    """Take the state of the decoder that waits nearest before the frame `last`, but not before `first`."""
    with _lock:
        fitting = [i for i, decoder in enumerate(_waiting) if decoder.identity == identity]
        fitting = [i for i in fitting if first <= _waiting[i].frame <= last]
        if not fitting:
            return None
        return _waiting.pop(max(fitting, key=lambda i: _waiting[i].frame)).state
