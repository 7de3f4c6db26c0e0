"""Block Lanczos: products of images with a basis, and upkeep of the basis.

A basis W of rows grows by blocks V. The next block spans the part of VC outside of W, V being the last block (block
Lanczos with full orthogonalisation: Golub & Underwood 1977). Then the products of all earlier blocks with C lie in the
span of W, so that they need not be stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from .ranges import Run, at_once
from .tiles import (
    CACHED_BYTES,
    TERMS,
    n_rows,
    products_of_rows,
    row_groups,
    tile_width,
    tiles,
    times_roots,
    weights_of,
    wide_tile,
)
from .weighted import are_faster, weighted_sums_of_bytes

__all__ = [
    "ROUNDING",
    "Image",
    "Ritz",
    "add_products",
    "both_products",
    "combine_rows",
    "merge_both_products",
    "orthogonalise_rows",
    "orthonormalising_weights",
    "project",
    "ritz_pairs",
]

ROUNDING = 30  # a row shorter than this many times eps is rounding
_GROUP = 512  # images in a tile: few enough to stay in the cache between both products


class Image(NamedTuple):
    """Products of the images with a block V (m, p): its image under C = A'A, in the sense of linear algebra.

    Attributes
    ----------
    scores : list of ndarray (b_i, m)
        Y = AV', in the order of the images.
    products : ndarray of shape (m, p)
        Y'(X - shift). It is VC once Y'1 (mean - shift)' is subtracted.
    """

    scores: list[np.ndarray]
    products: np.ndarray


def both_products(
    blocks: Sequence[np.ndarray],
    start: int,
    V: np.ndarray,
    shift: np.ndarray,
    along: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    dtype: np.dtype,
    exponent: int = 0,
    run: Run = at_once,
) -> Image:
    """Scores Y = AV' of some images and the products Y'(X - shift), so that images are read once for both.

    Parameters
    ----------
    V : ndarray of shape (m, p)
    shift : ndarray of shape (p,), float64
        Near the mean.
    along : ndarray of shape (m,), float64
        V (mean - shift), which centres the scores.
    weights : ndarray of shape (n,), optional
        Of all images: the rows of A, and of X - shift, are times the roots of these.
    exponent : int
        The images, and with them `along` and both results, are in units of 2^exponent, see `scaling`. `shift` is not.
    run : callable
        Divides the pixels among threads.
    """
    products = np.zeros(V.shape, V.dtype)
    scores = []
    for row, pieces in row_groups(blocks, _GROUP):
        centred = dict[str, Any](shift=shift, dtype=dtype, exponent=exponent)
        Y = run(partial(project, V=V, **centred), np.add, pieces) - along
        own = weights_of(weights, start + row, pieces)
        times_roots(Y, own)
        scores.append(Y.astype(dtype))
        times_roots(Y, own)
        run(partial(add_products, scores=Y, out=products, **centred), lambda a, b: None, pieces)
    return Image(scores, products)


def merge_both_products(a: Image, b: Image, run: Run = at_once) -> Image:
    """Join two results of `both_products`."""
    products = np.empty_like(a.products)

    def add(parts: Sequence[np.ndarray], lo: int, hi: int) -> None:
        np.add(a.products[:, lo:hi], b.products[:, lo:hi], out=products[:, lo:hi])

    run(add, lambda a, b: None, [products])
    return Image(a.scores + b.scores, products)


def project(
    blocks: Sequence[np.ndarray],
    lo: int,
    hi: int,
    V: np.ndarray,
    shift: np.ndarray,
    dtype: np.dtype,
    exponent: int = 0,
) -> np.ndarray:
    """(X - shift) V' (n, m), float64, over the pixels `lo` to `hi`, in units of 2^exponent."""
    scores = np.zeros((n_rows(blocks), len(V)))
    for row, pieces in row_groups(blocks, _GROUP):
        part = scores[row : row + n_rows(pieces)]
        width = wide_tile(max(len(part), len(V), 1), dtype)
        for a, b, tile in tiles(pieces, shift, dtype, lo, hi, width, exponent):
            part += products_of_rows(tile, V[:, a:b].astype(dtype, copy=False))
    return scores


def add_products(
    blocks: Sequence[np.ndarray],
    lo: int,
    hi: int,
    scores: np.ndarray,
    shift: np.ndarray,
    dtype: np.dtype,
    out: np.ndarray,
    exponent: int = 0,
) -> None:
    """Add Y'(X - shift), X in units of 2^exponent, to the columns `lo` to `hi` of `out` (m, p); Y (n, m) the scores."""
    if are_faster(scores.shape[1], (n_rows(blocks), hi - lo), blocks[0].dtype, dtype):
        for row, pieces in row_groups(blocks):
            own = scores[row : row + n_rows(pieces)].T
            weighted_sums_of_bytes(pieces, lo, hi, own, shift[lo:hi], out[:, lo:hi])
        return
    weights = np.ascontiguousarray(scores.T, dtype=dtype)
    for row, pieces in row_groups(blocks, _GROUP):
        part = weights[:, row : row + n_rows(pieces)]
        width = wide_tile(sum(part.shape), dtype, CACHED_BYTES)
        for a, b, tile in tiles(pieces, shift, dtype, lo, hi, width, exponent):
            out[:, a:b] += part @ tile


