"""Safe writing: every file and folder that the package writes goes through here.

What is written is built beside its target under a hidden name and renamed at the end, so that a reader, a
crash or a full disk never meets half a file, and what stood there before stays until then.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator

from ..errors import StoreError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["atomic_folder", "atomic_path", "lock_output", "naming_the_space", "require_space"]

Path = str | os.PathLike[str]

_REMOVALS, _REMOVAL_SECONDS = 50, 0.1


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
    temporary = _hidden_sibling(target, secrets.token_hex(6))
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
        _sync(os.path.dirname(target))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


@contextlib.contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False, resume: bool = False) -> Iterator[str]:
    """Give a temporary folder that becomes `path` when the block ends without an error.

    Its name follows from `path`, and `path` is locked meanwhile: what a killed process left is found again.

    Parameters
    ----------
    path : str or PathLike
        Folder to write.
    overwrite : bool, default=False
        Whether an existing folder may be replaced, with all it holds. The caller answers for what it holds.
    resume : bool, default=False
        Whether to go on in the temporary folder that an earlier call left, and to leave it for a later one
        should the block fail. Else what was left is removed, and nothing is left.

    Yields
    ------
    str
        A folder beside `path`, to be filled by the caller; empty unless `resume`.

    Raises
    ------
    StoreError
        `path` is a file, its parent folder is missing, it exists and `overwrite` is False, or another process
        is writing it.
    """
    target = os.path.realpath(path)
    if os.path.isfile(target):
        raise StoreError(f"{target!r} is a file; give the name of a folder to write")
    _refuse_target(target, overwrite)
    temporary = _hidden_sibling(target, _digest(target))
    with lock_output(target):
        _put_back(target)
        _refuse_target(target, overwrite)  # again: another process may just have finished it
        leave = resume
        if not leave:
            shutil.rmtree(temporary, ignore_errors=True)
        try:
            os.makedirs(temporary, exist_ok=True)
            yield temporary
            _sync_tree(temporary)
            _swap_folder(temporary, target)
            leave = False  # by now, what stood at `path` before
            _sync(os.path.dirname(target))
        finally:
            if not leave:
                _remove_tree(temporary)


@contextlib.contextmanager
def lock_output(path: Path) -> Iterator[None]:
    """Keep others from writing `path` meanwhile.

    The lock is the system's own on a hidden file beside `path`, and ends with the process however that ends: a
    file that a killed process left locks nothing.

    Parameters
    ----------
    path : str or PathLike
        File or folder, in a folder that exists.

    Raises
    ------
    StoreError
        Another process, or another call in this one, holds the lock.
    """
    target = os.path.realpath(path)
    lock = _hidden_sibling(target, _digest(target), ".lock")
    descriptor = _open_locked(lock, target)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        # Removed while it is held: who opens it from now on opens another file.
        with contextlib.suppress(OSError):
            os.remove(lock)
        os.close(descriptor)


@contextlib.contextmanager
def naming_the_space(target: str, n_bytes: int) -> Iterator[None]:
    """Say how many bytes were needed where the disk fills up.

    Parameters
    ----------
    target : str
        What is being written.
    n_bytes : int
        Bytes that it takes at most.

    Raises
    ------
    StoreError
        In place of the system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise StoreError(
            f"the disk is full: {target!r} needs up to {n_bytes:,} bytes, and could not be written "
            f"({os.strerror(error.errno)}); make room or choose a folder on another disk"
        ) from error


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


def _hidden_sibling(target: str, token: str, suffix: str | None = None) -> str:
    """Name beside `target` that no listing shows; the suffix stays, since writers choose a format by it."""
    folder, name = os.path.split(target)
    stem, own_suffix = os.path.splitext(name)
    # Cut, so that the longest name a file system takes still leaves room for the rest.
    return os.path.join(folder, f".{stem[:32]}-{token}.tmp{own_suffix[:16] if suffix is None else suffix}")


def _digest(target: str) -> str:
    """Tell apart targets in one folder whose names begin alike."""
    return hashlib.blake2b(os.fsencode(os.path.basename(target)), digest_size=6).hexdigest()


def _open_locked(lock: str, target: str) -> int:
    """Open and lock a file of that name; the last holder may remove it between the two steps."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            if os.path.exists(lock) and os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        except (BlockingIOError, PermissionError) as error:
            holder = _read_holder(descriptor)
            os.close(descriptor)
            raise StoreError(
                f"{target!r} is being written by {holder}; wait until that has ended, or write to another place"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _read_holder(descriptor: int) -> str:
    with contextlib.suppress(OSError):  # Windows shows a locked file to its holder alone
        return os.read(descriptor, 1000).decode(errors="replace") or "another process"
    return "another process"


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems know no locks: nobody is refused there.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise


def _swap_folder(new: str, target: str) -> None:
    """Rename `new` to `target`; what stood there takes the name of `new`, or is removed."""
    if not os.path.lexists(target):
        os.rename(new, target)
    elif not _exchange(new, target):
        old = _set_aside(target)
        os.rename(target, old)
        try:
            os.rename(new, target)
        except BaseException:
            os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _set_aside(target: str) -> str:
    """Name of what stood at `target`, for the moment in which the new folder takes its place."""
    return _hidden_sibling(target, _digest(target) + "-old")


def _put_back(target: str) -> None:
    """Clear up after a process that was killed in that moment."""
    old = _set_aside(target)
    if os.path.lexists(target):
        shutil.rmtree(old, ignore_errors=True)
    elif os.path.lexists(old):
        os.rename(old, target)


def _exchange(one: str, other: str) -> bool:
    """Let two names change places in one step, so that none is missing even for a moment; Linux alone can."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _remove_tree(folder: str) -> None:
    """Remove a folder into which threads of an interrupted computation may write for a moment yet."""
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(_REMOVAL_SECONDS)


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
