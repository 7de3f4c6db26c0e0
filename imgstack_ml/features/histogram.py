"""Histograms of the channels of an image."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from numbers import Integral
from typing import Any

import numpy as np

from ..base.validation import Images
from ..passes.runner import Pass
from .base import FeatureTransformer, OverParts, as_planes, channel_names, features_of_block, n_channels
from .ranges import as_bins_need, check_for_range, check_range, pass_for_range, range_of

__all__ = ["ImageHistogram"]


class ImageHistogram(FeatureTransformer):
    """Histogram of the intensities of each channel of each image.

    Each is ``numpy.histogram(channel, bins, range_, density=density)``: values outside the range are not counted.
    There is no mask: all pixels count.

    Parameters
    ----------
    bins : int, default=32
        Number of bins of equal width.
    range : {"auto", "dtype", "stack"} or (low, high), default="auto"
        Range of intensities that the bins cover.

        - ``"auto"``: as ``"dtype"`` for Booleans and 8-bit integers, whose images fill the range of their dtype; as
          ``"stack"`` for all others, as 12 bits in uint16, or floats from 0 to 255;
        - ``"dtype"``: the range of the images' dtype, as (0, 256) for 8-bit images; (-1, 1) for floats, as in
          scikit-image. `transform` refuses floats beyond it, and warns if all pixels are in one bin;
        - ``"stack"``: minimum and maximum of all images in `fit`, which takes one pass;
        - a pair of numbers.
    density : bool, default=False
        Return densities, whose sum times the width of a bin is 1, instead of numbers of pixels. They are 0 for a
        channel with no pixel in the range.

    Attributes
    ----------
    range_ : (float, float)
        The range in use; ends that float64 does not hold are ints.
    image_shape_ : tuple of int
        Shape of one image.
    channel_names_ : tuple of str
        Names of the channels, from the files where these have them; absent for grey images and rows.
    n_features_in_ : int
        Values in one image.
    feature_names_in_ : ndarray of str
        Column names, if `fit` got a data frame.
    n_passes_ : float
        Reads of a lazy stack in `fit`: 1 if the range is learned, otherwise 0.

    Notes
    -----
    Features have the shape (n_images, n_channels * bins), channel by channel, in float64. A stack without a channel
    axis has one channel. The bins of 8- and 16-bit pixels are looked up in a table of all values.

    Where ``numpy.histogram`` has no distinct edges (integers beyond 2**53, floats that hardly differ), the lower end of
    the range is subtracted first.

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import ImageHistogram
    >>> stack = np.array([[[0, 100], [200, 255]], [[5, 5], [5, 5]]], dtype=np.uint8)
    >>> ImageHistogram(bins=4).fit_transform(stack)
    array([[1., 1., 0., 2.],
           [4., 0., 0., 0.]])
    """

    def __init__(self, bins: int = 32, range: Any = "auto", density: bool = False):
        self.bins = bins
        self.range = range
        self.density = density

    def _needed_pass(self, images: Images) -> Pass | None:
        if not isinstance(self.bins, Integral) or isinstance(self.bins, bool) or self.bins < 1:
            raise ValueError(f"bins={self.bins!r} must be an int of at least 1, e.g. bins=32")
        check_range(self.range)
        return pass_for_range(self.range, images.data.dtype)

    def _learn(self, found: Any, images: Images) -> None:
        self.range_ = range_of(self.range, found, images.data.dtype)

    def _kernel(self) -> Callable[[np.ndarray], np.ndarray]:
        return partial(histograms_of, bins=int(self.bins), limits=self.range_, density=bool(self.density))

    def _over_parts(self, dtype: np.dtype) -> OverParts:
        bins, limits = int(self.bins), self.range_
        of_part = partial(_counts_of_part, bins=bins, limits=limits)
        joined = partial(_joined, dtype=dtype, bins=bins, limits=limits, density=bool(self.density))
        return OverParts(of_part, joined, (n_channels(self.image_shape_) * bins,))

    def _check(self) -> Callable[[np.ndarray], None] | None:
        return check_for_range(self.range, self.range_, int(self.bins))

    def _names(self) -> list[str]:
        return channel_names(self, [f"bin{j}" for j in range(self.bins)])


def histograms_of(images: np.ndarray, *, bins: int, limits: tuple[float, float], density: bool) -> np.ndarray:
    """Return histograms (b, n_channels * bins) of images (b, height, width[, n_channels])."""
    planes, limits, widths = _in_bins(as_planes(images), bins, limits)
    if planes.dtype.kind in "iu" and planes.itemsize <= 2:
        counts = _counts_by_table(planes, bins, limits)
    else:
        flat = planes.reshape(-1, planes.shape[-1])
        counts = np.array([np.histogram(plane, bins, limits)[0] for plane in flat]).reshape(*planes.shape[:2], bins)
    return (_densities(counts, widths) if density else counts).reshape(len(images), -1)


def _in_bins(
    planes: np.ndarray, bins: int, limits: tuple[float, float]
) -> tuple[np.ndarray, tuple[float, float], np.ndarray]:
    """Return planes and limits between which there are distinct edges of bins, and the widths of the bins."""
    planes, limits, power = as_bins_need(planes, limits)
    edges = np.zeros(2)
    with suppress(ValueError):  # which new versions of NumPy raise where edges are equal
        edges = np.histogram_bin_edges(planes[:0, 0], bins, limits)
    if (edges[1:] == edges[:-1]).any():  # there are more bins than numbers between the limits
        planes, limits, power = as_bins_need(planes, limits, close=True)
        edges = np.histogram_bin_edges(planes[:0, 0], bins, limits)
    return planes, limits, np.ldexp(np.diff(edges).astype(np.float64), -power)


def _densities(counts: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Densities from counts (b, n_channels, bins); the order of operations is NumPy's."""
    densities: np.ndarray = counts / widths / np.maximum(1, counts.sum(axis=-1, keepdims=True))
    return densities


