"""Safe writing: every file and folder that the package writes goes through here.

What is written is built beside its target under a hidden name and renamed at the end, so that a reader, a
crash or a full disk never meets half a file, and what stood there before stays until then.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator

from ._errors import StoreError

__all__ = ["atomic_folder", "atomic_path", "require_space"]

Path = str | os.PathLike[str]


@contextlib.contextmanager
def atomic_path(path: Path, *, overwrite: bool = True) -> Iterator[str]:
    """Give the name of a temporary file that becomes `path` when the block ends without an error.

    Parameters
    ----------
    path : str or PathLike
        File to write. A symbolic link is followed: its target is replaced, the link stays.
    overwrite : bool, default=True
        Whether an existing file may be replaced.

    Yields
    ------
    str
        Name in the same folder and with the same suffix, to be written by the caller.

    Raises
    ------
    StoreError
        `path` is a folder, its folder is missing, or it exists and `overwrite` is False.
    """
    target = os.path.realpath(path)
    if os.path.isdir(target):
        raise StoreError(f"{target!r} is a folder; give the name of a file to write")
    _refuse_target(target, overwrite)
    temporary = _hidden_sibling(target)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
        _sync(os.path.dirname(target))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


@contextlib.contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[str]:
    """Give a new temporary folder that becomes `path` when the block ends without an error.

    Parameters
    ----------
    path : str or PathLike
        Folder to write.
    overwrite : bool, default=False
        Whether an existing folder may be replaced, with all it holds. The caller answers for what it holds.

    Yields
    ------
    str
        An empty folder beside `path`, to be filled by the caller.

    Raises
    ------
    StoreError
        `path` is a file, its parent folder is missing, or it exists and `overwrite` is False.
    """
    target = os.path.realpath(path)
    if os.path.isfile(target):
        raise StoreError(f"{target!r} is a file; give the name of a folder to write")
    _refuse_target(target, overwrite)
    temporary = _hidden_sibling(target)
    try:
        os.mkdir(temporary)
        yield temporary
        _sync_tree(temporary)
        _swap_folder(temporary, target)
        _sync(os.path.dirname(target))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_space(path: Path, n_bytes: int) -> None:
    """Check that the disk which holds `path` has room for `n_bytes` more bytes.

    Parameters
    ----------
    path : str or PathLike
        An existing file or folder on the disk in question.
    n_bytes : int
        Bytes that are about to be written.

    Raises
    ------
    StoreError
        There is less room than that.
    """
    free = shutil.disk_usage(path).free
    if n_bytes > free:
        raise StoreError(
            f"writing to {os.fspath(path)!r} needs {n_bytes:,} bytes, but only {free:,} bytes are free there; "
            "make room or choose a folder on another disk"
        )


def _refuse_target(target: str, overwrite: bool) -> None:
    """Refuse a target that exists and must not be replaced, or whose parent folder is missing."""
    parent = os.path.dirname(target)
    if not os.path.isdir(parent):
        raise StoreError(f"there is no folder {parent!r} to write in; make it first: os.makedirs({parent!r})")
    if not overwrite and os.path.lexists(target):
        raise StoreError(f"{target!r} exists already; pass overwrite=True to replace it")


def _hidden_sibling(target: str) -> str:
    """Name beside `target` that no listing shows; the suffix stays, since writers choose a format by it."""
    folder, name = os.path.split(target)
    stem, suffix = os.path.splitext(name)
    # Cut, so that the longest name a file system takes still leaves room for the rest.
    return os.path.join(folder, f".{stem[:64]}-{secrets.token_hex(6)}.tmp{suffix}")


def _swap_folder(new: str, target: str) -> None:
    """Rename `new` to `target`; what stood there is put back if that fails, else removed."""
    if not os.path.lexists(target):
        os.rename(new, target)
        return
    old = _hidden_sibling(target)
    os.rename(target, old)
    try:
        os.rename(new, target)
    except BaseException:
        os.rename(old, target)
        raise
    shutil.rmtree(old)


def _sync_tree(folder: str) -> None:
    """Force all files below `folder` to the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(os.path.join(parent, name))
        _sync(parent)


def _sync(path: str) -> None:
    """Force a file, or a folder's list of names where the system can, to the disk."""
    if os.name == "nt" and os.path.isdir(path):
        return
    # Windows flushes only what is open for writing; a folder can be opened for reading only.
    descriptor = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
