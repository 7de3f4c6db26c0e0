"""The state and the bytes of any named file: a whole file, or a member of an archive."""

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

from .archives import find_archive
from .base import State
from .files import open_file, state_of_file
from .names import split_member

__all__ = ["open_bytes", "read_state"]


def read_state(name: str) -> State:
    """Read size and state of a named file.

    Raises
    ------
    OSError, ValueError
        It is missing, empty, or not a regular file.
    """
    parts = split_member(name)
    return state_of_file(name) if parts is None else find_archive(parts[0]).state(parts[1])


@contextlib.contextmanager
def open_bytes(name: str) -> Iterator[BinaryIO]:
    """Open a named file for reading; it can seek.

    Raises
    ------
    OSError, ValueError
        It is missing or not a regular file.
    """
    parts = split_member(name)
    with open_file(name if parts is None else parts[0]) as file:
        yield file if parts is None else find_archive(parts[0]).open(parts[1], file)
