"""Statistics of images in memory: their intensities, a digest of their pixels, and a signature of their look."""

from __future__ import annotations

from hashlib import blake2b
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..linalg.extremes import extremes_of, joined_channels
from ..linalg.large_integers import beyond_float64, differences

__all__ = [
    "GRID",
    "N_SAMPLED",
    "ImageStatistics",
    "cell_edges",
    "concatenate_statistics",
    "digest_of",
    "image_statistics",
    "signatures_of",
    "with_few_levels",
]

GRID = 8  # cells along each side of a signature
_TILE = 2**20  # bytes of images handled at once: they stay in the cache
_MIN_LEVELS = 32  # an image with fewer different values is a mask or a drawing
N_SAMPLED = 1024  # pixels among which different values are counted


class ImageStatistics(NamedTuple):
    """Statistics of each of n images, 150 to 250 bytes an image.

    Attributes
    ----------
    minima, maxima, means : ndarray of shape (n, n_channels), float64
        Of each image and channel, in the intensity units of the stack. Minima and maxima of 64-bit integers keep their
        dtype.
    at_top : ndarray of shape (n, n_channels), float64
        Share of the pixels of a channel that have its largest value; 0 in images of few different values, such as
        masks and drawings, where the largest value does not mean overexposure.
    digests : ndarray of shape (n,), uint64
        Hash of the pixels: equal for equal images of a stack. Where chunks hold parts of images, it is that of the
        hashes of these parts.
    signatures : ndarray of shape (n, n_cells), float16
        Grey means of 8 x 8 cells, shifted and scaled to mean 0 and standard deviation 1: nearly the same for nearly the
        same image, whatever its brightness and contrast. NaN if all cells are equal.
    contrasts : ndarray of shape (n,), float64
        Standard deviation of those grey means, in the intensity units of the stack.
    blank : ndarray of shape (n, 2), float64
        Share of the rows at the top, and at the bottom, whose pixels are all of one value or colour.
    """

    minima: np.ndarray
    maxima: np.ndarray
    means: np.ndarray
    at_top: np.ndarray
    digests: np.ndarray
    signatures: np.ndarray
    contrasts: np.ndarray
    blank: np.ndarray


