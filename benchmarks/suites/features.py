"""How fast are ImageMap, the features and a union of features, beside the same calls in a plain loop?

`ImageMap` is compared with a bare loop of as many threads over images in memory, for a function of about a millisecond;
features with NumPy's or scikit-image's call for each image, whose values they must equal; a union of features, which
decodes each image once, with its members, each of which decodes all images.
"""

from collections.abc import Callable
from statistics import median
from time import process_time

import dask.array as da
import numpy as np
from skimage.feature import hog
from skimage.filters import gaussian

from benchmarks.lib.suite import LARGE, Suite, TaskCounter, open_cells, unit, write_cells_of_dtypes
from benchmarks.lib.threads import THREADS, in_threads
from imgstack_ml import ChannelStatistics, HOGFeatures, ImageFeatureUnion, ImageHistogram, ImageMap

N_IMAGES, SIZE = (1600, 256) if LARGE else (96, 64)
DTYPES = ["uint8", "uint16"]
N_BLOCKS = 16
N_RATIOS = 7 if LARGE else 3


class _Cells(Suite):
    def setup_cache(self) -> None:
        write_cells_of_dtypes(N_IMAGES, SIZE, N_BLOCKS, DTYPES)


class Mapping(_Cells):
    params = (["imgstack_ml", "threads"],)
    param_names = ("implementation",)

    def setup(self, implementation):
        super().setup()
        self.stack = _grey_stack()
        self.map = _MAPS[implementation]

    def time_map(self, implementation):
        self.map(self.stack)


class MappingOverhead(_Cells):
    params = (["gaussian"],)
    param_names = ("function",)

    def setup(self, function):
        super().setup()
        self.stack = _grey_stack()

    @unit("times the loop")
    def track_ratio(self, function):
        """Processor time of `ImageMap` divided by that of the bare loop: the median of several pairs of runs."""
        return median(
            _cpu_seconds(_package_map, self.stack) / _cpu_seconds(_bare_loop, self.stack) for _ in range(N_RATIOS)
        )


class Features(_Cells):
    params = (["statistics", "histogram", "hog"], ["imgstack_ml", "loop"], DTYPES)
    param_names = ("features", "implementation", "dtype")

    def setup(self, features, implementation, dtype):
        super().setup()
        self.stack = open_cells(dtype).compute()
        self.features = _FEATURES[implementation][features]

    def time_transform(self, *params):
        self.features(self.stack)

    @unit("value")
    def track_difference(self, features, implementation, dtype):
        """Largest difference from the loop."""
        return float(np.abs(self.features(self.stack) - _FEATURES["loop"][features](self.stack)).max())


class SharedReads(_Cells):
    params = (["together", "one by one"],)
    param_names = ("members",)

    def setup(self, members):
        super().setup()
        self.stack = open_cells("uint8")
        self.transform = _UNIONS[members]

    def time_transform(self, members):
        self.transform(self.stack)

    @unit("tasks a block")
    def track_num_tasks(self, members):
        with TaskCounter() as counter:
            self.transform(self.stack)
        return counter.n_tasks / N_BLOCKS


def _grey_stack() -> da.Array:
    """Return one channel, in memory, in blocks."""
    grey = np.ascontiguousarray(open_cells("uint8").compute()[..., 0])
    return da.from_array(grey, chunks=(N_IMAGES // N_BLOCKS, -1, -1))


def profile(image: np.ndarray) -> np.ndarray:
    """Smooth an image and return the mean of each column: about a millisecond for 256 x 256 pixels."""
    return gaussian(image, sigma=1).mean(axis=0)


def _package_map(stack: da.Array) -> np.ndarray:
    return ImageMap(profile).fit_transform(stack).compute()


def _bare_loop(stack: da.Array) -> np.ndarray:
    images = stack.compute()
    out = np.empty((len(images), images.shape[2]))

    def loop(first: int) -> None:
        for i in range(first, len(images), THREADS):
            out[i] = profile(images[i])

    in_threads(loop, range(THREADS))
    return out


def _cpu_seconds(function: Callable, stack: da.Array) -> float:
    start = process_time()  # of all threads; wall time would include waiting for other programs
    function(stack)
    return process_time() - start


def _each_channel(function: Callable) -> Callable[[np.ndarray], np.ndarray]:
    def rows(stack: np.ndarray) -> np.ndarray:
        planes = np.moveaxis(stack, -1, 1)
        return np.stack([np.concatenate([function(np.ascontiguousarray(p)) for p in image]) for image in planes])

    return rows


def _statistics(plane: np.ndarray) -> list:
    return [plane.mean(dtype=np.float64), plane.std(dtype=np.float64), plane.min(), plane.max()]


def _histogram(plane: np.ndarray) -> np.ndarray:
    return np.histogram(plane, 32, (0, np.iinfo(plane.dtype).max + 1))[0]


def _hog_of_each(stack: np.ndarray) -> np.ndarray:
    return np.stack([hog(image, channel_axis=-1) for image in stack])


def _feature_list() -> list:
    return [("hist", ImageHistogram()), ("stats", ChannelStatistics()), ("hog", HOGFeatures())]


def _together(stack: da.Array) -> np.ndarray:
    return ImageFeatureUnion(_feature_list()).fit_transform(stack).compute()


def _one_by_one(stack: da.Array) -> np.ndarray:
    return np.hstack([member.fit_transform(stack).compute() for _, member in _feature_list()])


_MAPS = {"imgstack_ml": _package_map, "threads": _bare_loop}
_FEATURES = {
    "imgstack_ml": {
        "statistics": ChannelStatistics().fit_transform,
        "histogram": ImageHistogram().fit_transform,
        "hog": HOGFeatures().fit_transform,
    },
    "loop": {
        "statistics": _each_channel(_statistics),
        "histogram": _each_channel(_histogram),
        "hog": _hog_of_each,
    },
}
_UNIONS = {"together": _together, "one by one": _one_by_one}
