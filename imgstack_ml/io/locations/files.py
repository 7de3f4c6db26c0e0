"""Whole files, local or remote: their state and their bytes."""

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from ...files.names import is_url
from .base import State
from .urls import open_url, state_of_url

__all__ = ["open_file", "state_of_file"]

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


@contextlib.contextmanager
def open_file(name: str) -> Iterator[tuple[BinaryIO, State]]:
    """Open a file for reading, with the state that it has; it can seek.

    Raises
    ------
    OSError, ValueError
        As `state_of_file`; and when the block ends, if something wrote to a local file meanwhile.
    """
    if is_url(name):
        with open_url(name) as opened:
            yield opened
        return
    _state(os.stat(name))  # first: opening a named pipe would wait until another process writes to it
    with open(name, "rb") as file:
        state = _state(os.fstat(file.fileno()))
        yield file, state
        now = os.fstat(file.fileno())
        if (now.st_size, now.st_mtime_ns) != state:
            raise ValueError("something wrote to it while it was read")


def _state(found: os.stat_result) -> State:
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise ValueError(f"it is {_KINDS.get(kind, 'a device')}, not a file")
    if found.st_size == 0:
        raise ValueError("the file is empty (0 bytes)")
    return State(found.st_size, found.st_mtime_ns)
