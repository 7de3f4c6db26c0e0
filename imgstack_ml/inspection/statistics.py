"""What one read tells about each image: its intensities, and marks by which it is recognised."""

from __future__ import annotations

from hashlib import blake2b
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..passes.runner import PassRunner
from ..preprocessing.intensity import extremes_of, joined_channels
from ._steps import check_stack

__all__ = [
    "ImageStatistics",
    "image_statistics",
    "in_order",
    "join_statistics",
    "odd_ranges",
    "read_statistics",
]

_GRID = 8  # cells a side of a signature
_TILE = 2**20  # bytes of images looked at at once, while they are in the cache
_LEVELS = 32  # a picture of fewer different values is a mask or a drawing
_LOOK = 1024  # pixels among which they are counted
_ODD_FACTOR = 2.0
_ODD_DEVIATIONS = 5.0


class ImageStatistics(NamedTuple):
    """Small numbers about each of n images, 150 to 250 bytes an image.

    Attributes
    ----------
    minima, maxima, means : ndarray of shape (n, n_channels), float64
        Of each image and channel, in the intensity units of the stack.
    at_top : ndarray of shape (n, n_channels), float64
        Share of the pixels of a channel that have its largest value; 0 in pictures of few levels, such as masks and
        drawings, where that is a colour like any other.
    digests : ndarray of shape (n,), uint64
        Equal for images whose pixels are all equal.
    signatures : ndarray of shape (n, n_cells), float16
        The image in grey on a grid of 8 x 8 cells, shifted and scaled to mean 0 and standard deviation 1: nearly the
        same for nearly the same picture, whatever its brightness and contrast. NaN where the cells are all equal.
    """

    minima: np.ndarray
    maxima: np.ndarray
    means: np.ndarray
    at_top: np.ndarray
    digests: np.ndarray
    signatures: np.ndarray


def read_statistics(X: Any, *, asker: str = "read_statistics", progress: bool = False) -> ImageStatistics:
    """Read a stack once, and return its statistics.

    Parameters
    ----------
    X : ImageStack, dask array or array-like of shape (n_images, height, width[, n_channels])
        The images; a 2-D array holds one image a row.
    asker : str
        Who asks, for errors.
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
    runner = PassRunner(check_stack(asker, X), progress=progress)
    return join_statistics(runner.run(_statistics_of_batch, in_order, label="intensities"))


def image_statistics(block: np.ndarray) -> ImageStatistics:
    """Statistics of a block of images (b, height, width[, n_channels]) or rows (b, n_values)."""
    n_channels = block.shape[3] if block.ndim == 4 else 1
    step = max(1, _TILE // max(1, block[:1].nbytes))
    tiles = [np.ascontiguousarray(block[i : i + step]) for i in range(0, len(block), step)]
    return join_statistics([_statistics_of_tile(tile, n_channels) for tile in tiles])


def join_statistics(parts: list[ImageStatistics]) -> ImageStatistics:
    """Join the statistics of consecutive images."""
    return ImageStatistics(*map(np.concatenate, zip(*parts, strict=True)))


def odd_ranges(statistics: ImageStatistics) -> np.ndarray:
    """Find images whose range of intensities is far from that of most others.

    The width of a range, maximum less minimum over all channels, is odd where it is less than half or more than twice
    the median width, and more than 5 robust standard deviations (of its logarithm) away from it: the first leaves out
    differences that no eye would see, the second what is common in a varied collection.

    Returns
    -------
    odd : ndarray of shape (n,), bool
        False for constant images, which have no range.
    """
    width = statistics.maxima.max(axis=1) - statistics.minima.min(axis=1)
    some = width > 0
    odd = np.zeros(len(width), dtype=bool)
    if some.sum() < 3:
        return odd
    size = np.log(width[some])
    off = np.abs(size - np.median(size))
    spread = 1.4826 * np.median(off)  # of a normal distribution this is the standard deviation
    odd[some] = (off > np.log(_ODD_FACTOR)) & (off > _ODD_DEVIATIONS * spread)
    return odd


def _statistics_of_batch(blocks: list[np.ndarray], start: int) -> list[ImageStatistics]:
    return [image_statistics(block) for block in blocks]


def in_order(earlier: list[Any], later: list[Any]) -> list[Any]:
    """Merge partial results of a pass that are joined at its end only: joining anew each time would copy them all."""
    return earlier + later


def _statistics_of_tile(images: np.ndarray, n_channels: int) -> ImageStatistics:
    rows = joined_channels(images)
    minima, maxima = extremes_of(rows, n_channels)
    sums, counts = _cells(rows, n_channels)
    n_pixels = counts.sum()
    at_top = np.count_nonzero(rows == np.tile(maxima, rows.shape[2] // n_channels)[:, None], axis=1)
    at_top = at_top.reshape(len(rows), -1, n_channels).sum(axis=1) / n_pixels
    for i in np.flatnonzero(at_top.max(axis=1) > 1 / _LOOK):
        if _has_few_levels(rows[i]):
            at_top[i] = 0
    return ImageStatistics(
        minima.astype(np.float64),
        maxima.astype(np.float64),
        sums.sum(axis=1) / n_pixels,
        at_top,
        np.array([_digest(image) for image in images], dtype=np.uint64),
        _signatures(sums.sum(axis=2) / counts),
    )


def _has_few_levels(image: np.ndarray) -> bool:
    pixels = image.ravel()
    return len(np.unique(pixels[:: max(1, pixels.size // _LOOK)])) < min(_LEVELS, pixels.size)


def _cells(rows: np.ndarray, n_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum images over the cells of a grid: sums (b, n_cells, n_channels) in float64, and pixels in each cell."""
    height, width = rows.shape[1], rows.shape[2] // n_channels
    tops, lefts = _edges(height), _edges(width)
    # Sums of rows first, along memory; those of 8 and 16 bits cannot overflow, and are ten times faster so.
    exact = rows.dtype.kind == "u" and rows.dtype.itemsize <= 2 and height < 2**16
    bands = [rows[:, a:b].sum(axis=1, dtype=np.uint32 if exact else np.float64) for a, b in pairwise(tops)]
    sums = np.stack(bands, axis=1).reshape(len(rows), len(bands), width, n_channels)
    sums = np.add.reduceat(sums.astype(np.float64), lefts[:-1], axis=2)
    counts = np.outer(np.diff(tops), np.diff(lefts)).ravel()
    return sums.reshape(len(rows), -1, n_channels), counts


def _edges(length: int) -> np.ndarray:
    return np.linspace(0, length, 1 + min(_GRID, length)).astype(int)


def _signatures(cells: np.ndarray) -> np.ndarray:
    """Standardise grey cells (b, n_cells)."""
    cells = cells - cells.mean(axis=1, keepdims=True)
    scale = cells.std(axis=1, keepdims=True)
    flat = scale <= 1e-12 * np.abs(cells).max(initial=1)
    return (cells / np.where(flat, np.nan, scale)).astype(np.float16)


def _digest(image: np.ndarray) -> int:
    return int.from_bytes(blake2b(image.reshape(-1).view(np.uint8).data, digest_size=8).digest(), "little")
