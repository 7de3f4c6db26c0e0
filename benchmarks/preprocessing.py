"""Preprocessing: rescaling, centring and flattening, each against what one would write without this package.

Rescaling is compared with scikit-image's `rescale_intensity` called for each image of a stack in memory, the mean
image with NumPy's mean of a stack read as a whole, flattening with Dask's reshape. Each speed has its accuracy
beside it: the largest difference from scikit-image, and from the mean in float64.
"""

from collections.abc import Callable

import dask.array as da
import numpy as np
from skimage.exposure import rescale_intensity

from imgstack_ml import ImageFlattener, IntensityRescaler, StackCenterer
from imgstack_ml.datasets import make_cells

from ._common import LARGE, Suite, TaskCounter, unit

N_IMAGES, SIZE = (400, 256) if LARGE else (96, 64)
DTYPES = {"uint8": 1, "uint16": 257, "float32": 1 / 255, "float64": 1 / 255}  # what an intensity of 1 in 255 becomes
N_BLOCKS = 16
PERCENTILES = (2, 98)


class _Cells(Suite):
    def setup_cache(self) -> None:
        cells = make_cells(N_IMAGES, SIZE)
        for dtype, scale in DTYPES.items():
            stack = cells * np.dtype(dtype).type(scale)
            da.to_npy_stack(dtype, da.from_array(stack, chunks=(N_IMAGES // N_BLOCKS, -1, -1, -1)))


class Rescaling(_Cells):
    params = (["image", "channels", "percentiles"], ["imgstack_ml", "scikit-image"], list(DTYPES))
    param_names = ("range", "implementation", "dtype")

    def setup(self, mode, implementation, dtype):
        super().setup()
        self.stack = _lazy_stack(dtype).compute()
        self.rescale = _RESCALERS[implementation](mode)

    def time_transform(self, *params):
        self.rescale(self.stack)

    @unit("intensity")
    def track_difference(self, mode, implementation, dtype):
        """Largest difference of a pixel from scikit-image's."""
        expected = _scikit_image_rescaler(mode)(self.stack).astype(np.float64)
        return float(np.abs(self.rescale(self.stack) - expected).max())


class Centering(_Cells):
    params = (["imgstack_ml", "numpy"], list(DTYPES))
    param_names = ("implementation", "dtype")

    def setup(self, implementation, dtype):
        super().setup()
        self.stack = _lazy_stack(dtype)
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
        self.stack = _lazy_stack("uint8")
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


def _lazy_stack(dtype: str) -> da.Array:
    return da.from_npy_stack(dtype, mmap_mode=None)


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
