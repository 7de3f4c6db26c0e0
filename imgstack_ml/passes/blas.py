"""One thread of BLAS for each task, while tasks run in threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from threadpoolctl import ThreadpoolController

from .memory import reuse_freed_memory

__all__ = ["one_blas_thread"]


class _BlasKeeper(threading.Thread):
    """Holds the process-wide BLAS limit. Setting and restoring it from one thread is what threadpoolctl heeds."""

    lock = threading.Lock()
    current: _BlasKeeper
    users = 0

    def __init__(self) -> None:
        super().__init__(name="imgstack_ml-blas-limit", daemon=True)
        self._set = threading.Event()
        self._over = threading.Event()
        self._libraries = ThreadpoolController().select(user_api="blas")

    def limit(self) -> AbstractContextManager:
        """Hold the libraries to one thread each."""
        return self._libraries.limit(limits=1)

    def run(self) -> None:
        with self.limit():
            self._set.set()
            self._over.wait()

    def begin(self) -> None:
        reuse_freed_memory()  # before this thread, too, would have a heap of its own
        self.start()
        self._set.wait()

    def end(self) -> None:
        self._over.set()
        self.join()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread while any task is within; the first one in sets the limit, the last one out restores.

    The limits of most BLAS libraries belong to the process: set by concurrent tasks on their own, one can stay for
    good. Those of OpenBLAS on OpenMP belong to a thread, hence the second limit, which changes nothing elsewhere.
    """
    with _BlasKeeper.lock:
        if _BlasKeeper.users == 0:
            _BlasKeeper.current = _BlasKeeper()
            _BlasKeeper.current.begin()
        _BlasKeeper.users += 1
        keeper = _BlasKeeper.current
    try:
        with keeper.limit():
            yield
    finally:
        with _BlasKeeper.lock:
            _BlasKeeper.users -= 1
            if _BlasKeeper.users == 0:
                keeper.end()
