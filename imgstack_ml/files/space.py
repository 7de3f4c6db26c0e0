"""Disk space: checked before writing, and explained when it runs out."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator

from ..errors import StoreError

__all__ = ["explain_full_disk", "require_space"]


@contextlib.contextmanager
def explain_full_disk(target: str, n_bytes: int) -> Iterator[None]:
    """Replace an OSError for a full disk, quota or file size limit by an error that names the bytes needed.

    Parameters
    ----------
    target : str
        File or folder that the body of the ``with`` statement writes.
    n_bytes : int
        Largest size of `target` in bytes.

    Raises
    ------
    StoreError
        The body raised one of these errors. All others pass unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise StoreError(
            f"the disk is full: {target!r} needs up to {n_bytes:,} bytes and could not be written "
            f"({os.strerror(error.errno)}); free some space, or choose a folder on another disk"
        ) from error


def require_space(path: str | os.PathLike[str], n_bytes: int) -> None:
    """Check that a disk has room for `n_bytes` more bytes.

    Parameters
    ----------
    path : str or PathLike
        An existing file or folder on that disk.
    n_bytes : int
        Bytes that will be written.

    Raises
    ------
    StoreError
        Fewer bytes are free.
    """
    free = shutil.disk_usage(path).free
    if n_bytes > free:
        raise StoreError(
            f"writing to {os.fspath(path)!r} needs {n_bytes:,} bytes, but only {free:,} bytes are free there; "
            "free some space, or choose a folder on another disk"
        )
