"""Inner products of images (Gram matrix) and of pixels (scatter matrix), and their eigenvectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import scipy.linalg

from .integers import products_of_images, products_of_pixels, products_of_two
from .moments import merge_means, moments
from .scaling import exponent_of
from .tiles import (
    CACHED_BYTES,
    column_means,
    column_squares,
    heaviest_row,
    n_rows,
    products_within,
    row_groups,
    row_tiles,
    tile_width,
    tiles,
    times_roots,
    weights_of,
    wide_tile,
)

__all__ = [
    "Scatter",
    "centred_gram",
    "cross_gram",
    "double_centred",
    "eigh_descending",
    "exact_scatter",
    "exact_strips",
    "exactly_centred",
    "merge_products",
    "merge_scatter",
    "merge_strips",
    "merge_sums",
    "scatter",
    "shifted_gram",
    "weighted_gram",
    "weighted_sums",
]


_MOST_EXACT = 2**23  # images n of which 64 bits hold n^2 255^2


def centred_gram(
    blocks: Sequence[np.ndarray],
    lo: int,
    hi: int,
    dtype: np.dtype,
    known: np.ndarray | None = None,
    exponent: int = 0,
    weights: np.ndarray | None = None,
    pixels: np.ndarray | None = None,
) -> np.ndarray:
    """Gram matrix AA' (n, n), float64, of the centred images, over the pixels `lo` to `hi`.

    `blocks` hold all images, so that each tile is centred before its product. To centre a Gram matrix in float32
    afterwards would lose digits if the images drift.

    Parameters
    ----------
    known : ndarray of shape (n, r), optional
        Orthonormal eigenvectors E of AA'. A becomes A - EE'A first, so that small eigenvalues do not drown in the
        rounding of the large ones.
    exponent : int
        Matrix and scatter are in squares of the units 2^exponent, see `scaling`; the mean is not.
    weights : ndarray of shape (n,), optional
        How often each image counts: rows of A are times the root of it, after the weighted mean is subtracted.
    pixels : ndarray of shape (2, p), float64, optional
        Where the mean image and the sums of squares of A are written, in the columns `lo` to `hi`.
    """
    n, shift = n_rows(blocks), heaviest_row(blocks, weights)
    gram, product = np.zeros((n, n)), np.empty((n, n), dtype)
    for a, b, tile in tiles(blocks, shift, dtype, lo, hi, wide_tile(n, dtype, CACHED_BYTES), exponent):
        offset = column_means(tile, weights)
        tile -= offset.astype(dtype)
        times_roots(tile, weights)
        if pixels is not None:
            pixels[:, a:b] = shift[a:b] + np.ldexp(offset, exponent), column_squares(tile)
        if known is not None:
            tile -= known @ (known.T @ tile)
        gram += products_within(tile, product)
    return gram


def gram_of_regions(
    regions: Sequence[Sequence[np.ndarray]],
    start: int,
    weights: np.ndarray | None = None,
    *,
    dtype: np.dtype | None,
) -> tuple[np.ndarray, int]:
    """Inner products (n, n) of all images over some regions, each a list of blocks (b_i, *region), and their units.

    They are of the centred images, in `dtype`, in squares of the units 2^exponent; without a `dtype` exact ones.
    """
    return reduce(merge_scaled, (_gram_of_region(blocks, dtype, weights) for blocks in regions))


def _gram_of_region(
    blocks: Sequence[np.ndarray], dtype: np.dtype | None, weights: np.ndarray | None
) -> tuple[np.ndarray, int]:
    p = blocks[0][0].size
    if dtype is None:
        return products_of_images(blocks, 0, p), 0
    exponent = exponent_of(blocks)
    return centred_gram(blocks, 0, p, dtype, exponent=exponent, weights=weights), exponent


def merge_scaled(a: tuple[np.ndarray, int], b: tuple[np.ndarray, int]) -> tuple[np.ndarray, int]:
    """Join two results of `gram_of_regions`, in the larger of their units."""
    exponent = max(a[1], b[1])
    (x, one), (y, other) = a, b
    x = np.ldexp(x, 2 * (one - exponent)) if one != exponent else x
    y = np.ldexp(y, 2 * (other - exponent)) if other != exponent else y
    return x + y, exponent


def shifted_gram(
    blocks: Sequence[np.ndarray], lo: int, hi: int, shift: np.ndarray, dtype: np.dtype, exponent: int = 0
) -> np.ndarray:
    """Inner products (n, n), float64, of the rows of (X - shift) / 2^exponent, over the pixels `lo` to `hi`."""
    gram = np.zeros((n_rows(blocks),) * 2)
    for _, _, tile in tiles(blocks, shift, dtype, lo, hi, exponent=exponent):
        gram += tile @ tile.T
    return gram


def merge_products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Join two Gram matrices from two ranges of pixels."""
    gram: np.ndarray = a + b
    return gram


