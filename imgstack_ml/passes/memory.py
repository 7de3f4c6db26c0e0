"""How much memory a fit may take, and keeping freed memory from adding to it."""

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
_REUSE = 2**25, 2**27  # arguments of _set_thresholds that make glibc reuse freed memory
_RETURN = 2**20, 2**20  # those that make it return freed memory to the system
_POLL_SECONDS = 0.01
_KEEP_BYTES = 2**29  # with "auto", images are kept in memory for later passes if they and all else take up to this


class Allowance(NamedTuple):
    """Bytes that a fit may take per process, beyond what the process held before.

    `limit` is for any fit. `keep` is for a fit that keeps the raw images in memory for later passes.
    """

    limit: int
    keep: int

    def room_to_keep(self, otherwise: int) -> int:
        """Bytes for a fit that keeps the raw images: `keep`, or what a fit that reads them again would take anyway.

        Parameters
        ----------
        otherwise : int
            Bytes that a fit without the images in memory would take.
        """
        return max(self.keep, min(self.limit, otherwise))


def allowance(memory_limit: str | int | float) -> Allowance:
    """Turn the parameter ``memory_limit`` of an estimator into bytes.

    Parameters
    ----------
    memory_limit : "auto", int, float or str
        Bytes, or a string such as ``"1GB"``, all of which may be used. ``"auto"`` is half of the memory that is
        available now, given the machine, its control group and limits of the process (`ulimit`). Raw images are then
        kept in memory only if the whole fit takes up to 512 MiB.

    Raises
    ------
    ValueError
        It is none of these, or not positive.
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
            f"memory_limit={memory_limit!r} is not a size; give 'auto', bytes, or a string such as '1GB'."
        ) from None
    if limit <= 0:
        raise ValueError(f"memory_limit={memory_limit!r} leaves no memory; give bytes or a string such as '1GB'.")
    return Allowance(limit, limit)


def _available() -> int:
    """Bytes that this process can still take: the least that the machine, the control group and `ulimit` leave."""
    free: int = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # there is no control group, or its limit is "max"
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(min([free, *_left_by_limits()]), 0)


def _left_by_limits() -> list[int]:
    """Bytes by which the address space and the data segment may still grow, where `ulimit` limits them."""
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
    """Keep memory that was freed, but not returned to the system, from taking the process beyond a plan.

    glibc keeps freed memory for reuse. While the block runs, a thread watches the memory of the process. Once it takes
    three quarters of `n_bytes`, glibc must return freed memory to the system, until the block ends. This does not limit
    the arrays that are in use; the plan of a fit does.

    Parameters
    ----------
    n_bytes : int
        Bytes that the block may take beyond what the process holds now.
    """
    reuse_freed_memory()
    if not _may_tune_glibc():
        yield
        return
    watch = _MemoryWatch(n_bytes)
    watch.start()
    try:
        yield
    finally:
        watch.end()


class _MemoryWatch(threading.Thread):
    """Polls the resident memory of the process, and makes glibc return freed memory when it comes near a limit."""

    def __init__(self, n_bytes: int):
        super().__init__(name="imgstack_ml-memory", daemon=True)
        self._process = psutil.Process()
        self._base = self._process.memory_info().rss
        self._near = n_bytes * 3 // 4
        self._step = n_bytes // 16
        self._may_end = threading.Event()
        self._returning = False

    def run(self) -> None:
        after = 0  # bytes taken after memory was last returned: it is returned again when they have grown by a step
        while not self._may_end.wait(_POLL_SECONDS):
            taken = self._process.memory_info().rss - self._base
            if taken > max(self._near, after + self._step):
                _set_thresholds(_RETURN)
                self._returning = True
                return_freed_memory()
                after = self._process.memory_info().rss - self._base
            after = min(after, taken)

    def end(self) -> None:
        """Stop the thread, and let glibc reuse freed memory again."""
        self._may_end.set()
        self.join()
        if self._returning:
            _set_thresholds(_REUSE)


@cache
def reuse_freed_memory() -> None:
    """Make glibc reuse the memory of freed arrays, shared by all threads, for the rest of the process.

    By default, glibc returns large arrays to the system at once. The system must then provide new pages for each block
    of images, which took a third of the CPU time of a pass. It also keeps freed small arrays in a heap for each thread:
    16 threads took 470 MB while arrays of at most 222 MB were in use. Threads that already run keep their heaps.

    Nothing is changed if environment variables configure glibc already, or if there is no glibc.
    """
    if _may_tune_glibc():
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
        _set_thresholds(_REUSE)
        return_freed_memory()


def return_freed_memory() -> None:
    """Return the memory of freed arrays to the system, where glibc is used."""
    with suppress(OSError, AttributeError, TypeError):  # there is no glibc
        ctypes.CDLL(None).malloc_trim(0)


@cache
def _may_tune_glibc() -> bool:
    """Whether glibc manages the memory and no environment variable configures it."""
    if any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")):
        return False
    try:
        return all(hasattr(ctypes.CDLL(None), name) for name in ("mallopt", "malloc_trim"))
    except (OSError, TypeError):
        return False


def _set_thresholds(thresholds: tuple[int, int]) -> None:
    """Configure glibc.

    Parameters
    ----------
    thresholds : (int, int)
        Bytes from which an array is allocated outside the heap, and returned to the system when it is freed. Bytes of
        free memory at the end of the heap from which they are returned.
    """
    libc = ctypes.CDLL(None)
    for option, n_bytes in zip((_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD), thresholds, strict=True):
        libc.mallopt(option, n_bytes)
