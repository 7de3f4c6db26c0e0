"""One read of a stack turned into both products with a basis, and the care of that basis.

C = A'A, A the centred images. A basis W (rows) grows by blocks: the next block is what C times the last one has
outside of W (block Lanczos with full orthogonalisation: Golub & Underwood 1977), so that only the last block has
a residual and no history of C W is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg

from .tiles import TERMS, n_rows, row_groups, tile_width, tiles

__all__ = [
    "Image",
    "Ritz",
    "combine",
    "gather",
    "independent",
    "merge_images",
    "project",
    "ritz",
    "stream",
    "sweep",
]

_GROUP = 512  # images walked through together: their tiles stay in cache


class Image(NamedTuple):
    """What a block V (m, p) becomes in one read.

    Attributes
    ----------
    scores : list of ndarray (b_i, m)
        Y = A V', in the order of the images.
    products : ndarray of shape (m, p)
        Y'(X - shift); the mean is in it still.
    """

    scores: list[np.ndarray]
    products: np.ndarray


def stream(
    blocks: Sequence[np.ndarray], start: int, V: np.ndarray, shift: np.ndarray, along: np.ndarray, dtype: np.dtype
) -> Image:
    """Both products of some images with a block V, from one decode.

    Parameters
    ----------
    V : ndarray of shape (m, p)
    shift : ndarray of shape (p,), float64
        Near the mean, and such that `dtype` holds it and shifted integers exactly.
    along : ndarray of shape (m,), float64
        V times what the mean has beyond the shift.
    dtype : dtype
        Of the products.
    """
    products = np.zeros(V.shape, V.dtype)
    scores = []
    for _, pieces in row_groups(blocks, _GROUP):
        Y = project(pieces, 0, shift.size, V, shift, dtype) - along
        scores.append(Y.astype(dtype))
        gather(pieces, 0, shift.size, Y, shift, dtype, products)
    return Image(scores, products)


def merge_images(a: Image, b: Image) -> Image:
    """Join `stream` of two sets of images."""
    return Image(a.scores + b.scores, a.products + b.products)


def project(
    blocks: Sequence[np.ndarray], lo: int, hi: int, V: np.ndarray, shift: np.ndarray, dtype: np.dtype
) -> np.ndarray:
    """(X - shift) V' (n, m) over the pixels `lo` to `hi`; products in `dtype`, sums between tiles in float64."""
    scores = np.zeros((n_rows(blocks), len(V)))
    for row, pieces in row_groups(blocks, _GROUP):
        part = scores[row : row + n_rows(pieces)]
        for a, b, tile in tiles(pieces, shift, dtype, lo, hi):
            part += tile @ V[:, a:b].T.astype(dtype, copy=False)
    return scores


def gather(
    blocks: Sequence[np.ndarray],
    lo: int,
    hi: int,
    scores: np.ndarray,
    shift: np.ndarray,
    dtype: np.dtype,
    out: np.ndarray,
) -> None:
    """Add Y'(X - shift) to the columns `lo` to `hi` of `out` (m, p)."""
    weights = np.ascontiguousarray(scores.T, dtype=dtype)
    for row, pieces in row_groups(blocks, _GROUP):
        part = weights[:, row : row + n_rows(pieces)]
        for a, b, tile in tiles(pieces, shift, dtype, lo, hi):
            out[:, a:b] += part @ tile