def orthogonalise_rows(
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
    """Replace new rows F of a basis by ``turn (F - along W)``, in place, over the pixels `lo` to `hi`.

    Parameters
    ----------
    buffers : [ndarray]
        One array (..., p): `n_old` rows W, then `n_new` rows F, then rows that are not used.
    along : ndarray of shape (n_new, n_old)
        Multiples of the old rows to subtract. If W is orthonormal, FW' makes the new rows orthogonal to it.
    turn : ndarray of shape (n, n_new), optional
        Combines the new rows, e.g. into orthonormal ones; n may be less than `n_new`. Identity by default.
    offset : (u, v), ndarrays of shape (n_new,) and (p,), optional
        uv' is subtracted from F first.

    Returns
    -------
    inner : ndarray of shape (n_old + n, n), float64
        Inner products of all rows with the new ones, as they are stored now.
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
        tile[n_old:] = stored  # as rounded in storage: `inner` must be that of the stored rows
        inner += tile @ tile[n_old:].T
    return inner


def combine_rows(
    buffers: Sequence[np.ndarray], lo: int, hi: int, weights: np.ndarray, dtype: np.dtype, out: np.ndarray
) -> None:
    """Write weights (m, r) times the first r rows of a buffer to the first m rows of `out`, for pixels `lo` to `hi`.

    `out` may be the buffer itself.
    """
    (basis,) = buffers
    weights = weights.astype(dtype)
    width = tile_width(weights.shape[1], dtype)
    for a in range(lo, hi, width):
        b = min(a + width, hi)
        out[: len(weights), a:b] = weights @ basis[: weights.shape[1], a:b].astype(dtype, copy=False)


class Ritz(NamedTuple):
    """Approximate eigenvalues of C from a basis W, (r,) descending, and coefficients (r, r) of their vectors.

    The j-th Ritz vector is column j of the coefficients, transposed, times W.
    """

    values: np.ndarray
    coefficients: np.ndarray


def ritz_pairs(inner: np.ndarray, products: np.ndarray) -> Ritz:
    """Solve WCW' x = value WW' x, from `inner` = WW' (r, r) and `products` = WCW' (r, r).

    WW' corrects for a basis that is stored in float32, and therefore not orthonormal to more than seven digits.
    """
    values, vectors = scipy.linalg.eigh(products, inner, check_finite=False)
    return Ritz(np.maximum(values[::-1], 0), vectors[:, ::-1])


def orthonormalising_weights(inner: np.ndarray, scale: np.ndarray, eps: float) -> np.ndarray:
    """Weights (m', m) that turn m rows into m' <= m orthonormal ones: Cholesky factorisation with pivots.

    A row is dropped as rounding if less than 30 `eps` times its `scale` lies outside the span of the other rows. It is
    dropped as dependent if the square of that part is less than 1e-10 of its own square. Rows that are nearly
    orthogonal keep their directions and their order.

    Parameters
    ----------
    inner : ndarray of shape (m, m)
        Inner products of the rows.
    scale : ndarray of shape (m,)
        Size of the numbers that each row was computed from.
    eps : float
        That of the dtype in which the rows were computed.
    """
    # Float32 sums are symmetric but for rounding. Pivoting mixes both halves, so they must be equal.
    inner = (inner + inner.T) / 2
    norms, least = np.sqrt(np.maximum(np.diag(inner), 0)), ROUNDING * eps * scale
    use = np.flatnonzero(norms > least)
    turn = np.zeros((len(use), len(inner)))
    if not len(use):
        return turn
    unit = inner[np.ix_(use, use)] / np.multiply.outer(norms[use], norms[use])
    factor, pivots, rank, _ = scipy.linalg.lapack.dpstrf(unit, tol=1e-10, lower=1)
    order = pivots[:rank] - 1
    # A row that is large itself can still be rounding outside the span of the rows before it.
    order = np.sort(order[np.diag(factor)[:rank] * norms[use[order]] > least[use[order]]])
    factor, rank = scipy.linalg.cholesky(unit[np.ix_(order, order)], lower=True), len(order)
    inverse = scipy.linalg.solve_triangular(factor, np.eye(rank), lower=True)
    turn[:rank, use[order]] = inverse / norms[use[order]]
    return turn[:rank]
