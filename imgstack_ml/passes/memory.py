"""How much memory a fit may take."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import psutil
from dask.utils import format_bytes, parse_bytes

__all__ = ["Allowance", "allowance", "format_bytes", "return_freed_memory", "reuse_freed_memory", "within_plan"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # from malloc.h
_REUSE = 2**25, 2**27  # thresholds in bytes: see _set_thresholds
_RETURN = 2**20, 2**20
_LOOK = 0.01  # seconds between two looks at what the process takes
_KEEP_BYTES = 2**29  # "auto" keeps raw images for later passes up to this total


class Allowance(NamedTuple):
    """Bytes a fit may hold per process above what the process held before.

    `limit` is never exceeded. Raw images are kept for later passes while the sum is within `keep`.
    """

    limit: int
    keep: int

    def room_to_keep(self, otherwise: int) -> int:
        """Bytes that a fit which keeps raw images may hold, where one that reads them again holds `otherwise`."""
        return max(self.keep, min(self.limit, otherwise))


def allowance(memory_limit: str | int | float) -> Allowance:
    """Read the ``memory_limit`` of an estimator: ``"auto"``, a number of bytes, or a string such as ``"1GB"``.

    ``"auto"`` allows half of the memory that the machine, a control group and limits of the process (`ulimit`) leave
    now, and keeps raw images up to 512 MiB in total. An
    explicit value is used in full.
    """
    if memory_limit == "auto":
        limit = _available() // 2
        return Allowance(limit, min(_KEEP_BYTES, limit))
    if isinstance(memory_limit, bool) or not isinstance(memory_limit, str | Real):
        raise ValueError(f"memory_limit={memory_limit!r} must be 'auto', bytes, or a string such as '1GB'.")
    try:
        limit = int(parse_bytes(memory_limit)) if isinstance(memory_limit, str) else int(memory_limit)
    except ValueError:
        raise ValueError(
            f"memory_limit={memory_limit!r} is no size; give 'auto', bytes, or a string such as '1GB'."
        ) from None
    if limit <= 0:
        raise ValueError(f"memory_limit={memory_limit!r} leaves no memory; give bytes or a string such as '1GB'.")
    return Allowance(limit, limit)


def _available() -> int:
    """Memory that this process can still take, within its control group and limits of its own (`ulimit`), if any."""
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no control group, or one without a limit ("max")
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(min([free, *_left_by_limits()]), 0)


def _left_by_limits() -> list[int]:
    """Bytes up to which address space and data may still grow."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return []
    taken = psutil.Process().memory_info()
    limits = (resource.RLIMIT_AS, taken.vms), (resource.RLIMIT_DATA, getattr(taken, "data", 0))
    soft = [(resource.getrlimit(limit)[0], used) for limit, used in limits]
    return [most - used for most, used in soft if most != resource.RLIM_INFINITY]


@contextmanager
def within_plan(n_bytes: int) -> Iterator[None]:
    """Keep freed memory from standing in the way of a plan: the process takes up to `n_bytes` beyond what it holds now.

    Memory is reused as long as there is plenty. Once three quarters of the bytes are taken, of which a part is free by
    then, glibc is told to give back what is freed, up to the end. Arrays that are alive are the planner's concern.
    """
    reuse_freed_memory()
    if not _glibc_is_ours():
        yield
        return
    watch = _Watch(n_bytes)
    watch.start()
    try:
        yield
    finally:
        watch.end()


class _Watch(threading.Thread):
    """Looks every few milliseconds at what the process takes, whichever thread, of whichever library, takes it."""

    def __init__(self, n_bytes: int):
        super().__init__(name="imgstack_ml-memory", daemon=True)
        self._process = psutil.Process()
        self._base = self._process.memory_info().rss
        self._near = n_bytes * 3 // 4
        self._step = n_bytes // 16
        self._over = threading.Event()
        self._returning = False

    def run(self) -> None:
        after = 0
        while not self._over.wait(_LOOK):
            taken = self._process.memory_info().rss - self._base
            if taken > max(self._near, after + self._step):
                _set_thresholds(_RETURN)
                self._returning = True
                return_freed_memory()
                after = self._process.memory_info().rss - self._base
            after = min(after, taken)

    def end(self) -> None:
        self._over.set()
        self.join()
        if self._returning:
            _set_thresholds(_REUSE)


@cache
def reuse_freed_memory() -> None:
    """Have glibc use freed arrays again for the next ones, in all threads alike, for the rest of the process.

    Left alone, it gives large ones back at once, and every block of images faults its pages in anew, which took a
    third of the CPU time of a pass; and it keeps smaller ones for each thread on its own: 16 threads took 470 MB where
    222 MB were alive at most. Threads that were there before keep theirs, see `within_plan`. Who has set this by
    environment variables is left alone.
    """
    if _glibc_is_ours():
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
        _set_thresholds(_REUSE)
        return_freed_memory()


def return_freed_memory() -> None:
    """Give what freed arrays left to the system."""
    with suppress(OSError, AttributeError, TypeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)


@cache
def _glibc_is_ours() -> bool:
    """Whether memory comes from glibc, and nobody has told it what to keep."""
    if any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")):
        return False
    try:
        return all(hasattr(ctypes.CDLL(None), name) for name in ("mallopt", "malloc_trim"))
    except (OSError, TypeError):
        return False


def _set_thresholds(thresholds: tuple[int, int]) -> None:
    """Sizes from which arrays live outside of the heap, and from which free memory at its end goes back."""
    libc = ctypes.CDLL(None)
    for option, n_bytes in zip((_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD), thresholds, strict=True):
        libc.mallopt(option, n_bytes)
