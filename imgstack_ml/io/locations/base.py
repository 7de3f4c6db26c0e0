"""What all locations share: the state of a file, and files that are bounded parts of others."""

import io
import os
from typing import Any, BinaryIO, NamedTuple, cast

__all__ = ["Bounded", "State", "Window", "buffered", "check_unchanged"]


class State(NamedTuple):
    """Size of a file in bytes, and a number that differs once it is written anew."""

    n_bytes: int
    modified: int


def check_unchanged(then: State, now: State) -> None:
    """Raise if a file has been written anew since a stack was opened: its pixels would be those of another image."""
    if then != now:
        sizes = (
            f": it had {then.n_bytes:,} bytes then and has {now.n_bytes:,} now" if then.n_bytes != now.n_bytes else ""
        )
        raise ValueError(f"it has changed since the stack was opened{sizes}; open the stack again")


class Window(io.RawIOBase):
    """A part of a file, as a file.

    Parameters
    ----------
    file : binary file
    start, n_bytes : int
        Where the part begins, and its size.
    """

    def __init__(self, file: BinaryIO, start: int, n_bytes: int):
        self._file, self._start, self._n_bytes, self._position = file, start, n_bytes, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the part."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._n_bytes}[whence]
        if base + offset < 0:
            raise ValueError("a file has no bytes in front of its beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Read what fits into `buffer`, up to the end of the part."""
        n_bytes = max(0, min(len(buffer), self._n_bytes - self._position))
        self._file.seek(self._start + self._position)
        content = self._file.read(n_bytes)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


class Bounded:
    """A file of which no more is read than it holds: a read allocates all the bytes that it is asked for.

    Parameters
    ----------
    file : binary file
    n_bytes : int
        Its size.
    """

    def __init__(self, file: BinaryIO, n_bytes: int):
        self._n_bytes = n_bytes
        self.attach(file)

    def attach(self, file: BinaryIO) -> None:
        """Read from another handle of the file, since the one before was closed."""
        self._file, self.seek, self.tell = file, file.seek, file.tell
        self.readinto = file.readinto  # type: ignore[attr-defined] # NumPy needs it to read records

    def read(self, n_bytes: int = -1, /) -> bytes:
        """Read up to `n_bytes`, at most to the end."""
        left = max(0, self._n_bytes - self._file.tell())
        return self._file.read(left if n_bytes < 0 else min(n_bytes, left))


def buffered(window: Window) -> BinaryIO:
    """Return a window that reads ahead, so that small reads are cheap."""
    return cast(BinaryIO, io.BufferedReader(window))
