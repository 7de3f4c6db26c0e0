"""What animations leave for other blocks, so that these do not begin with the first frame.

The next block goes on with the decoder of the one before. Dask's schedulers read blocks backwards, though: for them,
the frames that a decoder passes on its way to a block are kept. Without these, 8 blocks decode 4.5 times as many.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

__all__ = ["MOST_BYTES", "filling", "keep_decoder", "keep_frames", "take_decoder", "take_frames"]

MOST_BYTES = 64 << 20  # of all decoders that wait, as far as is known, and of all frames
_lock = threading.Lock()
_filler = threading.Lock()


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
        while sum(decoder.n_bytes for decoder in _waiting) > MOST_BYTES:
            del _waiting[0]


def take_decoder(identity: tuple[Any, ...], first: int, last: int) -> dict[str, Any] | None:
    """Take the state of the decoder that waits nearest before the frame `last`, but not before `first`."""
    with _lock:
        fitting = [i for i, decoder in enumerate(_waiting) if decoder.identity == identity]
        fitting = [i for i in fitting if first <= _waiting[i].frame <= last]
        if not fitting:
            return None
        return _waiting.pop(max(fitting, key=lambda i: _waiting[i].frame)).state


class _Frames(NamedTuple):
    identity: tuple[Any, ...]
    first: int
    pixels: np.ndarray


_passed: list[_Frames] = []


@contextlib.contextmanager
def filling() -> Iterator[bool]:
    """Tell whether frames may be kept on the way to a block: one thread does so at a time, which bounds memory."""
    alone = _filler.acquire(blocking=False)
    try:
        yield alone
    finally:
        if alone:
            _filler.release()


def keep_frames(identity: tuple[Any, ...], first: int, pixels: np.ndarray) -> None:
    """Keep decoded frames from the number `first` on, in place of others of the file; the oldest go if all are many."""
    with _lock:
        _passed[:] = [frames for frames in _passed if frames.identity != identity]
        _passed.append(_Frames(identity, first, pixels))
        while sum(frames.pixels.nbytes for frames in _passed) > MOST_BYTES:
            del _passed[0]


def take_frames(identity: tuple[Any, ...], frame: int) -> tuple[int, np.ndarray] | None:
    """Return the frames that were kept together with one, and the first one's number; they go with the first one."""
    with _lock:
        for i, (other, first, pixels) in enumerate(_passed):
            if other == identity and first <= frame < first + len(pixels):
                if frame == first:
                    del _passed[i]
                return first, pixels
    return None
