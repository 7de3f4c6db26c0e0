"""How fast are rescaling, the mean image and flattening, beside scikit-image, NumPy and Dask?

Rescaling is compared with scikit-image's `rescale_intensity`, called for each image of a stack in memory; the mean
image with NumPy's mean of a stack that is read as a whole; flattening with Dask's reshape. Two tracked values are the
accuracy: the largest difference from scikit-image, and from the mean in float64.
"""

from collections.abc import Callable

import dask.array as da
import numpy as np
from skimage.exposure import rescale_intensity

from benchmarks.lib.suite import LARGE, Suite, TaskCounter, open_cells, unit, write_cells_of_dtypes
from imgstack_ml import ImageFlattener, IntensityRescaler, StackCenterer

N_IMAGES, SIZE = (400, 256) if LARGE else (96, 64)
DTYPES = ["uint8", "uint16", "float32", "float64"]
N_BLOCKS = 16
PERCENTILES = (2, 98)


class _Cells(Suite):
    def setup_cache(self) -> None:
        write_cells_of_dtypes(N_IMAGES, SIZE, N_BLOCKS, DTYPES)


class Rescaling(_Cells):
    params = (["image", "channels", "percentiles"], ["imgstack_ml", "scikit-image"], DTYPES)
    param_names = ("range", "implementation", "dtype")

    def setup(self, mode, implementation, dtype):
        super().setup()
        self.stack = open_cells(dtype).compute()
        self.rescale = _RESCALERS[implementation](mode)

    def time_transform(self, *params):
        self.rescale(self.stack)

    @unit("intensity")
    def track_difference(self, mode, implementation, dtype):
        """Largest difference of a pixel from scikit-image's."""
        expected = _scikit_image_rescaler(mode)(self.stack).astype(np.float64)
        return float(np.abs(self.rescale(self.stack) - expected).max())


class Centering(_Cells):
    params = (["imgstack_ml", "numpy"], DTYPES)
    param_names = ("implementation", "dtype")

    def setup(self, implementation, dtype):
        super().setup()
        self.stack = open_cells(dtype)
        self.mean = _MEANS[implementation]

    def time_mean(self, *params):
        self.mean(self.stack)

    def peakmem_mean(self, *params):
        self.mean(self.stack)

    @unit("intensity")
    def track_mean_error(self, *params):
        """Largest error of a pixel of the mean image."""
        return float(np.abs(self.mean(self.stack) - self.stack.compute().astype(np.float64).mean(axis=0)).max())


class Flattening(_Cells):
    params = (["imgstack_ml", "dask"],)
    param_names = ("implementation",)

    def setup(self, implementation):
        super().setup()
        self.stack = open_cells("uint8")
        self.flatten = _FLATTENERS[implementation]

    def time_build(self, implementation):
        self.flatten(self.stack)

    def time_compute(self, implementation):
        self.flatten(self.stack).compute()

    @unit("tasks")
    def track_num_tasks(self, implementation):
        with TaskCounter() as counter:
            self.flatten(self.stack).compute()
        return counter.n_tasks


def _package_rescaler(mode: str) -> Callable[[np.ndarray], np.ndarray]:
    rescaler = IntensityRescaler(
        channel_axis=-1 if mode == "channels" else None, percentiles=PERCENTILES if mode == "percentiles" else None
    )
    return rescaler.fit_transform


def _scikit_image_rescaler(mode: str) -> Callable[[np.ndarray], np.ndarray]:
    rescale = {"image": rescale_intensity, "channels": _rescale_channels, "percentiles": _rescale_percentiles}[mode]
    return lambda stack: np.stack([rescale(image) for image in stack])


def _rescale_channels(image: np.ndarray) -> np.ndarray:
    return np.stack([rescale_intensity(channel) for channel in np.moveaxis(image, -1, 0)], axis=-1)


def _rescale_percentiles(image: np.ndarray) -> np.ndarray:
    return rescale_intensity(image, in_range=tuple(np.percentile(image, PERCENTILES)))


def _package_mean(stack: da.Array) -> np.ndarray:
    return StackCenterer().fit(stack).mean_


def _numpy_mean(stack: da.Array) -> np.ndarray:
    return stack.compute().mean(axis=0)


def _package_flatten(stack: da.Array) -> da.Array:
    return ImageFlattener().fit_transform(stack)


def _dask_flatten(stack: da.Array) -> da.Array:
    return stack.reshape(len(stack), -1)


_RESCALERS = {"imgstack_ml": _package_rescaler, "scikit-image": _scikit_image_rescaler}
_MEANS = {"imgstack_ml": _package_mean, "numpy": _numpy_mean}
_FLATTENERS = {"imgstack_ml": _package_flatten, "dask": _dask_flatten}
