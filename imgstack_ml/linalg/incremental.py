"""Summaries of images that were read once: leading singular values and vectors, with a bound of what is missing.

This is the sequential Karhunen-Loeve transform with mean update (Ross et al. 2008, "Incremental learning for robust
visual tracking", sec. 2.1), with more singular vectors than components wanted. Here, any two summaries can be merged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial, reduce
from typing import NamedTuple

import numpy as np

from .gram import exactly_centred
from .integers import are_fast, products_of_images
from .moments import exact_sum, merge_means
from .ranges import Run, at_once
from .scaling import exponent_of
from .tiles import (
    column_means,
    column_squares,
    heaviest_row,
    n_rows,
    row_groups,
    tile_width,
    tiles,
    times_roots,
    weights_of,
)
from .weighted import are_faster, weighted_sums_of_bytes

__all__ = ["Summary", "group_size", "merge_summaries", "random_weights", "summarise"]

# Images whose inner products are formed at a time, at least: more where products of bytes are cheaper than cuts.
_GROUP, _GROUP_OF_BYTES = 128, 384
_ROUNDING = 4  # roundings of a cut, in units of eps: weights are rounded, and not quite orthonormal; so are products
_DRAWS = 1024  # images that share a generator of random weights


class Summary(NamedTuple):
    """What is kept of some images.

    Attributes
    ----------
    n : float
        Number of images, or the sum of their weights.
    mean, rest : ndarray of shape (p,), float64
        The mean in two parts, as in `Moments`.
    total : float
        T, the sum of squares of the centred images A.
    rows : ndarray of shape (r, p)
        B: the leading right singular vectors of A, each times its singular value, descending.
    lost : float
        A bound of what B lacks: ``B'B <= A'A <= B'B + lost * I`` up to `rounding`.
    draws : ndarray of shape (q, p)
        Random sums ``Omega A`` of the centred images. Every direction contributes to them, even one that B lacks
        because it was cut off in each group of images.
    weights : ndarray of shape (q,), float64
        Sums of the rows of Omega, times the roots of the weights of images, if they have some. When the mean changes,
        `draws` change by multiples of them.
    squares : ndarray of shape (p,), float64
        Sums of squares of the columns of A: of each pixel about its mean. Empty where they are not known.
    rounding : float
        ``B'B - rounding * I <= A'A <= B'B + (lost + rounding) * I``. Each cut adds a few eps times the largest
        eigenvalue at that time: after hundreds of merges, that is more than any constant number of eps.
    exponent : int
        All but the mean is in units of 2^exponent, see `scaling`: `total`, `lost`, `squares` and `rounding` in squares
        of them.
    """

    n: float
    mean: np.ndarray
    rest: np.ndarray
    total: float
    rows: np.ndarray
    lost: float
    draws: np.ndarray
    weights: np.ndarray
    squares: np.ndarray
    rounding: float = 0.0
    exponent: int = 0

    def in_units(self, exponent: int) -> Summary:
        """Return the same in units of 2^exponent."""
        up = self.exponent - exponent
        if not up:
            return self
        rows, draws, squares = np.ldexp(self.rows, up), np.ldexp(self.draws, up), np.ldexp(self.squares, 2 * up)
        total, lost, rounding = np.ldexp([self.total, self.lost, self.rounding], 2 * up).tolist()
        scaled = self._replace(total=total, rows=rows, lost=lost, draws=draws, squares=squares, rounding=rounding)
        return scaled._replace(exponent=exponent)

    def in_precision(self, dtype: np.dtype) -> Summary:
        """Return the same with rows in `dtype`."""
        return self._replace(rows=self.rows.astype(dtype, copy=False), draws=self.draws.astype(dtype, copy=False))

    @property
    def eps(self) -> float:
        """Relative rounding error of the products from which the summary was made."""
        return float(np.finfo(self.rows.dtype).eps)

    @property
    def singular_values(self) -> np.ndarray:
        """Norms of the rows (r,), float64: lower bounds of the singular values of A."""
        norms: np.ndarray = np.sqrt(np.einsum("ij,ij->i", self.rows, self.rows, dtype=np.float64))
        return norms


def group_size(size: int, in_bytes: bool) -> int:
    """Images that are summarised at a time: at least three times as many as the singular vectors that are kept."""
    return max(_GROUP_OF_BYTES if in_bytes else _GROUP, 3 * size)


def summarise(
    blocks: Sequence[np.ndarray],
    start: int,
    weights: np.ndarray | None = None,
    *,
    size: int,
    n_draws: int,
    seed: int,
    dtype: np.dtype,
    run: Run = at_once,
) -> Summary:
    """Summary of consecutive images.

    Parameters
    ----------
    weights : ndarray of shape (n,), optional
        How often each image of the whole stack counts: rows of A are times the root of it.
    size : int
        Singular vectors to keep, at most.
    n_draws : int
        Random sums to keep.
    seed : int
        Seed of their weights. They depend on the position of an image in the stack, not on the blocks.
    run : callable
        Divides the pixels among threads.
    """
    raw = blocks[0].dtype  # on a machine without products of bytes, too: the answer is the same on all
    groups = row_groups(blocks, group_size(size, in_bytes=raw.itemsize == 1))
    in_bytes = weights is None and dtype == np.float32 and are_fast(raw)

    def summary_of(row: int, pieces: list[np.ndarray]) -> Summary:
        omega = random_weights(seed, n_draws, start + row, n_rows(pieces))
        return _summarise(pieces, omega, weights_of(weights, start + row, pieces), size, dtype, in_bytes, run)

    return reduce(partial(merge_summaries, size=size), (summary_of(*group) for group in groups))


def _summarise(
    blocks: Sequence[np.ndarray],
    omega: np.ndarray,
    weights: np.ndarray | None,
    size: int,
    dtype: np.dtype,
    in_bytes: bool,
    run: Run,
) -> Summary:
    """Summarise a few hundred images with the eigenvectors of their Gram matrix.

    Images are cast to `dtype` tile by tile, so that no cast copy of all of them is held.
    """
    n = float(n_rows(blocks))
    exponent, pixels = exponent_of(blocks), np.empty((3, blocks[0][0].size))
    if in_bytes:
        gram = exactly_centred(run(partial(products_of_images, pixels=pixels[:2]), np.add, blocks))
        pixels[2], total = 0, float(np.trace(gram))
    else:
        inner = partial(_inner, dtype=dtype, exponent=exponent, weights=weights, pixels=pixels)
        gram, total = run(inner, lambda a, b: (a[0] + b[0], a[1] + b[1]), blocks)
    mean, squares, rest = pixels
    vectors, lost = _leading(gram, size)
    factors = np.vstack([vectors.T, omega])
    if weights is not None:
        n, factors = float(weights.sum()), factors * np.sqrt(weights)
    rows = np.zeros((len(factors), mean.size), dtype)
    run(
        partial(_centred_sums, weights=factors, mean=mean, rest=rest, exponent=exponent, out=rows),
        lambda a, b: None,
        blocks,
    )
    n_kept = vectors.shape[1]
    rounding, sums = _rounding(rows[:n_kept]), factors[n_kept:].sum(axis=1)
    return Summary(n, mean, rest, total, rows[:n_kept], lost, rows[n_kept:], sums, squares, rounding, exponent)


def _centred_sums(
    blocks: Sequence[np.ndarray],
    lo: int,
    hi: int,
    weights: np.ndarray,
    mean: np.ndarray,
    rest: np.ndarray,
    exponent: int,
    out: np.ndarray,
) -> None:
    """Write weighted sums of centred images, in units of 2^exponent, to the columns `lo` to `hi` of `out` (m, p)."""
    dtype = out.dtype
    if are_faster(len(weights), (n_rows(blocks), mean.size), blocks[0].dtype, dtype):
        weighted_sums_of_bytes(blocks, lo, hi, weights, mean[lo:hi], out[:, lo:hi])
        return
    weights = weights.astype(dtype)
    near = mean.astype(dtype).astype(np.float64)  # what the tiles will subtract
    all_of_row, beside = weights.sum(axis=1, dtype=np.float64), np.ldexp((mean - near) + rest, -exponent)
    for a, b, tile in tiles(blocks, near, dtype, lo, hi, exponent=exponent):
        np.matmul(weights, tile, out=out[:, a:b])
        out[:, a:b] -= np.multiply.outer(all_of_row, beside[a:b])


def _inner(
    blocks: Sequence[np.ndarray],
    lo: int,
    hi: int,
    dtype: np.dtype,
    exponent: int,
    weights: np.ndarray | None,
    pixels: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Inner products of the centred images (n, n) over some pixels, and the sum of squares.

    Written to these columns of `pixels` (3, p) are the mean, the sums of squares about it, and the mean's second part.
    """
    n, shift = n_rows(blocks), heaviest_row(blocks, weights)
    gram, total = np.zeros((n, n)), 0.0
    product, inexact = np.empty((n, n), dtype), dtype == np.float32 and any(b.dtype.kind == "f" for b in blocks)
    for a, b, tile in tiles(blocks, shift, dtype, lo, hi, exponent=exponent):
        offsets = column_means(tile, weights)
        middle = offsets.astype(dtype)
        tile -= middle
        if inexact:  # float32 sums are off by a few eps; those of what is left, which is near zero, are not
            left = column_means(tile, weights)
            offsets = middle + left
            tile -= left.astype(dtype)
        times_roots(tile, weights)
        gram += np.matmul(tile, tile.T, out=product)  # a product in `dtype`, the sum in float64
        total += sum_of_squares(tile)  # more exact than the trace of the Gram matrix
        mean, rest = exact_sum(shift[a:b].astype(np.float64), np.ldexp(offsets, exponent))
        pixels[:, a:b] = mean, column_squares(tile), rest
    return gram, total