def cross_gram(
    blocks: Sequence[np.ndarray],
    start: int,
    panel: Sequence[np.ndarray],
    shift: np.ndarray,
    dtype: np.dtype,
    exponent: int = 0,
) -> list[np.ndarray]:
    """Inner products of each image of `panel` with each image of `blocks`, all less `shift`.

    Parameters
    ----------
    panel : sequence of ndarray (b_i, *image_shape)
        Raw blocks that stay in memory during a pass.
    exponent : int
        Of the units of the panel, at least that of the shift. `blocks` have units of their own. The results are in
        squares of the units of the panel.

    Returns
    -------
    strips : list of one ndarray (n_panel, n_blocks), float64
    """
    strip, own = np.zeros((n_rows(panel), n_rows(blocks))), max(exponent_of(blocks), exponent)
    width = tile_width(sum(strip.shape), dtype)
    walks = (tiles(x, shift, dtype, width=width, exponent=e) for x, e in ((panel, exponent), (blocks, own)))
    for (_, _, left), (_, _, right) in zip(*walks, strict=True):
        strip += left @ right.T
    return [np.ldexp(strip, own - exponent)]


def exact_strips(blocks: Sequence[np.ndarray], start: int, panel: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return what `cross_gram` does for 8-bit images, exact and without a shift: a strip of int64."""
    return [products_of_two(panel, blocks)]


def merge_strips(a: list[np.ndarray], b: list[np.ndarray]) -> list[np.ndarray]:
    """Join two results of `cross_gram`, or of `exact_strips`, in the order of the images."""
    return a + b


def double_centred(gram: np.ndarray, roots: np.ndarray | None = None) -> np.ndarray:
    """Gram matrix of the centred images from that of shifted images, in place: HGH with H = I - 11'/n.

    If images are times the `roots` of their weights, H = I - uu' with the unit vector u along the roots.
    """
    if roots is not None:
        unit = roots / np.linalg.norm(roots)
        row = gram @ unit
        row -= unit * (unit @ row) / 2
        for i, (u, r) in enumerate(zip(unit, row, strict=True)):
            gram[i] -= u * row + r * unit
        return gram
    row = gram.mean(axis=0)
    gram -= row
    gram -= row[:, None]
    gram += row.mean()
    return gram


def exactly_centred(gram: np.ndarray, roots: np.ndarray | None = None) -> np.ndarray:
    """HGH, float64, of the int64 inner products of integers, which are overwritten; with `roots`, of weighted ones.

    The integers nearest to the means are subtracted first. That is exact, and what float64 then rounds is as small as
    the result.
    """
    counts = np.full(len(gram), 1 / len(gram)) if roots is None else (roots / np.linalg.norm(roots)) ** 2
    means = np.einsum("ij,j->i", gram, counts) if roots is not None else gram.mean(axis=1)
    near = np.rint(means - counts @ means / 2).astype(np.int64)
    gram -= near
    gram -= near[:, None]
    return double_centred(weighted_gram(gram.astype(np.float64), roots), roots)


def weighted_gram(gram: np.ndarray, roots: np.ndarray | None) -> np.ndarray:
    """Inner products of images times the roots of their weights, in place; without roots as they are."""
    if roots is not None:
        gram *= roots
        gram *= roots[:, None]
    return gram


class Scatter(NamedTuple):
    """Scatter matrix A'A of `n` images about their mean.

    Attributes
    ----------
    n : int or float
        Number of images, or the sum of their weights.
    mean, rest : ndarray of shape (p,), float64
        The mean in two parts, as in `Moments`.
    matrix : ndarray of shape (p, p), float64
        In squares of the units 2^exponent.
    exponent : int
        See `scaling`.
    """

    n: float
    mean: np.ndarray
    rest: np.ndarray
    matrix: np.ndarray
    exponent: int = 0

    def in_units(self, exponent: int) -> Scatter:
        """Return the same in units of 2^exponent."""
        up = self.exponent - exponent
        return self._replace(matrix=np.ldexp(self.matrix, 2 * up), exponent=exponent) if up else self


@np.errstate(over="ignore", invalid="ignore")  # the solver finds what is not finite
def scatter(
    blocks: Sequence[np.ndarray],
    start: int,
    dtype: np.dtype,
    weights: np.ndarray | None = None,
    known: np.ndarray | None = None,
    centre: np.ndarray | None = None,
) -> Scatter:
    """Scatter matrix A'A of some images about their own mean.

    Parameters
    ----------
    weights : ndarray of shape (n_images,), optional
        How often each image of the whole stack counts. The first one in `blocks` has the position `start`.
    known : ndarray of shape (r, p), optional
        Orthonormal components W. Each row x becomes x - xW'W first, so that small eigenvalues do not drown in the
        rounding of the large ones. The mean and the matrix that are returned are those of these rows.
    centre : ndarray of shape (p,), optional
        Needed with `known`: subtracted from every image before that.
    """
    own = weights_of(weights, start, blocks)
    n, mean, rest, _ = moments(blocks, weights=own)
    shift = (mean if centre is None else centre).astype(dtype).astype(np.float64)
    offset, exponent = (mean - shift) + rest, exponent_of(blocks)
    matrix, product = np.zeros((shift.size, shift.size)), np.empty((shift.size, shift.size), dtype)
    row = 0
    for tile in row_tiles(blocks, shift, dtype, exponent):
        times_roots(tile, None if own is None else own[row : row + len(tile)])
        row += len(tile)
        if known is not None:
            tile -= (tile @ known.T) @ known
        matrix += np.matmul(tile.T, tile, out=product)
    if known is not None:
        offset -= (offset @ known.T) @ known
        mean, rest = offset, np.zeros_like(offset)
    offset = np.ldexp(offset, -exponent)
    matrix -= np.multiply.outer(offset, n * offset)
    return Scatter(n, mean, rest, matrix, exponent)


def exact_scatter(blocks: Sequence[np.ndarray], start: int) -> Scatter:
    """Scatter matrix of some 8-bit images about their mean, rounded once."""
    return reduce(merge_scatter, (_exact_scatter(pieces) for _, pieces in row_groups(blocks, _MOST_EXACT)))


def _exact_scatter(blocks: Sequence[np.ndarray]) -> Scatter:
    n = n_rows(blocks)
    matrix, sums = products_of_pixels(blocks)
    for i, s in enumerate(sums):  # a row of n X'X - ss', which are integers
        matrix[i] *= n
        matrix[i] -= s * sums
    return Scatter(n, sums / n, np.zeros(len(sums)), matrix / n)


@np.errstate(invalid="ignore")
def merge_scatter(a: Scatter, b: Scatter) -> Scatter:
    """Join the scatter matrices of two sets of images (Chan, Golub & LeVeque 1983, matrix form of eq. 2.1)."""
    n, exponent = a.n + b.n, max(a.exponent, b.exponent)
    a, b = a.in_units(exponent), b.in_units(exponent)
    step, mean, rest = merge_means(a, b)
    step = np.ldexp(step, -exponent)
    matrix = a.matrix + b.matrix
    matrix += np.multiply.outer(step, step * (a.n * b.n / n))
    return Scatter(n, mean, rest, matrix, exponent)


def weighted_sums(
    blocks: Sequence[np.ndarray],
    start: int,
    weights: np.ndarray,
    shift: np.ndarray,
    counts: np.ndarray | None = None,
    *,
    dtype: np.dtype,
    exponent: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted sums, the plain sum, and the sum of squares of the rows of X - shift, in units of 2^exponent.

    With `counts` (n,), each row goes that often into the plain sum and that of squares.

    Parameters
    ----------
    weights : ndarray of shape (k, n)
        One column for each image of the whole stack. The column of the first image in `blocks` is `start`.

    Returns
    -------
    sums : ndarray of shape (k, p), dtype
    total, squares : ndarray of shape (p,), float64
    """
    own = weights[:, start : start + n_rows(blocks)].astype(dtype)
    sums, (total, squares) = np.zeros((len(own), shift.size), dtype), np.zeros((2, shift.size))
    for row, pieces in row_groups(blocks):
        part = own[:, row : row + n_rows(pieces)]
        counted = weights_of(counts, start + row, pieces)
        for a, b, tile in tiles(pieces, shift, dtype if counted is None else np.dtype(np.float64), exponent=exponent):
            sums[:, a:b] += part @ tile
            if counted is None:
                total[a:b] += tile.sum(axis=0, dtype=np.float64)
            else:  # in float64: a heavy image that is far from the shift takes as many digits as it is heavy
                total[a:b] += counted @ tile
                times_roots(tile, counted)
            squares[a:b] += np.einsum("ij,ij->j", tile, tile, dtype=np.float64)  # the shift may be far from the mean
    return sums, total, squares


def merge_sums(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Join two results of `weighted_sums` from two sets of images."""
    return tuple(one + other for one, other in zip(a, b, strict=True))


def eigh_descending(matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest eigenvalues (k,), clipped at 0, and their eigenvectors (n, k) in columns. The matrix is overwritten."""
    n = len(matrix)
    if k < n:
        values, vectors = scipy.linalg.eigh(matrix, check_finite=False, subset_by_index=(n - k, n - 1))
    if k == n or len(values) < k:  # of many equal eigenvalues, LAPACK can lose some of a subset
        values, vectors = scipy.linalg.eigh(matrix, overwrite_a=True, check_finite=False)
        values, vectors = values[n - k :], vectors[:, n - k :]
    return np.maximum(values[::-1], 0), vectors[:, ::-1]
