"""The number of threads of all benchmarks, and a loop that they share."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["THREADS", "in_threads"]

THREADS = 2  # the same on every machine, so that figures can be compared
Item = TypeVar("Item")


def in_threads(work: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Call a function for each item, in `THREADS` threads; the first error is raised."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, items))
