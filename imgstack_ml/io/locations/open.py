"""The state and the bytes of any named file: a whole file, or a member of an archive."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from ...files.names import is_url
from .archives import find_archive, read_archive
from .base import State
from .files import open_file, state_of_file
from .names import split_member
from .urls import forget_listings

__all__ = ["forget_listings_of", "local_path", "open_bytes", "read_state"]


def forget_listings_of(names: Iterable[str]) -> None:
    """Make fsspec ask again about those of the named files that are at URLs; see `forget_listings`."""
    if urls := {(split_member(name) or (name,))[0] for name in names if is_url(name)}:
        forget_listings(urls)


def read_state(name: str) -> State:
    """Read size and state of a named file.

    Raises
    ------
    OSError, ValueError
        It is missing, empty, or not a regular file.
    """
    parts = split_member(name)
    return state_of_file(name) if parts is None else find_archive(parts[0]).state(parts[1])


def open_bytes(name: str) -> contextlib.AbstractContextManager[tuple[BinaryIO, State]]:
    """Open a named file for reading, with its state; it can seek.

    Raises
    ------
    OSError, ValueError
        It is missing, empty, or not a regular file; or it is local, and something writes to it meanwhile.
    """
    parts = split_member(name)
    return open_file(name) if parts is None else _open_member(*parts)


@contextlib.contextmanager
def local_path(name: str) -> Iterator[str]:
    """Give a path of this machine to a named file: of a copy, where it is a member of an archive or at a URL."""
    if split_member(name) is None and not is_url(name):
        yield name
        return
    with open_bytes(name) as (file, _), tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"copy{os.path.splitext(name)[1]}")
        with open(path, "wb") as copy:
            shutil.copyfileobj(file, copy)
        yield path


@contextlib.contextmanager
def _open_member(archive: str, member: str) -> Iterator[tuple[BinaryIO, State]]:
    with open_file(archive) as (file, state):
        yield read_archive(archive, state).open(member, file)
