"""What cameras and software do to images: stuck pixels, uneven light, exchanged channels, images that are turned."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np

from ..inspection.pictures import shrink
from ..inspection.pipelines import find_eigenimages, find_mask, split_at_pca
from ..inspection.statistics import GRID, ImageStatistics
from .trends import MIN_IMAGES

__all__ = [
    "channels_of_one_value",
    "empty_channels",
    "exchanged_channels",
    "fitted_surfaces",
    "stuck_pixels",
    "turned_images",
    "uneven_light",
]

# A stuck pixel differs by this many of its neighbours' standard deviations from their mean, and has none itself.
STUCK_DEVIATIONS = 3.0
STUCK_VARIANCE = 1e-8
STUCK_SHARE = 0.02  # of all pixels at most: more are a border, or the ground that images stand on
MIN_NEIGHBOURS = 5  # of 8 vary; those of a column that is stuck are 6
# Uneven light makes means and standard deviations of pixels fall off alike, smoothly, and by this factor at least.
LIGHT_FACTOR = 1.25
LIGHT_FITS = (0.85, 0.7)  # shares of the variance of both, over a grid, that a quadratic surface explains
# Light leaves the quotient of both as it is. Where objects are denser, means grow with their number and standard
# deviations with its square root: the quotient changes as much as the latter. Half of that is midway.
LIGHT_QUOTIENT = 0.5
_GRID, _SAMPLED, _MANY = 16, 128, 10**6  # cells and pixels along a side; values of which the median is taken
# Ratios of channels of most images lie between these quantiles. An image has exchanged channels if its own lie outside
# by this share of their distance at least, and after the exchange by that share at most.
CHANNEL_QUANTILES = (0.1, 0.9)
CHANNEL_SHARES = (0.7, 0.25)
MAX_CHANNELS = 5
FEW = 0.1  # of the images: what so many have is common
# From the typical image turned, at -1, to the typical image, at 1, turned ones are within the first number of -1, and
# so many robust standard deviations of the others from 1. These are compared with how unlike both images are.
NEAR_TURNED, TURNED_DEVIATIONS, SAME_VIEW = 0.5, 5.0, 0.5
_TURNS = (
    lambda image: image[::-1],
    lambda image: image[:, ::-1],
    lambda image: image[::-1, ::-1],
    lambda image: image.T,
    lambda image: image.T[::-1],
    lambda image: image.T[:, ::-1],
    lambda image: image.T[::-1, ::-1],
)
# A channel is empty if its pixels have less than this share of the variance of the mean channel: it is drawn as grey.
# Bands of a spectrum differ that much.
EMPTY_SHARE, MAX_DRAWN = 1e-4, 8


def stuck_pixels(estimator: Any) -> np.ndarray:
    """Find single pixels and lines of pixels, (m, 2) rows and columns, that never change while those beside them do.

    The model tells it: what the components leave of the variance of a pixel, and what they have of it, are both zero.
    """
    found = _images_of(estimator)
    if found is None:
        return np.empty((0, 2), dtype=int)
    eigenimages, mean, left, variances = found
    some = left.reshape(-1)[:: max(1, left.size // _MANY)]
    quiet = left <= STUCK_VARIANCE * np.median(some)
    if not 0 < np.count_nonzero(quiet) <= STUCK_SHARE * left.size:
        return np.empty((0, 2), dtype=int)
    where = np.argwhere(quiet)
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    around = (where[:, None, :2] + np.array(steps)).clip(0, np.array(mean.shape[:2]) - 1)
    own, at = tuple(where.T), (around[..., 0], around[..., 1], *where[:, None, 2:].transpose(2, 0, 1))

    def variance(place: tuple[np.ndarray, ...]) -> np.ndarray:
        return left[place] + np.tensordot(variances, np.stack([image[place] for image in eigenimages]) ** 2, 1)

    beside = variance(at)
    typical = np.median(beside, axis=1)
    varies = beside > STUCK_VARIANCE * typical[:, None]
    means = np.where(varies, mean[at], 0).sum(axis=1) / np.maximum(varies.sum(axis=1), 1)
    stuck = (variance(own) <= STUCK_VARIANCE * typical) & (varies.sum(axis=1) >= MIN_NEIGHBOURS)
    stuck &= np.abs(mean[own] - means) > STUCK_DEVIATIONS * np.sqrt(typical)
    return np.unique(where[stuck, :2], axis=0)


def uneven_light(estimator: Any) -> float:
    """Factor between the lightest and the darkest part of all images, if light falls off over them; otherwise 1.

    Light multiplies means and standard deviations of pixels alike; what images have in common does not.
    """
    found = _images_of(estimator)
    if found is None or min(found[1].shape[:2]) < _GRID:
        return 1.0
    eigenimages, mean, left, variances = found
    rows, columns = (max(1, size // _SAMPLED) for size in mean.shape[:2])
    spread = left[::rows, ::columns] + np.tensordot(variances, eigenimages[:, ::rows, ::columns] ** 2, 1)
    sampled = (mean[::rows, ::columns], spread)
    grids = [shrink(image.reshape(1, *image.shape[:2], -1).mean(axis=3), _GRID)[0] for image in sampled]
    if min(grid.min() for grid in grids) <= 0:
        return 1.0
    values = np.stack([np.log(grids[0]).ravel(), np.log(grids[1]).ravel() / 2])  # of means and deviations
    fitted = fitted_surfaces(values, grids[0].shape)
    explained = fitted.var(axis=1) / np.maximum(values.var(axis=1), np.finfo(np.float64).tiny)
    falls = np.ptp(fitted, axis=1)
    alike = np.ptp(fitted[0] - fitted[1]) < LIGHT_QUOTIENT * falls.min()
    is_light = (explained > LIGHT_FITS).all() and alike and falls[0] > np.log(LIGHT_FACTOR)
    return float(np.exp(falls[0])) if is_light else 1.0


def fitted_surfaces(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Fit quadratic surfaces to the rows (n, rows * columns) of values over a grid, by least squares."""
    y, x = (axis.ravel() for axis in np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij"))
    basis = np.linalg.qr(np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y]))[0]
    fitted: np.ndarray = values @ basis @ basis.T
    return fitted