def merge_summaries(*summaries: Summary, size: int, run: Run = at_once) -> Summary:
    """Join the summaries of two or more sets of images.

    The rows of all are stacked, with one more row for each set after the first: the difference of its mean from that of
    the n_a images before, times sqrt(n_a n_b / n). Up to what earlier cuts lost, the scatter matrix of this stack is
    that of all images. The result keeps the leading `size` singular vectors of the stack, times their singular values.
    """
    exponent = max(one.exponent for one in summaries)
    # In the coarsest of all precisions, which `eps` then tells.
    dtype = max((one.rows.dtype for one in summaries), key=lambda one: np.finfo(one).eps)
    joined, *others = (one.in_units(exponent).in_precision(dtype) for one in summaries)
    parts = [joined.rows]
    for other in others:
        joined, row = _joined_but_rows(joined, other)
        parts += [other.rows, row.astype(dtype)[None]]
    vectors, lost = _leading(run(_inner_of_stacked, np.add, parts), size)
    weights = np.ascontiguousarray(vectors.T, dtype=dtype)
    rows = np.empty((len(weights), joined.mean.size), dtype)
    run(partial(_sums_of_stacked, weights=weights, out=rows), lambda a, b: None, parts)
    return joined._replace(rows=rows, lost=joined.lost + lost, rounding=joined.rounding + _rounding(rows))