def _counts_of_part(part: np.ndarray, *, bins: int, limits: tuple[float, float]) -> np.ndarray:
    """Count the pixels of a part of images in each bin, (b, 1, n_channels * bins)."""
    kernel = partial(histograms_of, bins=bins, limits=limits, density=False)
    return features_of_block(part, kernel=kernel, n_features=n_channels(part.shape[1:]) * bins)[:, np.newaxis]


def _joined(parts: np.ndarray, *, dtype: np.dtype, bins: int, limits: tuple[float, float], density: bool) -> np.ndarray:
    """Histograms (b, n_channels * bins) from the counts of all parts, (b, n_parts, n_channels * bins)."""
    counts = parts.sum(axis=1)
    if not density:
        return counts
    *_, widths = _in_bins(as_planes(np.zeros((1, 1, 1), dtype)), bins, limits)
    return _densities(counts.reshape(len(parts), -1, bins), widths).reshape(len(parts), -1)


def _counts_by_table(planes: np.ndarray, bins: int, limits: tuple[float, float]) -> np.ndarray:
    """Count 8- and 16-bit values of all planes at once; each plane has `bins` counters and one for values outside."""
    table = _bin_of_each_value(planes.dtype, bins, limits)
    indices = np.take(table, planes.view(f"u{planes.itemsize}"))
    n_planes = planes.shape[0] * planes.shape[1]
    indices += (np.arange(n_planes) * (bins + 1)).reshape(*planes.shape[:2], 1)
    counts = np.bincount(indices.ravel(), minlength=n_planes * (bins + 1))
    return counts.reshape(*planes.shape[:2], bins + 1)[..., :bins]


@lru_cache(maxsize=16)
def _bin_of_each_value(dtype: np.dtype, bins: int, limits: tuple[float, float]) -> np.ndarray:
    """Return the bin of each value of an 8- or 16-bit dtype, in the order of bit patterns; `bins` means outside."""
    values = np.arange(256**dtype.itemsize, dtype=f"u{dtype.itemsize}").view(dtype)
    edges = np.histogram_bin_edges(values, bins, limits)
    found = np.searchsorted(edges, values, side="right") - 1
    found[values == edges[-1]] = bins - 1  # the last bin includes its upper edge
    found[(values < edges[0]) | (values > edges[-1])] = bins
    found.setflags(write=False)
    return found
