"""Images to scores and scores to images: NumPy blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil, log10

import dask.array as da
import numpy as np
import numpy.typing as npt

from ..base.gate import gated
from ..base.lazy import map_images, note_files, stored_parts
from ..base.validation import Images, working_dtype
from ..linalg.krylov import products_of_rows
from ..linalg.krylov import project as project_rows
from ..linalg.scaling import exponent_of, power_of_two
from ..linalg.tiles import TERMS, flat_rows, n_rows, row_groups, tiles, wide_tile

__all__ = [
    "in_intensities",
    "project",
    "reconstruct",
    "residual_squares",
    "residuals",
    "rounded",
    "score_scale",
    "scores_of",
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


def scores_of(
    images: Images,
    axes: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    func: Callable[..., np.ndarray] = project,
) -> np.ndarray | da.Array:
    """Scores (n, k) of a stack by `func`; those of `project` lazily in the chunks in which lazy images are stored."""
    stored = stored_parts(images.data)
    if stored is not None and images.positions is None and func is project:
        assert isinstance(images.data, da.Array)
        return note_files(_sums_over_parts(stored, images.files, axes, mean, scale), images.files, images.data)
    return map_images(
        func,
        images.data,
        image_shape=(len(axes),),
        dtype=axes.dtype,
        files=images.files,
        positions=images.positions,
        missing=images.missing,
        axes=axes,
        mean=mean,
        scale=scale,
    )


def _sums_over_parts(
    stored: da.Array, files: Sequence[str] | None, axes: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> da.Array:
    """Add up the scores of the parts of images that chunks hold, in float64."""
    image_shape, index = stored.shape[1:], tuple(range(stored.ndim))
    pixels, parts = index[1:], gated(stored, files, finite=True)
    if not all(map(all, stored.chunks[1:])):  # chunks of no pixels have no scores
        parts = parts.rechunk({axis: tuple(filter(None, stored.chunks[axis])) for axis in pixels})
    of_parts = da.blockwise(
        _scores_of_part,
        (*index, stored.ndim),
        parts,
        index,
        da.from_array(axes.reshape(-1, *image_shape), chunks=(-1, *parts.chunks[1:])),
        (stored.ndim, *pixels),
        da.from_array(mean.reshape(image_shape), chunks=parts.chunks[1:]),
        pixels,
        adjust_chunks=dict.fromkeys(pixels, 1),
        dtype=np.float64,
        meta=np.empty((0,) * (stored.ndim + 1)),
    )
    meta = np.empty((0, 0), axes.dtype)
    scores: da.Array = of_parts.sum(axis=pixels).map_blocks(_divided, scale, axes.dtype, dtype=axes.dtype, meta=meta)
    return scores


def _scores_of_part(part: np.ndarray, axes: np.ndarray, mean: np.ndarray) -> np.ndarray:
    scores, exponent = _projected(part, axes.reshape(len(axes), -1), mean.ravel())
    found = in_intensities(scores, exponent, scores.dtype, "scores")
    return found.reshape(len(part), *(1,) * (part.ndim - 1), len(axes))


def _divided(scores: np.ndarray, scale: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return in_intensities(scores / scale, 0, dtype, "scores")


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
    block: np.ndarray,
    axes: np.ndarray,
    mean: np.ndarray,
    inner: np.ndarray | None = None,
    dtype: npt.DTypeLike = np.float64,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (b, k) of a block of images, and sums of squares (b,) of what the axes leave of them, both float64.

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
    scores, total = np.zeros((len(block), len(axes))), np.zeros(len(block))
    guess = _guessed_scores(block, axes, mean, dtype) if inner is None and mean.size >= _LARGE else None
    for rows, a, b, tile in _centred_tiles(block, axes, mean, dtype):
        own_axes = axes[:, a:b].astype(dtype, copy=False)
        if guess is not None:
            tile -= guess[rows] @ own_axes[: guess.shape[1]]
        scores[rows] += products_of_rows(tile, own_axes)
        total[rows] += _squares_of_rows(tile)
    along = scores if inner is None else np.linalg.solve(inner, scores.T).T
    squares = total - np.einsum("ij,ij->i", scores, along)
    if guess is not None:
        scores[:, : guess.shape[1]] += guess  # those of what it leaves, and its own; `along` are the same numbers
    faint = np.flatnonzero(~(squares > _FAINT * total))
    if len(faint):
        some = block if len(faint) == len(block) else block[faint]
        left = np.zeros(len(some))
        for rows, a, b, tile in _centred_tiles(some, axes, mean, dtype):
            tile -= along[faint[rows]].astype(dtype) @ axes[:, a:b].astype(dtype, copy=False)
            left[rows] += _squares_of_rows(tile)
        squares[faint] = left
    return scores, squares


def _guessed_scores(block: np.ndarray, axes: np.ndarray, mean: np.ndarray, dtype: npt.DTypeLike) -> np.ndarray:
    """Scores (b, up to 32) that fit pieces of the images best, by least squares; 0 where these tell little."""
    axes = axes[:_SAMPLED_AXES]
    starts = np.linspace(0, mean.size - 16, 64 + len(axes)).astype(int)
    at = (starts[:, np.newaxis] + np.arange(16)).ravel()
    centred = flat_rows([block])[0][:, at].astype(np.float64) - mean[at]
    left, sizes, right = np.linalg.svd(axes[:, at].astype(np.float64), full_matrices=False)
    # A piece that is like the whole has this share of the length of each axis. Much less of it would amplify noise.
    known = sizes > 0.1 * np.sqrt(len(at) / mean.size)
    found: np.ndarray = centred @ right[known].T / sizes[known] @ left[:, known].T
    return found.astype(dtype)


def _centred_tiles(
    block: np.ndarray, axes: np.ndarray, mean: np.ndarray, dtype: npt.DTypeLike
) -> Iterator[tuple[slice, int, int, np.ndarray]]:
    """Yield rows, first and last pixel, and centred images, tile by tile."""
    kind = np.dtype(dtype)
    for row, pieces in row_groups([block]):
        rows = slice(row, row + n_rows(pieces))
        width = min(_PIECE, wide_tile(max(n_rows(pieces), len(axes)), kind))  # stays in the cache
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