def image_statistics(block: np.ndarray) -> ImageStatistics:
    """Statistics of a block of images (b, height, width[, n_channels]) or rows (b, n_values).

    Of a masked array, they are those of the pixels that are not hidden, the same ones in all images. The cells of their
    signatures are stretches of pixels that follow each other.
    """
    n_channels = block.shape[3] if block.ndim == 4 else 1
    if isinstance(block, np.ma.MaskedArray):
        shown = ~np.ma.getmaskarray(block)[0].reshape(-1, n_channels)
        values = block.data.reshape(len(block), -1, n_channels)
        channels = [np.ascontiguousarray(values[:, shown[:, i], i])[:, np.newaxis] for i in range(n_channels)]
        return _joined([_statistics_of_tile(one, 1, (1, GRID**2)) for one in channels if one.size])
    step = max(1, _TILE // max(1, block[:1].nbytes))
    tiles = [np.ascontiguousarray(block[i : i + step]) for i in range(0, len(block), step)]
    return concatenate_statistics([_statistics_of_tile(tile, n_channels) for tile in tiles])


def concatenate_statistics(parts: list[ImageStatistics]) -> ImageStatistics:
    """Concatenate the statistics of consecutive images."""
    return ImageStatistics(*map(np.concatenate, zip(*parts, strict=True)))


def _joined(channels: list[ImageStatistics]) -> ImageStatistics:
    """Join the statistics of the channels of some images."""
    if len(channels) == 1:
        return channels[0]
    minima, maxima, means, at_top = (np.hstack(parts) for parts in list(zip(*channels, strict=True))[:4])
    digests = np.stack([one.digests for one in channels], axis=1)
    n_cells = min(one.signatures.shape[1] for one in channels)
    signatures = np.mean([np.nan_to_num(one.signatures[:, :n_cells].astype(np.float64)) for one in channels], axis=0)
    digests = np.array([digest_of(digest) for digest in digests], dtype=np.uint64)
    contrasts = np.mean([one.contrasts for one in channels], axis=0)
    blank = np.min([one.blank for one in channels], axis=0)
    return ImageStatistics(minima, maxima, means, at_top, digests, signatures_of(signatures), contrasts, blank)


def _statistics_of_tile(images: np.ndarray, n_channels: int, grid: tuple[int, int] = (GRID, GRID)) -> ImageStatistics:
    rows = joined_channels(images)
    minima, maxima = extremes_of(rows, n_channels)
    values, base = rows, np.zeros((len(rows), 1))
    if beyond_float64(rows):
        base = rows.reshape(len(rows), -1).min(axis=1).astype(np.float64)[:, None]
        values = np.stack([differences(row, [int(row.min())])[0] for row in rows])
    sums, counts = _sums_of_cells(values, n_channels, grid)
    n_pixels = counts.sum()
    at_top = np.count_nonzero(rows == np.tile(maxima, rows.shape[2] // n_channels)[:, None], axis=1)
    at_top = at_top.reshape(len(rows), -1, n_channels).sum(axis=1) / n_pixels
    for i in np.flatnonzero(at_top.max(axis=1) > 1 / N_SAMPLED):
        pixels = rows[i].ravel()
        if with_few_levels(pixels[:: max(1, pixels.size // N_SAMPLED)], pixels.size):
            at_top[i] = 0
    kind = rows.dtype if rows.dtype.kind in "iu" and rows.itemsize == 8 else np.float64
    cells = sums.mean(axis=2) / counts
    return ImageStatistics(
        minima.astype(kind),
        maxima.astype(kind),
        sums.sum(axis=1) / n_pixels + base,
        at_top,
        np.array([digest_of(image) for image in images], dtype=np.uint64),
        signatures_of(cells),
        cells.std(axis=1),
        np.stack([_blank_share(ordered, n_channels) for ordered in (rows, rows[:, ::-1])], axis=1),
    )


def _blank_share(rows: np.ndarray, n_channels: int) -> np.ndarray:
    """Share (b,) of the rows of pixels, from the first on, that all have the colour of the first pixel."""
    share = np.zeros(len(rows))
    colour = np.tile(rows[:, 0, :n_channels], rows.shape[2] // n_channels)
    blank = np.flatnonzero((rows[:, 0] == colour).all(axis=1))  # next to none: the others are not looked at
    ends = (rows[blank] != colour[blank, np.newaxis]).any(axis=2)
    share[blank] = np.where(ends.any(axis=1), ends.argmax(axis=1), rows.shape[1]) / rows.shape[1]
    return share


def with_few_levels(sampled: np.ndarray, n_pixels: int) -> bool:
    """Tell whether some pixels of an image of `n_pixels` have few different values."""
    return len(np.unique(sampled)) < min(_MIN_LEVELS, n_pixels)


def _sums_of_cells(rows: np.ndarray, n_channels: int, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return sums over the cells of the grid, (b, n_cells, n_channels) in float64, and the pixels in each cell."""
    height, width = rows.shape[1], rows.shape[2] // n_channels
    tops, lefts = (cell_edges(*of) for of in zip((height, width), grid, strict=True))
    # Rows are summed first, along memory. Sums of 8 and 16 bits fit into 32 bits, which is ten times faster.
    exact = rows.dtype.kind == "u" and rows.dtype.itemsize <= 2 and height < 2**16
    bands = [rows[:, a:b].sum(axis=1, dtype=np.uint32 if exact else np.float64) for a, b in pairwise(tops)]
    sums = np.stack(bands, axis=1).reshape(len(rows), len(bands), width, n_channels)
    sums = np.add.reduceat(sums.astype(np.float64), lefts[:-1], axis=2)
    counts = np.outer(np.diff(tops), np.diff(lefts)).ravel()
    return sums.reshape(len(rows), -1, n_channels), counts


def cell_edges(length: int, n_cells: int) -> np.ndarray:
    """Edges along a side of the grid."""
    return np.linspace(0, length, 1 + min(n_cells, length)).astype(int)


def signatures_of(cells: np.ndarray) -> np.ndarray:
    """Shift and scale grey cells (b, n_cells) to mean 0 and standard deviation 1."""
    cells = np.ldexp(cells, -np.frexp(np.abs(cells).max(axis=1, keepdims=True))[1])  # near 1, in whatever units
    cells -= cells.mean(axis=1, keepdims=True)
    scale = cells.std(axis=1, keepdims=True)
    return (cells / np.where(scale <= 1e-12, np.nan, scale)).astype(np.float16)


def digest_of(image: np.ndarray) -> int:
    """Hash of the bytes of an array."""
    return int.from_bytes(blake2b(image.reshape(-1).view(np.uint8).data, digest_size=8).digest(), "little")
