"""What the suites share: their size, the number of threads, units, and counting of tasks."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from timeit import default_timer
from typing import Any, TypeVar

import dask
from dask.callbacks import Callback
from threadpoolctl import threadpool_limits

__all__ = ["LARGE", "THREADS", "Suite", "TaskCounter", "exit_on_sigterm", "unit"]

Function = TypeVar("Function", bound=Callable)

_PROFILES = ("small", "large")
_PROFILE = os.environ.get("IMGSTACK_BENCH", "small")
if _PROFILE not in _PROFILES:
    raise ValueError(f"IMGSTACK_BENCH={_PROFILE!r} must be one of {_PROFILES}")
LARGE = _PROFILE == "large"

THREADS = 2  # the same on every machine, so that figures can be compared


class Suite:
    """Base of all suites: Dask's and BLAS's threads are pinned here, and only here.

    Parameters go from what is done to sizes, smallest first: `smallest` runs every value of the first one with the
    first values of the others. Data are made in `setup_cache`, in the folder where asv then
    runs the benchmarks, and `setup` opens them, so that a measurement of memory holds nothing of their making.
    """

    def setup(self, *params: Any) -> None:
        self._pins = ExitStack()
        self._pins.enter_context(threadpool_limits(THREADS))
        self._pins.enter_context(dask.config.set(num_workers=THREADS))

    def teardown(self, *params: Any) -> None:
        self._pins.close()

    @staticmethod
    def seconds(run: Callable[[], object]) -> float:
        """Time something once."""
        start = default_timer()
        run()
        return default_timer() - start


def exit_on_sigterm() -> None:
    """Have this process end by an exception when it is told to, so that it removes what it wrote, and ends its own."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class TaskCounter(Callback):
    """Counts the tasks that Dask's local schedulers run inside a ``with`` block, in `n_tasks`."""

    def __init__(self) -> None:
        super().__init__()
        self.n_tasks = 0

    def _posttask(self, *_: Any) -> None:
        self.n_tasks += 1


def unit(name: str) -> Callable[[Function], Function]:
    """Name the unit of a ``track_`` benchmark, as asv wants it: an attribute of the function."""

    def label(function: Function) -> Function:
        function.unit = name  # type: ignore[attr-defined]
        return function

    return label
