"""Images to scores and scores to images: NumPy blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import ceil, log10
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import numpy.typing as npt

from ..base.lazy import map_images, note_files
from ..base.parts import map_parts, nonempty_parts
from ..base.validation import Images, working_dtype
from ..linalg.krylov import project as project_rows
from ..linalg.scaling import exponent_of, power_of_two
from ..linalg.tiles import CACHED_BYTES, TERMS, flat_rows, n_rows, products_of_rows, row_groups, tiles, wide_tile

__all__ = [
    "Scoring",
    "divided",
    "in_intensities",
    "project",
    "reconstruct",
    "residual_squares",
    "residuals",
    "rounded",
    "score_scale",
    "scores_of",
    "scores_of_part",
]

_PIECE = 2**16  # pixels
_FAINT = 1e-2
_LARGE, _SAMPLED_AXES = 2**20, 32  # pixels of an image whose scores are guessed first, and axes on which they are


def score_scale(variances: np.ndarray, whiten: bool) -> np.ndarray:
    """Divisor of scores (k,): 1, or the standard deviation along each axis if `whiten`."""
    scale: np.ndarray = np.sqrt(variances) if whiten else np.ones(len(variances))
    scale[scale == 0] = 1  # scores along a direction of variance 0 are rounding, and stay small
    return scale


def project(block: np.ndarray, axes: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Scores (b, k) of a block of images (b, *image_shape). Tiles are centred one by one and summed in float64."""
    scores, exponent = _projected(block, axes, mean)
    return in_intensities(scores / scale, exponent, axes.dtype, "scores")


class Scoring(NamedTuple):
    """How images become scores.

    Attributes
    ----------
    of_block : callable
        ``of_block(block, axes, mean, scale)``: scores (b, k) of whole images.
    of_part : callable
        ``of_part(part, axes, mean)``: sums (b, 1, n_sums), float64, over the pixels of a part of the images.
    of_sums : callable
        ``of_sums(sums, scale=scale, dtype=dtype)``: scores (b, k) from the sums (b, n_sums) over all parts.
    n_sums : callable
        Number of sums for k components.
    """

    of_block: Callable[..., np.ndarray]
    of_part: Callable[..., np.ndarray]
    of_sums: Callable[..., np.ndarray]
    n_sums: Callable[[int], int]


def scores_of(
    images: Images, axes: np.ndarray, mean: np.ndarray, scale: np.ndarray, scoring: Scoring | None = None
) -> np.ndarray | da.Array:
    """Scores (n, k) of a stack, by default as of `project`; lazy images are read in chunks as they are stored."""
    of_block, of_part, of_sums, n_sums = scoring or _PROJECTION
    stored = nonempty_parts(images.data)
    options = dict[str, Any](image_shape=(len(axes),), dtype=axes.dtype, files=images.files, scale=scale)
    if stored is None:
        options |= {"positions": images.positions, "missing": images.missing}
        return map_images(of_block, images.data, axes=axes, mean=mean, **options)
    parts = map_parts(of_part, images, stored, shape=(n_sums(len(axes)),), arrays=(axes, mean))
    scores = map_images(partial(of_sums, dtype=axes.dtype), parts.sum(axis=1), **options)
    assert isinstance(images.data, da.Array)
    assert isinstance(scores, da.Array)
    return note_files(scores, images.files, images.data)


