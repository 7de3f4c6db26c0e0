"""How the bytes of a named file are reached: a local path, a member of an archive, or a URL that fsspec knows.

A name is a plain string, so that it can stand in a task and in ``stack.files``:

- ``/data/photos/1.png``: a file of this machine, opened without a detour;
- ``/data/photos.zip::a/1.png``: a member of an archive, which is itself a named file (see `archives`);
- ``s3://bucket/photos/1.png``: whatever fsspec opens, chained URLs included.
"""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

__all__ = ["Bounded", "State", "Window", "filesystem", "is_local", "is_url", "open_bytes", "read_state", "split_member"]

ARCHIVE_SUFFIXES = (".zip", ".tar")


class State(NamedTuple):
    """Size of a file in bytes, and a number that differs once it is written anew."""

    n_bytes: int
    modified: int


def is_url(name: str) -> bool:
    """Tell whether a name leads to a file system of fsspec's; absolute paths never hold ``://``."""
    return "://" in name


def is_local(name: str) -> bool:
    """Tell whether a name is the path of a file of this machine."""
    return not is_url(name) and split_member(name) is None


def split_member(name: str) -> tuple[str, str] | None:
    """Split the name of an archive's member into archive and member; None for any other name, a file's own included."""
    end = name.find("::")
    if end >= 0 and os.path.lexists(name):
        return None
    while end >= 0:
        if name[:end].lower().endswith(ARCHIVE_SUFFIXES):
            return name[:end], name[end + 2 :]
        end = name.find("::", end + 2)
    return None


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path of the URL in it."""
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url)
    except ImportError as error:
        raise ValueError(f"{url!r} needs a package that is not installed: {error}") from error


def read_state(name: str) -> State:
    """Read size and state of a named file.

    Raises
    ------
    OSError, ValueError
        It is missing, empty, or not a regular file.
    """
    parts = split_member(name)
    if parts is not None:
        from .archives import find_archive

        return find_archive(parts[0]).state(parts[1])
    if is_url(name):
        return _remote_state(name)
    state = os.stat(name)
    _check_regular(state)
    return State(state.st_size, state.st_mtime_ns)


@contextlib.contextmanager
def open_bytes(name: str) -> Iterator[BinaryIO]:
    """Open a named file for reading; the file can seek.

    Raises
    ------
    OSError, ValueError
        It is missing or not a regular file.
    """
    parts = split_member(name)
    if parts is not None:
        from .archives import find_archive

        with open_bytes(parts[0]) as file:
            yield find_archive(parts[0]).open(parts[1], file)
    elif is_url(name):
        system, path = filesystem(name)
        with system.open(path, "rb") as file:
            yield file
    else:
        with open(name, "rb") as file:
            yield file


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
    """A file that is never asked for more than it holds: room for a read is made before its bytes are there.

    Parameters
    ----------
    file : binary file
    n_bytes : int
        Its size.
    """

    def __init__(self, file: BinaryIO, n_bytes: int):
        self._file, self._n_bytes = file, n_bytes
        self.seek, self.tell = file.seek, file.tell

    def read(self, n_bytes: int = -1, /) -> bytes:
        """Read up to `n_bytes`, and no further than to the end."""
        left = max(0, self._n_bytes - self._file.tell())
        return self._file.read(left if n_bytes < 0 else min(n_bytes, left))


def buffered(window: Window) -> BinaryIO:
    """Read a window in larger steps than it is asked for."""
    return cast(BinaryIO, io.BufferedReader(window))


def _remote_state(url: str) -> State:
    system, path = filesystem(url)
    info = system.info(path)
    if info.get("type") == "directory":
        raise ValueError("it is a folder, not a file")
    return remote_state(system, info)


def remote_state(system: Any, info: dict[str, Any]) -> State:
    """Make the state of a remote file of what its file system tells about it in a listing."""
    from dask.base import tokenize

    if not info.get("size"):
        raise ValueError("the file is empty (0 bytes)" if info.get("size") == 0 else "its size is not known")
    # Systems differ in what they tell: a time, an ETag, a generation. All of it together changes when the file does.
    return State(int(info["size"]), int(tokenize(sorted(info.items(), key=lambda item: str(item[0]))), 16) % 2**63)


def _check_regular(state: os.stat_result) -> None:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    kind = stat.S_IFMT(state.st_mode)
    if kind != stat.S_IFREG:
        raise ValueError(f"it is {kinds.get(kind, 'a device')}, not a file")
    if state.st_size == 0:
        raise ValueError("the file is empty (0 bytes)")
