"""How sharp images are: their finest detail, and the grids that compression and enlargement leave."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..inspection.statistics import spread_of_tails
from .trends import MIN_IMAGES

__all__ = ["Sharpness", "concatenate_sharpness", "images_on_a_grid", "images_without_detail", "sharpness_of"]

MIN_SIDE = 16  # pixels; smaller images have no scales to compare
N_LINES = 20  # rows, and columns, of which differences are taken: at least so many of a larger image
COARSE = 4  # pixels: the scale that blur leaves when it takes the finest
# JPEG has squares of 8 pixels, or 4 after halving; images enlarged by repetition have squares of the factor.
PERIODS = (2, 3, 4, 5, 6, 8)
MIN_BORDERS = 4  # of squares, along a side
FLAT = 0.01  # of the mean squared difference of an image: less is none
FEW = 0.1  # of the images: what so many have is common
# Images without detail have a fifth of the usual energy relative to their contrast, and are so many robust standard
# deviations below the median, in the tail of the others, too. Of the images of 50 ordinary stacks, one is more than 5
# below, at 6.2: a smooth patch among varied ones. The finest detail has lost more than the coarse one, and is weak in
# itself: of a smooth sky, the coarse detail is as weak, and a field with cells has the noise of an empty one.
DETAIL_FACTOR, DETAIL_DEVIATIONS = 5.0, 8.0
COARSE_FACTOR, OWN_FACTOR = 1.5, 2.0
NEIGHBOURS = 9  # frames of a movie whose median one is compared with
# Differences at borders of squares are at least twice those beside, at three of four borders. In 50 ordinary stacks
# that are not enlarged, the largest factor is 1.4.
GRID_FACTOR = 2.0


class Sharpness(NamedTuple):
    """How sharp each of n images is; NaN where that is not known.

    Attributes
    ----------
    finest, coarse : ndarray of shape (n,), float64
        Root mean squares of second differences of pixels, along rows and columns, in the intensity units of the
        stack: of neighbours, and of pixels that are 4 apart.
    contrast : ndarray of shape (n,), float64
        Standard deviation of the pixels, likewise; of channels, the root mean square.
    grids : ndarray of shape (n, 6), float64
        For squares of 2, 3, 4, 5, 6 and 8 pixels from the first pixel on: logarithm of the squared differences at
        their borders over those beside, the lower quartile of the borders, of rows or of columns, whichever is less.
    """

    finest: np.ndarray
    coarse: np.ndarray
    contrast: np.ndarray
    grids: np.ndarray


def concatenate_sharpness(parts: list[Sharpness]) -> Sharpness:
    """Concatenate the sharpness of consecutive images."""
    return Sharpness(*map(np.concatenate, zip(*parts, strict=True)))


def sharpness_of(images: np.ndarray) -> Sharpness:
    """Measure images (b, height, width[, n_channels]) on evenly spaced rows and columns, 20 to 39 of each.

    Nothing is known of rows of values, of images of a side below 16 pixels, and of masked arrays.
    """
    n = len(images)
    if images.ndim < 3 or min(images.shape[1:3]) < MIN_SIDE or isinstance(images, np.ma.MaskedArray):
        unknown = np.full(n, np.nan)
        return Sharpness(unknown, unknown, unknown, np.full((n, len(PERIODS)), np.nan))
    (height, width), n_channels = images.shape[1:3], images.shape[3] if images.ndim == 4 else 1
    down, across = (max(1, side // N_LINES) for side in (height, width))
    rows = _floats(images[:, ::down]).reshape(n, -1, width * n_channels)
    columns = _floats(images[:, :, ::across]).reshape(n, height, -1)
    exponents = np.zeros(n, dtype=int)
    if images.dtype.kind == "f":  # near 1, in whatever units: squares are within the dtype
        exponents = np.frexp(np.maximum(*(np.abs(lines).max(axis=(1, 2)) for lines in (rows, columns))))[1]
        rows, columns = (np.ldexp(lines, -exponents[:, None, None]) for lines in (rows, columns))
    along = [_Along(columns, 1, 1), _Along(rows, 2, n_channels)]
    means = rows.mean(axis=1, dtype=np.float64).reshape(n, width, n_channels).mean(axis=1)
    variance = _mean_squares(rows - np.tile(means, width).astype(rows.dtype)[:, None])
    finest, coarse, profiles = zip(*map(_differences, along), strict=True)
    squares = (np.mean(finest, axis=0), np.mean(coarse, axis=0), variance)
    flat = FLAT * np.mean([profile.mean(axis=1) for profile in profiles], axis=0)
    grids = np.minimum(*(_grids(profile, flat) for profile in profiles))
    fine, wide, contrast = (np.ldexp(np.sqrt(values), exponents) for values in squares)
    return Sharpness(fine, wide, contrast, grids)


class _Along(NamedTuple):
    """Lines (b, rows, columns x channels), the axis along which pixels follow each other, and their distance on it."""

    lines: np.ndarray
    axis: int
    step: int


def _floats(images: np.ndarray) -> np.ndarray:
    small = images.dtype.itemsize <= 2 or images.dtype == np.float32
    return np.ascontiguousarray(images, dtype=np.float32 if small else np.float64)


def _differences(along: _Along) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean squared second differences (b,), fine and coarse, and mean squared differences (b, n_pixels - 1)."""
    lines, axis, step = along

    def ahead(values: np.ndarray, lag: int) -> np.ndarray:
        if axis == 1:
            return np.subtract(values[:, lag:], values[:, :-lag])
        return np.subtract(values[:, :, lag:], values[:, :, :-lag])

    first = ahead(lines, step)
    finest = _mean_squares(ahead(first, step))
    coarse = _mean_squares(ahead(ahead(lines, COARSE * step), COARSE * step))
    profile = np.square(first, out=first).mean(axis=3 - axis)
    return finest, coarse, profile.reshape(len(lines), -1, step).mean(axis=2, dtype=np.float64)


