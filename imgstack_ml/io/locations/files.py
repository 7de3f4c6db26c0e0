"""Whole files, local or remote: their state and their bytes."""

import contextlib
import os
import stat
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
    found = os.stat(name)
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise ValueError(f"it is {_KINDS.get(kind, 'a device')}, not a file")
    if found.st_size == 0:
        raise ValueError("the file is empty (0 bytes)")
    return State(found.st_size, found.st_mtime_ns)


def open_file(name: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Open a file for reading; it can seek."""
    return open_url(name) if is_url(name) else open(name, "rb")
