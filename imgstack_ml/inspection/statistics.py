"""Statistics of each image from one read: its intensities, a digest of its pixels, and a signature of its look."""

from __future__ import annotations

from hashlib import blake2b
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..base.validation import StackLike
from ..linalg.extremes import extremes_of, joined_channels
from ..linalg.large_integers import beyond_float64, differences
from ..passes.runner import PassRunner
from .stacks import check_stack

__all__ = [
    "ImageStatistics",
    "concatenate_lists",
    "concatenate_statistics",
    "image_statistics",
    "log_deviations",
    "odd_ranges",
    "read_statistics",
]

_GRID = 8  # cells along each side of a signature
_TILE = 2**20  # bytes of images handled at once: they stay in the cache
_MIN_LEVELS = 32  # an image with fewer different values is a mask or a drawing
_N_SAMPLED = 1024  # pixels among which different values are counted
_ODD_FACTOR = 2.0
_ODD_DEVIATIONS = 5.0
_GROUP_SHARE = 0.2  # of the images, at least, are in each of two groups of ranges


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
        Hash of the pixels: equal for equal images.
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
    runner = PassRunner(check_stack(caller, X), progress=progress)
    return concatenate_statistics(runner.run(_statistics_of_batch, concatenate_lists, label="intensities"))


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
        return _joined([_statistics_of_tile(one, 1, (1, _GRID**2)) for one in channels if one.size])
    step = max(1, _TILE // max(1, block[:1].nbytes))
    tiles = [np.ascontiguousarray(block[i : i + step]) for i in range(0, len(block), step)]
    return concatenate_statistics([_statistics_of_tile(tile, n_channels) for tile in tiles])


def concatenate_statistics(parts: list[ImageStatistics]) -> ImageStatistics:
    """Concatenate the statistics of consecutive images."""
    return ImageStatistics(*map(np.concatenate, zip(*parts, strict=True)))


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


def concatenate_lists(earlier: list[Any], later: list[Any]) -> list[Any]:
    """Merge partial results of a pass as lists; their arrays are concatenated once, when the pass ends.

    Concatenating the arrays at each merge would copy all of them each time.
    """
    return earlier + later


def _statistics_of_batch(blocks: list[np.ndarray], start: int) -> list[ImageStatistics]:
    """Step of the pass."""
    return [image_statistics(block) for block in blocks]


def _joined(channels: list[ImageStatistics]) -> ImageStatistics:
    """Join the statistics of the channels of some images."""
    if len(channels) == 1:
        return channels[0]
    minima, maxima, means, at_top = (np.hstack(parts) for parts in list(zip(*channels, strict=True))[:4])
    digests = np.stack([one.digests for one in channels], axis=1)
    n_cells = min(one.signatures.shape[1] for one in channels)
    signatures = np.mean([np.nan_to_num(one.signatures[:, :n_cells].astype(np.float64)) for one in channels], axis=0)
    digests = np.array([_digest(digest) for digest in digests], dtype=np.uint64)
    contrasts = np.mean([one.contrasts for one in channels], axis=0)
    blank = np.min([one.blank for one in channels], axis=0)
    return ImageStatistics(minima, maxima, means, at_top, digests, _signatures(signatures), contrasts, blank)


def _statistics_of_tile(images: np.ndarray, n_channels: int, grid: tuple[int, int] = (_GRID, _GRID)) -> ImageStatistics:
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
    for i in np.flatnonzero(at_top.max(axis=1) > 1 / _N_SAMPLED):
        if _has_few_levels(rows[i]):
            at_top[i] = 0
    kind = rows.dtype if rows.dtype.kind in "iu" and rows.itemsize == 8 else np.float64
    cells = sums.mean(axis=2) / counts
    return ImageStatistics(
        minima.astype(kind),
        maxima.astype(kind),
        sums.sum(axis=1) / n_pixels + base,
        at_top,
        np.array([_digest(image) for image in images], dtype=np.uint64),
        _signatures(cells),
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


def _has_few_levels(image: np.ndarray) -> bool:
    pixels = image.ravel()
    return len(np.unique(pixels[:: max(1, pixels.size // _N_SAMPLED)])) < min(_MIN_LEVELS, pixels.size)


def _sums_of_cells(rows: np.ndarray, n_channels: int, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return sums over the cells of the grid, (b, n_cells, n_channels) in float64, and the pixels in each cell."""
    height, width = rows.shape[1], rows.shape[2] // n_channels
    tops, lefts = (_cell_edges(*of) for of in zip((height, width), grid, strict=True))
    # Rows are summed first, along memory. Sums of 8 and 16 bits fit into 32 bits, which is ten times faster.
    exact = rows.dtype.kind == "u" and rows.dtype.itemsize <= 2 and height < 2**16
    bands = [rows[:, a:b].sum(axis=1, dtype=np.uint32 if exact else np.float64) for a, b in pairwise(tops)]
    sums = np.stack(bands, axis=1).reshape(len(rows), len(bands), width, n_channels)
    sums = np.add.reduceat(sums.astype(np.float64), lefts[:-1], axis=2)
    counts = np.outer(np.diff(tops), np.diff(lefts)).ravel()
    return sums.reshape(len(rows), -1, n_channels), counts


def _cell_edges(length: int, n_cells: int) -> np.ndarray:
    return np.linspace(0, length, 1 + min(n_cells, length)).astype(int)


def _signatures(cells: np.ndarray) -> np.ndarray:
    """Shift and scale grey cells (b, n_cells) to mean 0 and standard deviation 1."""
    cells = np.ldexp(cells, -np.frexp(np.abs(cells).max(axis=1, keepdims=True))[1])  # near 1, in whatever units
    cells -= cells.mean(axis=1, keepdims=True)
    scale = cells.std(axis=1, keepdims=True)
    return (cells / np.where(scale <= 1e-12, np.nan, scale)).astype(np.float16)


def _digest(image: np.ndarray) -> int:
    return int.from_bytes(blake2b(image.reshape(-1).view(np.uint8).data, digest_size=8).digest(), "little")
