"""How much memory a fit may take."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import cache
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import psutil
from dask.utils import format_bytes, parse_bytes

__all__ = ["Allowance", "allowance", "format_bytes", "return_freed_memory", "reuse_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # from malloc.h
_KEEP_BYTES = 2**29  # "auto" keeps raw images for later passes up to this total


class Allowance(NamedTuple):
    """Bytes a fit may hold per process above what the process held before.

    `limit` is never exceeded. Raw images are kept for later passes while the sum is within `keep`.
    """

    limit: int
    keep: int


def allowance(memory_limit: str | int | float) -> Allowance:
    """Read the ``memory_limit`` of an estimator: ``"auto"``, a number of bytes, or a string such as ``"1GB"``.

    ``"auto"`` allows half of the memory that is available now, and keeps raw images up to 512 MiB in total. An
    explicit value is used in full.
    """
    if memory_limit == "auto":
        limit = _available() // 2
        return Allowance(limit, min(_KEEP_BYTES, limit))
    if isinstance(memory_limit, bool) or not isinstance(memory_limit, str | Real):
        raise ValueError(f"memory_limit={memory_limit!r} must be 'auto', bytes, or a string such as '1GB'.")
    limit = int(parse_bytes(memory_limit)) if isinstance(memory_limit, str) else int(memory_limit)
    if limit <= 0:
        raise ValueError(f"memory_limit={memory_limit!r} leaves no memory; give bytes or a string such as '1GB'.")
    return Allowance(limit, limit)


def _available() -> int:
    """Memory that this process can still take, within its control group where it has one."""
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no control group, or one without a limit ("max")
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(free, 0)


@cache
def reuse_freed_memory() -> None:
    """Have glibc use freed arrays again for the next ones, in all threads alike, for the rest of the process.

    Left alone, it gives large ones back at once, and every block of images faults its pages in anew, which took a
    third of the CPU time of a pass; and it keeps smaller ones for each thread on its own: 16 threads took 470 MB where
    222 MB were alive at most. Who has set this by environment variables is left alone.
    """
    if not any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")):
        with suppress(OSError, AttributeError, TypeError):  # no glibc
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_ARENA_MAX, 1)
            libc.mallopt(_M_MMAP_THRESHOLD, 2**25)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**27)
            libc.malloc_trim(0)


def return_freed_memory() -> None:
    """Give what freed arrays left to the system."""
    with suppress(OSError, AttributeError, TypeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)
