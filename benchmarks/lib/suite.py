"""What the asv suites share: their size, pinned threads, stacks of generated cells, units, and counting of tasks."""

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, TypeVar

import dask
import dask.array as da
import numpy as np
from dask.callbacks import Callback
from threadpoolctl import threadpool_limits

from imgstack_ml.datasets import make_cells

from .threads import THREADS

__all__ = ["LARGE", "Suite", "TaskCounter", "open_cells", "unit", "write_cells_of_dtypes"]

Function = TypeVar("Function", bound=Callable)

_PROFILES = ("small", "large")
_PROFILE = os.environ.get("IMGSTACK_BENCH", "small")
if _PROFILE not in _PROFILES:
    raise ValueError(f"IMGSTACK_BENCH={_PROFILE!r} must be one of {_PROFILES}")
LARGE = _PROFILE == "large"

STEPS = {"uint8": 1, "uint16": 257, "float32": 1 / 255, "float64": 1 / 255}  # an intensity step of 1 in 255, by dtype


class Suite:
    """Base class of all suites. It pins the threads of Dask and BLAS, so that no suite has to.

    The first parameter of a suite is what is compared; the others are sizes, smallest first. The tests run every value
    of the first parameter with the smallest sizes. `setup_cache` writes data into the current folder, which asv
    creates; `setup` only opens them, so that peak memory does not include making them.
    """

    def setup(self, *params: Any) -> None:
        self._pins = ExitStack()
        self._pins.enter_context(threadpool_limits(THREADS))
        self._pins.enter_context(dask.config.set(num_workers=THREADS))

    def teardown(self, *params: Any) -> None:
        self._pins.close()


def write_cells_of_dtypes(n_images: int, size: int, n_blocks: int, dtypes: Iterable[str]) -> None:
    """Write generated cells as raw arrays, one stack for each dtype, into the current folder."""
    cells = make_cells(n_images, size)
    for dtype in dtypes:
        stack = cells * np.dtype(dtype).type(STEPS[dtype])
        da.to_npy_stack(dtype, da.from_array(stack, chunks=(n_images // n_blocks, -1, -1, -1)))


def open_cells(dtype: str) -> da.Array:
    """Open a stack that `write_cells_of_dtypes` wrote."""
    return da.from_npy_stack(dtype, mmap_mode=None)


class TaskCounter(Callback):
    """Counts the tasks that Dask's local schedulers run inside a ``with`` block, in `n_tasks`."""

    def __init__(self) -> None:
        super().__init__()
        self.n_tasks = 0

    def _posttask(self, *_: Any) -> None:
        self.n_tasks += 1


def unit(name: str) -> Callable[[Function], Function]:
    """Name the unit of a ``track_`` benchmark. asv reads it from an attribute of the function."""

    def label(function: Function) -> Function:
        function.unit = name  # type: ignore[attr-defined]
        return function

    return label
