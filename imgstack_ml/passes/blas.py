"""BLAS on one thread for each task, because tasks already run on all threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, reduce
from itertools import pairwise
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from ..linalg.ranges import Run
from .memory import reuse_freed_memory

__all__ = ["in_threads", "one_blas_thread"]


@lru_cache(maxsize=1)
def _blas_libraries(n_modules: int) -> ThreadpoolController:
    """Find the BLAS libraries that are loaded: once, as it takes milliseconds, and again after an import of others."""
    return ThreadpoolController().select(user_api="blas")


class _BlasLimit(threading.Thread):
    """A thread that sets the BLAS limit of the process and restores it. threadpoolctl needs one thread for both."""

    lock = threading.Lock()
    current: _BlasLimit
    users = 0

    def __init__(self) -> None:
        super().__init__(name="imgstack_ml-blas-limit", daemon=True)
        self._is_set = threading.Event()
        self._may_end = threading.Event()
        self._libraries = _blas_libraries(len(sys.modules))

    def limit(self) -> AbstractContextManager[Any]:
        """Limit each BLAS library to one thread, for the process or for the calling thread as the library does it."""
        limited: AbstractContextManager[Any] = self._libraries.limit(limits=1)
        return limited

    def run(self) -> None:
        with self.limit():
            self._is_set.set()
            self._may_end.wait()

    def begin(self) -> None:
        """Start the thread and wait until it has set the limit."""
        reuse_freed_memory()  # before a thread starts, or glibc would give it a heap of its own
        self.start()
        self._is_set.wait()

    def end(self) -> None:
        """Wait until the thread has restored the old limit."""
        self._may_end.set()
        self.join()


def in_threads(n: int) -> Run:
    """Return what divides the pixels of some images among `n` threads, and merges results in order."""

    def run(step: Callable[..., Any], merge: Callable[[Any, Any], Any], blocks: Sequence[np.ndarray]) -> Any:
        def call(ends: tuple[int, int]) -> Any:
            with one_blas_thread():
                return step(blocks, *ends)

        p = blocks[0][0].size
        edges = np.linspace(0, p, 1 + min(n, p), dtype=int).tolist()
        with ThreadPoolExecutor(n) as pool:
            return reduce(merge, list(pool.map(call, pairwise(edges))))

    return run


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread while the block runs, in any number of tasks at once.

    The limit of most BLAS libraries belongs to the process. If each task set and restored it, a task that ends after
    another could restore the limit of the other for good. So the first task sets it, and the last one restores it.
    The limit of OpenBLAS with OpenMP belongs to a thread, so each task sets it for its own thread too.
    """
    with _BlasLimit.lock:
        if _BlasLimit.users == 0:
            _BlasLimit.current = _BlasLimit()
            _BlasLimit.current.begin()
        _BlasLimit.users += 1
        current = _BlasLimit.current
    try:
        with current.limit():
            yield
    finally:
        with _BlasLimit.lock:
            _BlasLimit.users -= 1
            if _BlasLimit.users == 0:
                current.end()
