"""Statistics of the channels of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real

import numpy as np

from ..base.validation import Images
from ..linalg.large_integers import between, beyond_float64, differences, exact_means
from ..passes.runner import Pass
from .base import FeatureTransformer, OverParts, as_planes, channel_names, features_of_block, n_channels

__all__ = ["ChannelStatistics"]

_STATISTICS: dict[str, Callable] = {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max}
_SAFE = (2.0**-450, 2.0**450)  # magnitudes whose squares, and sums of them, are within float64


class ChannelStatistics(FeatureTransformer):
    """Mean, standard deviation, minimum, maximum and percentiles of each channel of each image.

    There is no mask: all pixels count.

    Parameters
    ----------
    statistics : sequence of {"mean", "std", "min", "max"}, default=("mean", "std", "min", "max")
        Statistics to compute, in the order of the columns. The standard deviation has ddof=0.
    percentiles : sequence of float, default=()
        Percentiles between 0 and 100, as from `numpy.percentile`; their columns follow those of `statistics`.

    Attributes
    ----------
    image_shape_ : tuple of int
        Shape of one image.
    channel_names_ : tuple of str
        Names of the channels, from the files where these have them; absent for grey images and rows.
    n_features_in_ : int
        Values in one image.
    feature_names_in_ : ndarray of str
        Column names, if `fit` got a data frame.
    n_passes_ : float
        Reads in `fit`: 0.

    Notes
    -----
    Features have the shape (n_images, n_channels * n_statistics), channel by channel, in float64 and in the intensity
    units of the stack. They equal those of NumPy's functions for one channel, with ``dtype=float64`` for mean and
    standard deviation. Those of integers beyond 2**53 are computed from the integers, and rounded once. A stack
    without a channel axis has one channel.

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import ChannelStatistics
    >>> stack = np.array([[[0, 2], [4, 6]], [[5, 5], [5, 5]]], dtype=np.uint8)
    >>> features = ChannelStatistics(("mean", "max"), percentiles=(50,))
    >>> features.fit_transform(stack)
    array([[3., 6., 3.],
           [5., 5., 5.]])
    >>> features.get_feature_names_out()
    array(['c0_mean', 'c0_max', 'c0_percentile50'], dtype=object)
    """

    def __init__(self, statistics: Sequence[str] = ("mean", "std", "min", "max"), percentiles: Sequence[float] = ()):
        self.statistics = statistics
        self.percentiles = percentiles

    def _needed_pass(self, images: Images) -> Pass | None:
        _check(self.statistics, self.percentiles)
        return None

    def _kernel(self) -> Callable[[np.ndarray], np.ndarray]:
        return partial(statistics_of, statistics=tuple(self.statistics), percentiles=tuple(self.percentiles))

    def _over_parts(self, dtype: np.dtype) -> OverParts | None:
        if len(self.percentiles) or (dtype.kind in "iu" and dtype.itemsize == 8):  # which may be beyond float64
            return None
        return OverParts(
            _of_part, partial(_joined, statistics=tuple(self.statistics)), (n_channels(self.image_shape_), 5)
        )

    def _names(self) -> list[str]:
        percentiles = [f"percentile{q:g}" for q in self.percentiles]
        return channel_names(self, [*self.statistics, *percentiles])


def statistics_of(images: np.ndarray, *, statistics: Sequence[str], percentiles: Sequence[float]) -> np.ndarray:
    """Return statistics (b, n_channels * n_statistics) of images (b, height, width[, n_channels])."""
    planes = as_planes(images)
    columns = [_column(name, planes) for name in statistics]
    if percentiles:
        # NumPy's differences of the values of a signed dtype could overflow.
        wide = planes.astype(np.int64) if planes.dtype.kind == "i" else planes
        columns.extend(np.percentile(wide, percentiles, axis=-1))
    found = np.stack(columns, axis=-1, dtype=np.float64)
    if beyond_float64(planes):
        for place in np.ndindex(planes.shape[:2]):
            if beyond_float64(planes[place]):
                found[place] = _of_integers(planes[place], statistics, percentiles)
    return found.reshape(len(images), -1)


def _of_part(part: np.ndarray) -> np.ndarray:
    """Mean, standard deviation, minimum, maximum and pixels (b, 1, n_channels, 5) of a part of images."""
    channels = n_channels(part.shape[1:])
    kernel = partial(statistics_of, statistics=tuple(_STATISTICS), percentiles=())
    found = features_of_block(part, kernel=kernel, n_features=4 * channels).reshape(len(part), 1, channels, 4)
    n_pixels = np.full((*found.shape[:3], 1), float(part[:1].size // channels))
    return np.concatenate([found, n_pixels], axis=-1)


def _joined(parts: np.ndarray, *, statistics: Sequence[str]) -> np.ndarray:
    """Return statistics (b, n_channels * n_statistics) from those of parts, (b, n_parts, n_channels, 5)."""
    means, deviations, minima, maxima, n_pixels = np.moveaxis(parts, -1, 0)
    share = n_pixels / n_pixels.sum(axis=1, keepdims=True)
    power = np.frexp(np.maximum(np.abs(minima), np.abs(maxima)).max(axis=1, keepdims=True))[1] + 1
    means, deviations = np.ldexp(means, -power), np.ldexp(deviations, -power)  # squares are within float64
    first = means[:, :1]
    mean = first + (share * (means - first)).sum(axis=1, keepdims=True)
    variance = (share * (deviations**2 + (means - mean) ** 2)).sum(axis=1, keepdims=True)
    found = {
        "mean": np.ldexp(mean, power)[:, 0],
        "std": np.ldexp(np.sqrt(variance), power)[:, 0],
        "min": minima.min(axis=1),
        "max": maxima.max(axis=1),
    }
    return np.stack([found[name] for name in statistics], axis=-1).reshape(len(parts), -1)


def _column(name: str, planes: np.ndarray) -> np.ndarray:
    """Return one statistic of all planes (b, n_channels, n_pixels), of huge and tiny values in units near them."""
    if name in ("min", "max"):
        return _STATISTICS[name](planes, axis=-1)
    compute = partial(_STATISTICS[name], axis=-1, dtype=np.float64)
    found = compute(planes)
    if planes.dtype == np.float64:
        odd = ~((np.abs(found) > _SAFE[0]) & (np.abs(found) < _SAFE[1]))
        powers = np.frexp(np.abs(planes[odd]).max(axis=-1))[1]
        found[odd] = np.ldexp(compute(np.ldexp(planes[odd], -powers[:, None])), powers)
    return found


def _of_integers(plane: np.ndarray, statistics: Sequence[str], percentiles: Sequence[float]) -> list[float]:
    """Return statistics of a plane (n_pixels,) of 64-bit integers, each rounded once."""
    found = {"min": int(plane.min()), "max": int(plane.max()), "mean": exact_means(plane[None])[0]}
    found["std"] = np.std(differences(plane, [found["min"]])[0])
    position = (len(plane) - 1) * (np.asarray(percentiles, np.float64) / 100)
    below = position.astype(np.intp)
    ordered = np.sort(plane) if percentiles else plane
    ends = between(ordered[below], ordered[np.minimum(below + 1, len(plane) - 1)], position - below)
    return [*(float(found[name]) for name in statistics), *map(float, ends)]


def _check(statistics: Sequence[str], percentiles: Sequence[float]) -> None:
    if isinstance(statistics, str) or not set(statistics) <= set(_STATISTICS):
        raise ValueError(
            f"statistics={statistics!r} is not known; it is a sequence of {', '.join(map(repr, _STATISTICS))}, "
            f"e.g. ('mean', 'std')"
        )
    if isinstance(percentiles, Real | str) or not all(isinstance(q, Real) and 0 <= q <= 100 for q in percentiles):
        raise ValueError(f"percentiles={percentiles!r} needs numbers between 0 and 100, e.g. (5, 50, 95)")
    if len(statistics) + len(percentiles) == 0:
        raise ValueError(
            "statistics=() and percentiles=() leave nothing to compute; choose one, e.g. statistics=('mean',)"
        )
