"""Statistics of each image from one read: its intensities, a digest of its pixels, and a signature of its look."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base.parts import nonempty_parts
from ..base.validation import StackLike
from ..passes.runner import PassRunner
from .image_statistics import GRID, ImageStatistics, concatenate_statistics, image_statistics
from .stacks import check_stack
from .statistics_of_parts import pass_over_parts

__all__ = [
    "GRID",
    "ImageStatistics",
    "concatenate_lists",
    "concatenate_statistics",
    "image_statistics",
    "log_deviations",
    "odd_ranges",
    "read_statistics",
    "spread_of_tails",
]

_ODD_FACTOR = 2.0
_ODD_DEVIATIONS = 5.0
_TAIL = 0.1  # of the images on either side of the median: what so many do is common
_GROUP_SHARE = 0.2  # of the images, at least, are in each of two groups of ranges


def read_statistics(X: StackLike, *, caller: str = "read_statistics", progress: bool = False) -> ImageStatistics:
    """Read a stack once, and return its statistics.

    Parameters
    ----------
    X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
        The images; a 2-D array holds one image a row.
    caller : str
        The name with which errors begin.
    progress : bool, default=False
        Show a bar, on stderr.

    Returns
    -------
    ImageStatistics

    Raises
    ------
    NonFiniteError
        Naming the image (and file) with a NaN or infinite pixel.
    """
    images = check_stack(caller, X)
    exact = images.data.dtype.kind in "iu" and images.data.dtype.itemsize == 8  # may be beyond float64
    stored = None if exact else nonempty_parts(images.data, all_channels=True)
    if stored is not None:
        runner = PassRunner(images._replace(data=stored), progress=progress)
        if runner.regions:
            found: ImageStatistics = runner.fold(pass_over_parts(images.image_shape))
            return found
    runner = PassRunner(images, progress=progress)
    return concatenate_statistics(runner.run(_statistics_of_batch, concatenate_lists, label="intensities"))


def odd_ranges(statistics: ImageStatistics) -> np.ndarray:
    """Find images whose range of intensities is far from that of most others, as if the exposure or unit were another.

    The width of a range is the maximum less the minimum over all channels. It is odd if it is less than half or more
    than twice the median width, and more than 5 robust standard deviations (of its logarithm) from it. The first
    condition ignores differences that nobody sees, the second those that are common in a varied collection. The mean
    of a small range must be small, too: a wall or a field without cells has a small range, and no other exposure. Where
    two groups of widths have a gap between them, those of the smaller group are odd.

    Returns
    -------
    odd : ndarray of shape (n,), bool
        False for constant images, which have no range.
    """
    highest, lowest = statistics.maxima.max(axis=1), statistics.minima.min(axis=1)
    exact = object if highest.dtype.kind in "iu" else np.float64  # Python's integers do not overflow
    highest, lowest = highest.astype(exact), lowest.astype(exact)
    width = (highest - lowest).astype(np.float64)
    odd = np.zeros(len(width), dtype=bool)
    has_range = width > 0
    if has_range.sum() < 3:
        return odd
    floor = np.sort(lowest)[len(lowest) // 20]  # a few images of odd ranges do not move it
    means = (statistics.means.mean(axis=1) - float(floor))[has_range]
    levels, _ = log_deviations(np.maximum(means, np.finfo(np.float64).tiny))
    deviations, spread = log_deviations(width[has_range])
    size = np.abs(deviations)
    far = (size > np.log(_ODD_FACTOR)) & (size > _ODD_DEVIATIONS * spread) & ((deviations > 0) | (levels < -size / 2))
    odd[has_range] = far | _smaller_group(deviations, lowest[has_range].astype(np.float64))
    return odd


def _smaller_group(widths: np.ndarray, lowest: np.ndarray) -> np.ndarray:
    """Find the smaller of two groups of logarithms of widths, if a gap of a factor parts them and their lowest values.

    Fields without cells are a group of small ranges, too, but their lowest values are those of the others.
    """
    ordered, least = np.sort(widths), int(np.ceil(_GROUP_SHARE * len(widths)))
    gaps = np.diff(ordered[max(least, 1) - 1 : len(widths) - max(least, 1) + 1])
    if len(widths) < 2 * least or gaps.max(initial=0) <= np.log(_ODD_FACTOR):
        return np.zeros(len(widths), dtype=bool)
    start = max(least, 1) + int(gaps.argmax())
    upper = widths >= ordered[start]
    ends = [abs(float(np.median(lowest[group]))) for group in (~upper, upper)]
    apart = np.median(widths[upper]) - np.median(widths[~upper])
    scaled = ends[1] >= ends[0] * np.exp(apart / 2)
    return (upper if upper.sum() <= len(widths) / 2 else ~upper) & scaled


def log_deviations(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Deviations of the logarithms of positive values from their median, and their robust standard deviation."""
    logarithms = np.log(values)
    deviations = logarithms - np.median(logarithms)
    # 1.4826 times the median deviation is the standard deviation of a normal distribution.
    return deviations, 1.4826 * float(np.median(np.abs(deviations)))


def spread_of_tails(deviations: np.ndarray) -> np.ndarray:
    """Robust standard deviation of deviations from a median, for each that of its side.

    The median of their sizes tells it, and the tenth that is farthest out: the larger one counts.
    """
    ordered, n_out = np.sort(deviations), int(np.ceil(_TAIL * len(deviations)))
    sides = (-ordered[n_out], ordered[-1 - n_out]) if len(ordered) > n_out else (0.0, 0.0)
    # Of a normal distribution, a tenth is beyond 1.2816 standard deviations.
    below, above = np.maximum(np.divide(sides, 1.2816), 1.4826 * np.median(np.abs(deviations)))
    return np.where(deviations < 0, below, above)


def concatenate_lists(earlier: list[Any], later: list[Any]) -> list[Any]:
    """Merge partial results of a pass as lists; their arrays are concatenated once, when the pass ends.

    Concatenating the arrays at each merge would copy all of them each time.
    """
    return earlier + later


def _statistics_of_batch(blocks: list[np.ndarray], start: int) -> list[ImageStatistics]:
    """Step of the pass."""
    return [image_statistics(block) for block in blocks]