def _joined_but_rows(a: Summary, b: Summary) -> tuple[Summary, np.ndarray]:
    """Join two summaries in the same units, with the rows of the first; and make the row (p,) of their means."""
    n = a.n + b.n
    step, mean, rest = merge_means(a, b)
    step = np.ldexp(step, -a.exponent)
    total = a.total + b.total + float(step @ step) * (a.n * b.n / n)
    # The random sums are of images minus their old means. They must be of images minus the new mean.
    turn = (a.weights * (b.n / n) - b.weights * (a.n / n)).astype(a.draws.dtype)
    draws = a.draws + b.draws
    for i, factor in enumerate(turn):
        draws[i] -= factor * step
    weights, lost, rounding = a.weights + b.weights, a.lost + b.lost, a.rounding + b.rounding
    known = len(a.squares) and len(b.squares)
    squares = a.squares + b.squares + step * step * (a.n * b.n / n) if known else np.empty(0)
    joined = Summary(n, mean, rest, total, a.rows, lost, draws, weights, squares, rounding, a.exponent)
    return joined, step * np.sqrt(a.n * b.n / n)


def sum_of_squares(tile: np.ndarray) -> float:
    """Sum of squares of a tile: of each row in its dtype, by BLAS, and of all rows in float64."""
    return float(np.vecdot(tile, tile).sum(dtype=np.float64))


def random_weights(seed: int, n_draws: int, start: int, n_images: int) -> np.ndarray:
    """Draw standard normal weights (n_draws, n_images), float64, for the images from `start` on.

    The weights of an image depend on `seed` and its position alone.
    """
    first, last = start // _DRAWS, (start + n_images - 1) // _DRAWS
    columns = [np.random.default_rng((seed, i)).standard_normal((_DRAWS, n_draws)) for i in range(first, last + 1)]
    begin = start - first * _DRAWS
    return np.concatenate(columns)[begin : begin + n_images].T


def _leading(gram: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """Leading eigenvectors (n, size) in columns, and the largest of the other eigenvalues, or 0."""
    if not np.isfinite(gram).all():  # LAPACK could hang. The total is not finite either, and the solver starts again
        gram = np.eye(len(gram))
    values, vectors = np.linalg.eigh(gram)  # releases the GIL, unlike SciPy's
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    return vectors[:, :size], float(values[size]) if len(values) > size else 0.0


def _rounding(rows: np.ndarray) -> float:
    """Bound the rounding of B'B in a cut that gave these rows B, the largest first."""
    first = rows[:1].astype(np.float64)
    return _ROUNDING * float(np.finfo(rows.dtype).eps) * float(np.vdot(first, first))


def _inner_of_stacked(parts: Sequence[np.ndarray], lo: int, hi: int) -> np.ndarray:
    """Inner products of the rows of matrices stacked on top of each other, over the columns `lo` to `hi`."""
    gram = np.zeros((sum(map(len, parts)),) * 2)
    for _, _, tile in _stacked(parts, lo, hi):
        gram += tile @ tile.T
    return gram


def _sums_of_stacked(parts: Sequence[np.ndarray], lo: int, hi: int, weights: np.ndarray, out: np.ndarray) -> None:
    """Write weighted sums of these rows to the columns `lo` to `hi` of `out`."""
    for a, b, tile in _stacked(parts, lo, hi):
        np.matmul(weights, tile, out=out[:, a:b])


def _stacked(parts: Sequence[np.ndarray], lo: int, hi: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield ``(a, b, tile)``: columns a to b of matrices stacked on top of each other, in one reused buffer."""
    height = sum(len(part) for part in parts)
    width = min(hi - lo, tile_width(height, parts[0].dtype))
    buffer = np.empty((height, width), np.result_type(*parts))
    for a in range(lo, hi, width):
        b = min(a + width, hi)
        tile = buffer[:, : b - a]
        np.concatenate([part[:, a:b] for part in parts], out=tile)
        yield a, b, tile
