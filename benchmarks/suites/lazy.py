"""How long does each transformer take on a lazy stack, and how large is its Dask graph?

A graph should have one task for each block, and a small pickle: it is sent to a cluster, together with the arrays of a
fitted step (a mean image, components). The reference is the same stack, read and not transformed: a zarr in the
operating system's cache. All times of `time_compute` include reading it.
"""

from collections.abc import Callable
from typing import Any

import cloudpickle
import dask.array as da
import numpy as np
from skimage.filters import gaussian

from benchmarks.lib.suite import LARGE, Suite, TaskCounter, unit
from imgstack_ml import (
    ChannelStatistics,
    HOGFeatures,
    ImageFlattener,
    ImageHistogram,
    ImageMap,
    ImagePCA,
    IntensityRescaler,
    StackCenterer,
    TextureFeatures,
    open_stack,
    save_stack,
)
from imgstack_ml.datasets import make_cells

N_IMAGES, SIZE = (400, 256) if LARGE else (24, 32)
N_BLOCKS = 4
STORE = "cells.zarr"


def smooth(image: np.ndarray) -> np.ndarray:
    """Smooth an image: an example of a user's function."""
    return gaussian(image, sigma=1, channel_axis=-1)


STEPS: dict[str, Callable[[], Any]] = {
    "IntensityRescaler": IntensityRescaler,
    "IntensityRescaler, of the stack": lambda: IntensityRescaler(in_range="stack"),
    "StackCenterer": StackCenterer,
    "StackCenterer, scaling": lambda: StackCenterer(with_std=True),
    "ImageFlattener": ImageFlattener,
    "ImageMap": lambda: ImageMap(smooth),
    "ChannelStatistics": ChannelStatistics,
    "ImageHistogram": ImageHistogram,
    "TextureFeatures": TextureFeatures,
    "HOGFeatures": HOGFeatures,
    "ImagePCA": lambda: ImagePCA(5, random_state=0),
}


class _Lazy(Suite):
    param_names = ("step",)

    def setup_cache(self) -> None:
        save_stack(make_cells(N_IMAGES, SIZE), STORE)

    def setup(self, step):
        super().setup()
        self.stack = open_stack(STORE, chunks=N_IMAGES // N_BLOCKS).data
        self.step = None if step == "read only" else STEPS[step]().fit(self.stack)

    def transformed(self) -> da.Array:
        return self.stack if self.step is None else self.step.transform(self.stack)


class Fitting(_Lazy):
    params = (list(STEPS),)

    def time_fit(self, step):
        STEPS[step]().fit(self.stack)


class Transforming(_Lazy):
    params = (["read only", *STEPS],)

    def time_build(self, step):
        self.transformed()

    def time_compute(self, step):
        self.transformed().compute()

    def peakmem_compute(self, step):
        self.transformed().compute()


class Graphs(_Lazy):
    params = (["read only", *STEPS],)

    @unit("tasks beyond one a block")
    def track_num_tasks(self, step):
        data = self.transformed()
        with TaskCounter() as counter:
            data.compute()
        return counter.n_tasks - N_BLOCKS

    @unit("bytes")
    def track_pickled_size(self, step):
        return len(cloudpickle.dumps(self.transformed().__dask_graph__()))


class Inverting(_Lazy):
    params = (["StackCenterer", "ImageFlattener", "ImagePCA"],)

    def time_compute(self, step):
        self.step.inverse_transform(self.transformed()).compute()