def sweep(
    buffers: Sequence[np.ndarray],
    lo: int,
    hi: int,
    *,
    n_old: int,
    n_new: int,
    along: np.ndarray,
    turn: np.ndarray | None = None,
    offset: tuple[np.ndarray, np.ndarray] | None = None,
    dtype: np.dtype,
) -> np.ndarray:
    """Orthogonalise new rows of a basis against the old ones, in place, over the pixels `lo` to `hi`.

    Parameters
    ----------
    buffers : [ndarray]
        One array: `n_old` rows W, then `n_new` rows F, then room.
    along : ndarray of shape (n_new, n_old)
        F becomes ``turn (F - along W)``, which may have fewer rows.
    turn : ndarray of shape (n, n_new), optional
    offset : (ndarray (n_new,), ndarray (p,)), optional
        A product of rank one to take out of F first.

    Returns
    -------
    inner : ndarray of shape (n_old + n, n), float64
        Inner products of all rows with the new ones as they are now.
    """
    (basis,) = buffers
    n = n_new if turn is None else len(turn)
    inner = np.zeros((n_old + n, n))
    width = min(TERMS, tile_width(n_old + n_new, dtype))
    along = along.astype(dtype)
    turn = None if turn is None else turn.astype(dtype)
    for a in range(lo, hi, width):
        b = min(a + width, hi)
        tile = basis[: n_old + n_new, a:b].astype(dtype)
        old, new = tile[:n_old], tile[n_old:]
        if offset is not None:
            new -= np.multiply.outer(offset[0], offset[1][a:b]).astype(dtype)
        if n_old:
            new -= along @ old
        if turn is not None:
            tile[n_old : n_old + n] = turn @ new
        tile = tile[: n_old + n]
        stored = basis[n_old : n_old + n, a:b]
        stored[:] = tile[n_old:]
        tile[n_old:] = stored  # inner products of what was stored, not of what it was rounded from
        inner += tile @ tile[n_old:].T
    return inner


def combine(
    buffers: Sequence[np.ndarray], lo: int, hi: int, weights: np.ndarray, dtype: np.dtype, out: np.ndarray
) -> None:
    """Weighted sums of the first rows of a buffer, over the pixels `lo` to `hi`; `out` may be the buffer itself."""
    (basis,) = buffers
    weights = weights.astype(dtype)
    width = tile_width(weights.shape[1], dtype)
    for a in range(lo, hi, width):
        b = min(a + width, hi)
        out[: len(weights), a:b] = weights @ basis[: weights.shape[1], a:b].astype(dtype, copy=False)


class Ritz(NamedTuple):
    """Eigenvalues of C within the span of a basis, descending, and coefficients of their vectors in columns."""

    values: np.ndarray
    coefficients: np.ndarray


def ritz(inner: np.ndarray, products: np.ndarray) -> Ritz:
    """Ritz pairs from the inner products W W' (r, r) of a basis and those W C W' of its image.

    The basis need not be orthonormal to more digits than it is stored with.
    """
    values, vectors = scipy.linalg.eigh(products, inner, check_finite=False)
    return Ritz(np.maximum(values[::-1], 0), vectors[:, ::-1])


def independent(inner: np.ndarray, scale: np.ndarray, eps: float) -> np.ndarray:
    """Matrix (n, m) that turns rows of inner products `inner` (m, m) into orthonormal ones: Cholesky with pivots.

    Rows are rounding, and go, where less than 30 `eps` of their `scale` (m,) is outside of the span of the others, and
    so does what lies in that span but for 1e-10 of its square. Near-orthogonal rows keep their directions and order.
    """
    inner = (inner + inner.T) / 2  # sums of float32 are not symmetric to the last digit, and pivots mix both halves
    norms, least = np.sqrt(np.maximum(np.diag(inner), 0)), 30 * eps * scale
    use = np.flatnonzero(norms > least)
    turn = np.zeros((len(use), len(inner)))
    if not len(use):
        return turn
    unit = inner[np.ix_(use, use)] / np.multiply.outer(norms[use], norms[use])
    factor, pivots, rank, _ = scipy.linalg.lapack.dpstrf(unit, tol=1e-10, lower=1)
    order = pivots[:rank] - 1
    # However large a row is, what it has beside the earlier ones can be its rounding.
    order = order[np.diag(factor)[:rank] * norms[use[order]] > least[use[order]]]
    factor, rank = scipy.linalg.cholesky(unit[np.ix_(order, order)], lower=True), len(order)
    inverse = scipy.linalg.solve_triangular(factor, np.eye(rank), lower=True)
    turn[:rank, use[order]] = inverse / norms[use[order]]
    return turn[:rank]
