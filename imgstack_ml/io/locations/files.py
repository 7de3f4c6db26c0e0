"""Whole files, local or remote: their state and their bytes."""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from ...files.names import is_url
from .base import State
from .urls import open_url, state_of_url

__all__ = ["open_file", "state_of_file"]

_SMALL_FILE = 2**16  # bytes; such a file is read by one call, which takes half the time of a file that reads ahead

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


def state_of_file(name: str) -> State:
    """Read size and state of a file.

    Raises
    ------
    OSError, ValueError
        It is missing, empty, or not a regular file.
    """
    if is_url(name):
        return state_of_url(name)
    return _state(os.stat(name))


def open_file(name: str) -> contextlib.AbstractContextManager[tuple[BinaryIO, State]]:
    """Open a file for reading, with the state that it has; it can seek.

    Raises
    ------
    OSError, ValueError
        As `state_of_file`; and when the block ends, if something wrote to a local file meanwhile.
    """
    return open_url(name) if is_url(name) else _open_local(name)


@contextlib.contextmanager
def _open_local(name: str) -> Iterator[tuple[BinaryIO, State]]:
    _state(os.stat(name))  # first: opening a named pipe would wait until another process writes to it
    with open(name, "rb", buffering=0) as raw:
        state = _state(os.fstat(raw.fileno()))
        n_bytes = state.n_bytes
        yield io.BytesIO(raw.read(n_bytes)) if n_bytes <= _SMALL_FILE else io.BufferedReader(raw), state
        now = os.fstat(raw.fileno())
        if (now.st_size, now.st_mtime_ns) != state:
            raise ValueError("something wrote to it while it was read")


def _state(found: os.stat_result) -> State:
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise ValueError(f"it is {_KINDS.get(kind, 'a device')}, not a file")
    if found.st_size == 0:
        raise ValueError("the file is empty (0 bytes)")
    return State(found.st_size, found.st_mtime_ns)
