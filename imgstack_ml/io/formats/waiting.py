"""What films and animations leave for other blocks, so that these do not decode again what was decoded.

The next block goes on with the decoder of the one before, and waits for it where another thread reads that one. Dask's
schedulers read blocks backwards, though: for them, the frames that a decoder passes on its way to a block are kept.
Without these, 8 blocks decode 4.5 times as many.
"""

import contextlib
import operator
import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

__all__ = ["MOST_BYTES", "Turn", "filling", "keep_decoder", "keep_frames", "take_decoder", "take_frame"]

MOST_BYTES = 64 << 20  # of all decoders that wait, as far as is known, and of all frames
_lock = threading.Lock()
_filler = threading.Lock()
_turns = threading.Condition()


class _Decoder(NamedTuple):
    identity: tuple[Any, ...]
    frame: int  # that it would decode next
    n_bytes: int
    state: Any


_waiting: list[_Decoder] = []


def keep_decoder(identity: tuple[Any, ...], frame: int, n_bytes: int, state: Any) -> None:
    """Keep the state of a decoder that would decode `frame` next; the oldest ones go if all take too much memory."""
    with _lock:
        _waiting.append(_Decoder(identity, frame, n_bytes, state))
        while sum(decoder.n_bytes for decoder in _waiting) > MOST_BYTES:
            del _waiting[0]


def take_decoder(identity: tuple[Any, ...], first: int, last: int) -> Any:
    """Take the state of the decoder that waits nearest before the frame `last`, but not before `first`; else None."""
    with _lock:
        fitting = [i for i, decoder in enumerate(_waiting) if decoder.identity == identity]
        fitting = [i for i in fitting if first <= _waiting[i].frame <= last]
        if not fitting:
            return None
        return _waiting.pop(max(fitting, key=lambda i: _waiting[i].frame)).state


# Frames and their bytes, by file and number; the oldest come first.
_passed: dict[tuple[tuple[Any, ...], int], tuple[Any, int]] = {}


@contextlib.contextmanager
def filling() -> Iterator[bool]:
    """Tell whether frames may be kept on the way to a block: one thread does so at a time, which bounds memory."""
    alone = _filler.acquire(blocking=False)
    try:
        yield alone
    finally:
        if alone:
            _filler.release()


def keep_frames(identity: tuple[Any, ...], first: int, frames: Sequence[Any], n_bytes: int) -> None:
    """Keep decoded frames of `n_bytes` each from the number `first` on; the oldest go if all take too much memory."""
    with _lock:
        _passed.update({(identity, first + i): (frame, n_bytes) for i, frame in enumerate(frames)})
        too_many = sum(n_bytes for _, n_bytes in _passed.values()) - MOST_BYTES
        while too_many > 0:
            too_many -= _passed.pop(next(iter(_passed)))[1]


def take_frame(identity: tuple[Any, ...], number: int) -> Any:
    """Take a frame that was kept; None where it was not."""
    with _lock:
        return _passed.pop((identity, number), (None, 0))[0]


class Turn:
    """The right to decode frames that follow from each other, which one thread has at a time.

    Several threads would each decode all frames in front of their blocks, and none would be ready sooner.
    """

    _taken: ClassVar[set[tuple[Any, ...]]] = set()
    _asked: ClassVar[list[tuple[tuple[Any, ...], int]]] = []

    def __init__(self) -> None:
        self._identity: tuple[Any, ...] | None = None

    def is_of(self, identity: tuple[Any, ...]) -> bool:
        """Tell whether it is the turn to decode certain frames."""
        return self._identity == identity

    def begin(self, identity: tuple[Any, ...], frame: int) -> None:
        """Wait for the turn to decode from a frame on; of those that wait, the one of the earliest frame is next."""
        self.end()
        asked = (identity, frame)
        with _turns:
            self._asked.append(asked)
            try:
                _turns.wait_for(lambda: identity not in self._taken and asked == self._next(identity))
                self._taken.add(identity)
                self._identity = identity
            finally:
                self._asked.remove(asked)
                _turns.notify_all()

    def _next(self, identity: tuple[Any, ...]) -> tuple[tuple[Any, ...], int]:
        return min((asked for asked in self._asked if asked[0] == identity), key=operator.itemgetter(1))

    def end(self) -> None:
        """Let another thread decode."""
        with _turns:
            if self._identity is not None:
                self._taken.discard(self._identity)
                self._identity = None
                _turns.notify_all()