def _mean_squares(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(len(values), -1)
    squares: np.ndarray = np.einsum("ij,ij->i", flat, flat).astype(np.float64)
    return squares / flat.shape[1]


def _grids(profile: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """For each period, how much larger squared differences (b, n_pixels - 1) are at borders; 0 of too few borders."""
    floor = np.maximum(flat, np.finfo(np.float64).tiny)[:, None]
    beside = (profile[:, :-2] + profile[:, 2:]) / 2
    louder = np.log((profile[:, 1:-1] + floor) / (beside + floor))
    found = np.zeros((len(profile), len(PERIODS)))
    for i, period in enumerate(PERIODS):
        borders = np.sort(louder[:, period - 2 :: period], axis=1)
        if borders.shape[1] >= MIN_BORDERS:
            found[:, i] = borders[:, borders.shape[1] // 4]
    return found


def images_without_detail(
    sharpness: Sharpness, explained: np.ndarray, groups: np.ndarray, *, in_movie: bool
) -> np.ndarray:
    """Find images (n,), bool, whose finest detail is far below that of the others of their group.

    Frames of a movie are compared with those before and after. `explained` images are not judged.
    """
    finest, coarse, contrast = sharpness[:3]
    found = np.zeros(len(finest), dtype=bool)
    seen = ~explained & (np.minimum(np.minimum(finest, coarse), contrast) > 0)
    if seen.sum() < MIN_IMAGES:
        return found
    _, numbers, sizes = np.unique(groups[seen], return_inverse=True, return_counts=True)
    members = np.split(np.argsort(numbers, kind="stable"), np.cumsum(sizes)[:-1])
    own, detail, scales = (
        _less_neighbours(values) if in_movie else _less_medians(values, members)
        for values in 2 * np.log([finest[seen], finest[seen] / contrast[seen], finest[seen] / coarse[seen]])
    )
    spread = spread_of_tails(detail)
    for inside in members:  # one group may vary more than the others
        spread[inside] = np.maximum(spread[inside], spread_of_tails(detail[inside]))
    least = np.maximum(np.log(DETAIL_FACTOR), DETAIL_DEVIATIONS * spread)
    found[seen] = (detail < -least) & (scales < -np.log(COARSE_FACTOR)) & (own < -np.log(OWN_FACTOR))
    return found & (found.mean() <= FEW)


def images_on_a_grid(sharpness: Sharpness) -> np.ndarray:
    """Find images (n,), bool, that consist of squares of a size that few images have."""
    on_grid = sharpness.grids > np.log(GRID_FACTOR)
    found: np.ndarray = (on_grid & (on_grid.mean(axis=0) <= FEW)).any(axis=1)
    return found


def _less_neighbours(values: np.ndarray) -> np.ndarray:
    """Subtract from values (n,) the median of the frames around."""
    from scipy.ndimage import median_filter

    usual: np.ndarray = median_filter(values, NEIGHBOURS, mode="nearest")
    return values - usual


def _less_medians(values: np.ndarray, members: list[np.ndarray]) -> np.ndarray:
    """Subtract from values (n,) the median of their group."""
    usual = np.empty(len(values))
    for inside in members:
        usual[inside] = np.median(values[inside])
    return values - usual