def scores_of_part(part: np.ndarray, axes: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Scores (b, 1, k), float64, of a part of the images, (b, *region), from the same part of axes and mean."""
    scores, exponent = _projected(part, axes.reshape(len(axes), mean.size), mean.ravel())
    return in_intensities(scores, exponent, scores.dtype, "scores")[:, np.newaxis]


def divided(scores: np.ndarray, scale: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Scores in units of `scale`, as numbers of `dtype`."""
    return in_intensities(scores / scale, 0, dtype, "scores")


_PROJECTION = Scoring(project, scores_of_part, divided, lambda k: k)


def _projected(block: np.ndarray, axes: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, int]:
    """Scores (b, k), float64, in units of 2^exponent; and the exponent. No copy of the mean or of all axes is made."""
    dtype, exponent = working_dtype(block.dtype), max(exponent_of([block]), exponent_of([mean[None]]))
    with np.errstate(over="ignore"):  # of the mean, in images that are refused below
        scores = project_rows([block], 0, mean.size, axes, mean, dtype, exponent)
    for i in range(0, mean.size if dtype != mean.dtype else 0, _PIECE):
        rest = np.ldexp(mean[i : i + _PIECE] - _held(mean[i : i + _PIECE], dtype), -exponent)
        scores -= axes[:, i : i + _PIECE] @ rest.astype(axes.dtype)
    return scores, exponent


@np.errstate(over="ignore")
def _held(mean: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return a mean as its dtype holds it, in float64: rounding to float32 drops a part of it."""
    return mean.astype(dtype).astype(np.float64)


def reconstruct(
    image_shape: tuple[int, ...], scores: np.ndarray, axes: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Images (b, *image_shape) from scores (b, k)."""
    scores = scores * scale
    exponent = max(exponent_of([scores]), exponent_of([mean[None]]))
    factor = power_of_two(exponent, scores.dtype)
    images = (scores * factor).astype(axes.dtype) @ axes
    images += (mean * factor).astype(axes.dtype)
    if factor != 1:
        images = in_intensities(images, exponent, axes.dtype, "images")
    return images.reshape(len(scores), *image_shape)


def residuals(block: np.ndarray, axes: np.ndarray, mean: np.ndarray, with_mean: bool = False) -> np.ndarray:
    """Return what axes (k, p) leave of a block of images (b, *image_shape), less the mean or with it, as rows (b, p).

    In the dtype of the axes, from centred images: faint differences of bright images would lose their digits.
    """
    scores, exponent = _projected(block, axes, mean)
    dtype = working_dtype(block.dtype)
    left = np.empty((len(block), mean.size), axes.dtype)
    for row, pieces in row_groups([block]):
        rows = slice(row, row + n_rows(pieces))
        own = scores[rows].astype(dtype)
        width = wide_tile(max(own.shape), dtype)
        for a, b, tile in tiles(pieces, mean, dtype, width=width, exponent=exponent):
            held = _held(mean[a:b], dtype)  # is what the tiles have subtracted
            tile -= np.ldexp(-held if with_mean else mean[a:b] - held, -exponent).astype(dtype)
            tile -= own @ axes[:, a:b].astype(dtype, copy=False)
            left[rows, a:b] = tile if exponent == 0 else in_intensities(tile, exponent, axes.dtype, "residuals")
    return left


@np.errstate(over="ignore", invalid="ignore")  # the caller finds what is not finite
def residual_squares(
    blocks: Sequence[np.ndarray],
    axes: np.ndarray,
    mean: np.ndarray,
    inner: np.ndarray | None = None,
    dtype: npt.DTypeLike = np.float64,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, k) of the images in blocks, and sums of squares (n,) of what the axes leave of them, both float64.

    The squares are those of the centred image less those of its scores. Where that is less than a hundredth of the
    image, the difference has lost digits, and residuals are formed pixel by pixel. To read large images once only, what
    a guess of their scores explains is subtracted first where four digits are enough.

    Parameters
    ----------
    inner : ndarray of shape (k, k), optional
        Inner products of the axes: in float32 these are orthonormal to seven digits only. Without them, squares have
        four digits.
    dtype : dtype, default=float64
        Of the arithmetic. In float32 squares have four digits, of images of up to 16 bits; 2048 values are added up.
    """
    n = n_rows(blocks)
    scores, total = np.zeros((n, len(axes))), np.zeros(n)
    guess = _guessed_scores(blocks, axes, mean, dtype) if inner is None and mean.size >= _LARGE else None
    for rows, a, b, tile in _centred_tiles(blocks, axes, mean, dtype):
        own_axes = axes[:, a:b].astype(dtype, copy=False)
        if guess is not None:
            tile -= guess[rows] @ own_axes[: guess.shape[1]]
        scores[rows] += products_of_rows(tile, own_axes)
        total[rows] += _squares_of_rows(tile)
    along = scores if inner is None else np.linalg.solve(inner, scores.T).T
    squares = total - np.einsum("ij,ij->i", scores, along)
    if guess is not None:
        scores[:, : guess.shape[1]] += guess  # those of what it leaves, and its own; `along` are the same numbers
    faint = ~(squares > _FAINT * total)
    if faint.any():
        some = blocks if faint.all() else [block[faint[i : i + len(block)]] for i, block in _with_starts(blocks)]
        along, left = along[faint], np.zeros(np.count_nonzero(faint))
        for rows, a, b, tile in _centred_tiles(some, axes, mean, dtype):
            tile -= along[rows].astype(dtype) @ axes[:, a:b].astype(dtype, copy=False)
            left[rows] += _squares_of_rows(tile)
        squares[faint] = left
    return scores, squares


def _with_starts(blocks: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each block with the position of its first image."""
    start = 0
    for block in blocks:
        yield start, block
        start += len(block)


def _guessed_scores(
    blocks: Sequence[np.ndarray], axes: np.ndarray, mean: np.ndarray, dtype: npt.DTypeLike
) -> np.ndarray:
    """Scores (b, up to 32) that fit pieces of the images best, by least squares; 0 where these tell little."""
    axes = axes[:_SAMPLED_AXES]
    starts = np.linspace(0, mean.size - 16, 64 + len(axes)).astype(int)
    at = (starts[:, np.newaxis] + np.arange(16)).ravel()
    centred = np.concatenate([rows[:, at] for rows in flat_rows(blocks)]).astype(np.float64) - mean[at]
    left, sizes, right = np.linalg.svd(axes[:, at].astype(np.float64), full_matrices=False)
    # A piece that is like the whole has this share of the length of each axis. Much less of it would amplify noise.
    known = sizes > 0.1 * np.sqrt(len(at) / mean.size)
    found: np.ndarray = centred @ right[known].T / sizes[known] @ left[:, known].T
    return found.astype(dtype)


def _centred_tiles(
    blocks: Sequence[np.ndarray], axes: np.ndarray, mean: np.ndarray, dtype: npt.DTypeLike
) -> Iterator[tuple[slice, int, int, np.ndarray]]:
    """Yield rows, first and last pixel, and centred images, tile by tile."""
    kind = np.dtype(dtype)
    for row, pieces in row_groups(blocks):
        rows = slice(row, row + n_rows(pieces))
        width = wide_tile(n_rows(pieces) + len(axes), kind, CACHED_BYTES)
        for a, b, tile in tiles(pieces, mean, kind, width=width):
            yield rows, a, b, tile


def _squares_of_rows(tile: np.ndarray) -> np.ndarray:
    """Add up the squares of rows (b,), float64, of which at most 2048 are added up in the dtype of the tile."""
    whole = tile.shape[1] // TERMS * TERMS
    parts = tile[:, :whole].reshape(len(tile), whole // TERMS, TERMS)
    found: np.ndarray = np.einsum("ijk,ijk->ij", parts, parts).sum(axis=1, dtype=np.float64)
    return found + np.einsum("ij,ij->i", tile[:, whole:], tile[:, whole:])


def rounded(images: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floats as numbers of `dtype`: for integers rounded, half to even, and clipped to what it holds."""
    if dtype.kind == "f":
        return in_intensities(images, 0, dtype, "images")
    limits = np.iinfo(dtype)
    np.rint(images, out=images)
    # The largest integer may be no float, where the next power of two is one: clipping to it would overflow.
    high, low = images >= float(2 ** (limits.bits - (dtype.kind == "i"))), images <= float(limits.min)
    images[high | low] = 0
    found = images.astype(dtype)
    found[high], found[low] = limits.max, limits.min
    return found


def in_intensities(values: np.ndarray, exponent: int, dtype: np.dtype, what: str) -> np.ndarray:
    """Values in units of 2^exponent as numbers of `dtype` in the units of the images.

    Raises
    ------
    ValueError
        If one of them is finite, and no number of `dtype`.
    """
    with np.errstate(over="ignore"):
        converted: np.ndarray = np.ldexp(values, exponent).astype(dtype, copy=False)
    if not np.isfinite(converted).all() and np.isfinite(values).all():
        largest = log10(np.abs(values).max()) + exponent * log10(2)
        raise ValueError(
            f"The {what} have values of up to 1e{ceil(largest)}, and {dtype} ends at {np.finfo(dtype).max:.1e}. Divide "
            f"the images by 1e{ceil(largest - log10(np.finfo(dtype).max)) + 1} or more before fit and transform."
        )
    return converted
