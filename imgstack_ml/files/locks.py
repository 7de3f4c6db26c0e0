"""A lock on an output, so that two processes never write it at the same time."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator

from ..errors import StoreError
from .names import hidden_sibling, name_digest, refuse_url

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["lock_output"]


@contextlib.contextmanager
def lock_output(path: str | os.PathLike[str]) -> Iterator[None]:
    """Lock an output while the block runs: other processes that lock it are refused.

    The operating system locks a hidden file beside `path`, and unlocks it when the process ends in any way. The lock
    file of a killed process stays, but it is not locked.

    Parameters
    ----------
    path : str or PathLike
        File or folder to write. Its parent folder must exist.

    Raises
    ------
    StoreError
        `path` is a URL; or another process, or another call in this process, holds the lock.
    """
    refuse_url(path)
    target = os.path.realpath(path)
    lock = hidden_sibling(target, name_digest(target), ".lock")
    descriptor = _open_locked(lock, target)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        # Removed before it is unlocked. A process that opened this file and locks it next sees that, and tries again.
        with contextlib.suppress(OSError):
            os.remove(lock)
        os.close(descriptor)


def _open_locked(lock: str, target: str) -> int:
    """Open and lock the lock file. Try again if its last holder removed it between the two steps."""
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
                f"{target!r} is being written by {holder}; wait until it has finished, or write to another place"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _read_holder(descriptor: int) -> str:
    """Process that wrote itself into the lock file."""
    with contextlib.suppress(OSError):  # on Windows, only the holder can read a locked file
        return os.read(descriptor, 1000).decode(errors="replace") or "another process"
    return "another process"


def _lock(descriptor: int) -> None:
    """Lock an open file, or raise at once if it is locked already."""
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems do not support locks. There, nobody is refused.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
