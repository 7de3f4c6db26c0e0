"""Files and folders that appear whole or not at all. All output of the package is written through them.

The content is written under a hidden name beside the target, and renamed at the end. If the process is killed or the
disk fills up, the target is missing or as it was before; readers never see half of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator

from ..errors import StoreError
from .locks import lock_output
from .names import hidden_sibling, name_digest, refuse_url

__all__ = ["atomic_folder", "atomic_path"]

Path = str | os.PathLike[str]

_REMOVALS, _REMOVAL_SECONDS = 50, 0.1


@contextlib.contextmanager
def atomic_path(path: Path, *, overwrite: bool = True) -> Iterator[str]:
    """Yield the name of a temporary file. It becomes `path` when the block ends without an error.

    Parameters
    ----------
    path : str or PathLike
        File to write. If it is a symbolic link, the file that it points to is replaced, and the link stays.
    overwrite : bool, default=True
        Whether an existing file may be replaced.

    Yields
    ------
    str
        Name in the same folder and with the same suffix. The block creates this file.

    Raises
    ------
    StoreError
        `path` is a URL or a folder, its parent folder is missing, or it exists and `overwrite` is False, or the system
        does not let it be replaced.
    """
    refuse_url(path)
    target = os.path.realpath(path)
    if os.path.isdir(target):
        raise StoreError(f"{target!r} is a folder; give the name of a file to write")
    _check_target(target, overwrite)
    temporary = hidden_sibling(target, secrets.token_hex(6))
    try:
        yield temporary
        _sync(temporary)
        _replace(temporary, target)
        _sync(os.path.dirname(target))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


@contextlib.contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False, resume: bool = False) -> Iterator[str]:
    """Yield a temporary folder. It becomes `path` when the block ends without an error.

    `path` is locked while the block runs. The name of the temporary folder depends on `path` only, so that a later
    call finds the folder that a killed process left.

    Parameters
    ----------
    path : str or PathLike
        Folder to write.
    overwrite : bool, default=False
        Whether an existing folder may be replaced, with everything in it. The caller must check what is in it.
    resume : bool, default=False
        If True, continue in the temporary folder of an earlier call, and keep it if the block fails. If False,
        remove the folder of an earlier call first, and this one if the block fails.

    Yields
    ------
    str
        A folder beside `path` for the block to fill. It is empty unless `resume` is True.

    Raises
    ------
    StoreError
        `path` is a URL or a file, its parent folder is missing, it exists and `overwrite` is False, or another
        process is writing it.
    """
    refuse_url(path)
    target = os.path.realpath(path)
    if os.path.isfile(target):
        raise StoreError(f"{target!r} is a file; give the name of a folder to write")
    _check_target(target, overwrite)
    temporary = hidden_sibling(target, name_digest(target))
    with lock_output(target):
        _recover_old_folder(target)
        _check_target(target, overwrite)  # again: another process may have finished it before the lock was free
        keep = resume
        if not keep:
            shutil.rmtree(temporary, ignore_errors=True)
        try:
            os.makedirs(temporary, exist_ok=True)
            yield temporary
            _sync_tree(temporary)
            _swap_folder(temporary, target)
            keep = False  # the temporary name now holds the replaced folder, if any
            _sync(os.path.dirname(target))
        finally:
            if not keep:
                _remove_tree(temporary)


def _check_target(target: str, overwrite: bool) -> None:
    """Raise if the parent folder is missing, or if the target exists and must not be replaced."""
    parent = os.path.dirname(target)
    if not os.path.isdir(parent):
        raise StoreError(f"there is no folder {parent!r} to write in; make it first: os.makedirs({parent!r})")
    if not overwrite and os.path.lexists(target):
        raise StoreError(f"{target!r} exists already; pass overwrite=True to replace it")


def _replace(temporary: str, target: str) -> None:
    try:
        os.replace(temporary, target)
    except PermissionError as error:  # Windows replaces no file that is open or mapped, Linux no other user's in /tmp
        raise StoreError(
            f"{target!r} cannot be replaced: a program has it open, or it belongs to another user; "
            "close the program, or write to another name"
        ) from error


def _swap_folder(new: str, target: str) -> None:
    """Rename `new` to `target`. An existing target is renamed to `new`, or removed if the system cannot exchange."""
    if not os.path.lexists(target):
        os.rename(new, target)
    elif not _exchange(new, target):
        old = _old_name(target)
        os.rename(target, old)
        try:
            os.rename(new, target)
        except BaseException:
            os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _old_name(target: str) -> str:
    """Name of the replaced folder between the two renames of `_swap_folder`."""
    return hidden_sibling(target, name_digest(target) + "-old")


def _recover_old_folder(target: str) -> None:
    """Put the replaced folder back, or remove it, after a process that was killed between the two renames."""
    old = _old_name(target)
    if os.path.lexists(target):
        shutil.rmtree(old, ignore_errors=True)
    elif os.path.lexists(old):
        os.rename(old, target)


def _exchange(one: str, other: str) -> bool:
    """Exchange two names in one step, so that both exist at any time. Return False where the system is not Linux."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _remove_tree(folder: str) -> None:
    """Remove a folder. Try again for some seconds: threads of an interrupted computation may still write into it."""
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(_REMOVAL_SECONDS)


def _sync_tree(folder: str) -> None:
    """Write all files below `folder` from the system's cache to the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(os.path.join(parent, name))
        _sync(parent)


def _sync(path: str) -> None:
    """Write a file, or the list of names in a folder, from the system's cache to the disk."""
    if os.name == "nt" and os.path.isdir(path):
        return  # Windows cannot sync a folder
    # Windows syncs only files that are open for writing. A folder can only be opened for reading.
    descriptor = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