def exchanged_channels(statistics: ImageStatistics) -> np.ndarray:
    """Find images (n,), bool, that are unlike the others, and like them with their channels in another order.

    They are compared by the logarithms of the means of their channels, less the mean of these.
    """
    n, n_channels = statistics.means.shape
    exchanged = np.zeros(n, dtype=bool)
    seen = (statistics.means > 0).all(axis=1)
    if not 2 <= n_channels <= MAX_CHANNELS or seen.sum() < MIN_IMAGES:
        return exchanged
    profiles = np.log(statistics.means[seen])
    profiles -= profiles.mean(axis=1, keepdims=True)
    low, high = np.quantile(profiles, CHANNEL_QUANTILES, axis=0)
    width = high - low + 0.02  # 2 % is nothing to see
    own, *others = (
        (np.maximum(low - changed, changed - high) / width).max(axis=1)
        for changed in (profiles[:, order] for order in permutations(range(n_channels)))
    )
    exchanged[seen] = (own > CHANNEL_SHARES[0]) & (np.min(others, axis=0) < CHANNEL_SHARES[1])
    return exchanged


def channels_of_one_value(statistics: ImageStatistics) -> np.ndarray:
    """Find images (n,), bool, of which a channel has one value, and another not, where few images have that."""
    still = statistics.minima == statistics.maxima
    found: np.ndarray = (still & (still.mean(axis=0) < FEW)).any(axis=1) & ~still.all(axis=1)
    return found


def turned_images(statistics: ImageStatistics) -> np.ndarray:
    """Find images (n,), bool, that are upside down, mirrored, or turned by a right angle, by their signatures.

    Nearly all others are of one view, the typical image, which is unlike itself turned.
    """
    signatures = statistics.signatures.astype(np.float64)
    turned, seen = np.zeros(len(signatures), dtype=bool), np.isfinite(signatures).all(axis=1)
    if signatures.shape[1] != GRID**2 or seen.sum() < MIN_IMAGES:
        return turned
    signatures = signatures[seen]
    typical = np.median(signatures, axis=0)
    usual = np.quantile(np.square(signatures - typical).mean(axis=1), 1 - FEW / 2)
    for turn in _TURNS:
        other = turn(typical.reshape(GRID, GRID)).ravel()
        along = (signatures - (typical + other) / 2) @ (typical - other)
        along /= max(np.square(typical - other).sum() / 2, np.finfo(np.float64).tiny)
        like_other = np.square(signatures - other).mean(axis=1) < usual
        spread = (1 - np.quantile(along, FEW)) / 1.2816  # of a normal distribution, a tenth is below that
        if spread < SAME_VIEW * np.sqrt(np.square(typical - other).mean()):
            far = 1 - along > TURNED_DEVIATIONS * spread
            turned[seen] |= like_other & far & (np.abs(along + 1) < NEAR_TURNED)
    return turned


def empty_channels(estimator: Any, statistics: ImageStatistics | None) -> tuple[int, np.ndarray]:
    """Return the number of channels, and the positions of those of next to no variance, unless all are.

    The model tells it; with a mask or of many channels, only those of one value in all images are known.
    """
    found = _images_of(estimator)
    if found is not None and found[1].ndim == 3 and found[1].shape[2] <= MAX_DRAWN:
        eigenimages, _, left, variances = found
        varies = left.sum(axis=(0, 1), dtype=np.float64)
        for image, variance in zip(eigenimages, variances, strict=True):
            varies += variance * np.einsum("ijc,ijc->c", image, image, dtype=np.float64)
        empty = varies < EMPTY_SHARE * varies.mean()
    elif statistics is not None:
        empty = statistics.maxima.max(axis=0) == statistics.minima.min(axis=0)
    else:
        return 0, np.empty(0, dtype=int)
    return len(empty), np.flatnonzero(empty & ~empty.all())


def _images_of(estimator: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Eigenimages, mean image, image of the variance that they leave, and variances; None where a part is not known."""
    if estimator is None or find_mask(estimator) is not None:
        return None
    _, pca = split_at_pca(estimator)
    left = getattr(pca, "residual_variance_image_", None)
    try:
        eigenimages, mean = find_eigenimages(estimator)
    except ValueError:
        return None
    return None if left is None else (eigenimages, mean, left.reshape(mean.shape), pca.explained_variance_)
