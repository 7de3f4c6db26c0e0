"""A mergeable summary of images seen once: leading singular triplets about the mean, and what was cut off.

The sequential Karhunen-Loeve transform with mean update (Ross et al. 2008, "Incremental learning for robust visual
tracking", sec. 2.1), oversampled, and arranged so that two summaries merge as a summary and an image do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial, reduce
from typing import NamedTuple

import numpy as np

from .gram import first_image
from .tiles import column_means, n_rows, row_groups, tile_width, tiles

__all__ = ["Summary", "merge_summaries", "summarise", "test_rows"]

_GROUP = 128  # images whose inner products are formed at once
_DRAWS = 1024  # test rows come in blocks of this many images, each with a generator of its own


class Summary(NamedTuple):
    """What one look at some images leaves.

    Attributes
    ----------
    n : int
        Images seen.
    mean, rest : ndarray of shape (p,), float64
        Their mean, and what it is beyond that: far from zero, float64 has too few digits for steps between means.
    total : float
        Sum of squares of the centred images A.
    rows : ndarray of shape (l, p) or fewer rows
        B, the leading singular values of A times the right singular vectors: nearly orthogonal, descending.
    lost : float
        A bound: ``B'B <= A'A <= B'B + lost * I``, up to rounding.
    draws : ndarray of shape (q, p)
        Random sums of the centred images, ``Omega A``: they hold a share of every direction, those below all cuts too.
    weights : ndarray of shape (q,), float64
        Row sums of Omega, which a change of the mean needs.
    """

    n: int
    mean: np.ndarray
    rest: np.ndarray
    total: float
    rows: np.ndarray
    lost: float
    draws: np.ndarray
    weights: np.ndarray

    @property
    def eps(self) -> float:
        """Rounding of the products that this was made with."""
        return float(np.finfo(self.rows.dtype).eps)

    @property
    def singular_values(self) -> np.ndarray:
        """Norms of the rows, float64: lower bounds of the singular values of A."""
        return np.sqrt(np.einsum("ij,ij->i", self.rows, self.rows, dtype=np.float64))


def summarise(blocks: Sequence[np.ndarray], start: int, size: int, n_draws: int, seed: int, dtype: np.dtype) -> Summary:
    """Summarise consecutive images, of which the first is number `start` of the stack.

    Parameters
    ----------
    size : int
        Singular triplets to keep, at most.
    n_draws : int
        Random sums to keep.
    seed : int
        Of the random sums; image i has the same coefficients in every chunking.
    dtype : dtype
        Of the products: float32 or float64; sums between tiles are float64.
    """
    groups = row_groups(blocks, max(_GROUP, 3 * size))
    some = (
        _summarise(pieces, test_rows(seed, n_draws, start + row, n_rows(pieces)), size, dtype) for row, pieces in groups
    )
    return reduce(partial(merge_summaries, size=size), some)


@np.errstate(over="ignore", invalid="ignore")  # squares that float32 cannot hold: the solver sees them and goes on
def _summarise(blocks: Sequence[np.ndarray], omega: np.ndarray, size: int, dtype: np.dtype) -> Summary:
    """Inner products of the centred images, their eigenvectors, and the rows that follow; each tile is made twice."""
    n, shift = n_rows(blocks), first_image(blocks)
    rest, gram, total = np.empty(shift.size), np.zeros((n, n)), 0.0
    product = np.empty((n, n), dtype)
    for a, b, tile in tiles(blocks, shift, dtype):
        offset = rest[a:b] = column_means(tile)
        tile -= offset.astype(dtype)
        gram += np.matmul(tile, tile.T, out=product)
        total += sum_of_squares(tile)  # more exact than the trace of the products
    mean, rest = _split_sum(shift, rest)
    vectors, lost = _leading(gram, size)
    weights = np.vstack([vectors.T, omega]).astype(dtype)
    rows = np.empty((len(weights), shift.size), dtype)
    for a, b, tile in tiles(blocks, mean, dtype):
        np.matmul(weights, tile, out=rows[:, a:b])
    kept = vectors.shape[1]
    return Summary(n, mean, rest, total, rows[:kept], lost, rows[kept:], omega.sum(axis=1))


@np.errstate(over="ignore", invalid="ignore")
def merge_summaries(a: Summary, b: Summary, size: int) -> Summary:
    """Join the summaries of two sets of images.

    The two factors and the step between the means, times sqrt(n_a n_b / n), stand in for the images.
    """
    n = a.n + b.n
    step = (b.mean - a.mean) + (b.rest - a.rest)
    mean, rest = _split_sum(a.mean, a.rest + step * (b.n / n))
    total = a.total + b.total + float(step @ step) * (a.n * b.n / n)
    dtype = np.result_type(a.rows, b.rows)
    row = (step * np.sqrt(a.n * b.n / n)).astype(dtype)[None]
    parts = (a.rows, b.rows, row)
    height = sum(len(part) for part in parts)
    gram = np.zeros((height, height))
    for _, _, tile in _stacked(parts):
        gram += tile @ tile.T
    vectors, lost = _leading(gram, size)
    weights = np.ascontiguousarray(vectors.T, dtype=dtype)
    rows = np.empty((len(weights), step.size), dtype)
    for lo, hi, tile in _stacked(parts):
        np.matmul(weights, tile, out=rows[:, lo:hi])
    # Sums about the old means become sums about the new one.
    turn = (a.weights * (b.n / n) - b.weights * (a.n / n)).astype(dtype)
    draws = a.draws + b.draws
    for i, factor in enumerate(turn):
        draws[i] -= factor * step
    return Summary(n, mean, rest, total, rows, a.lost + b.lost + lost, draws, a.weights + b.weights)


def sum_of_squares(tile: np.ndarray) -> float:
    """Sum of squares of a tile: dot products of its rows by BLAS, in many short running sums; the rest in float64."""
    return float(np.vecdot(tile, tile).sum(dtype=np.float64))


def test_rows(seed: int, n_rows: int, start: int, n_images: int) -> np.ndarray:
    """Columns `start` to `start + n_images` of a standard normal matrix of `n_rows` rows, float64."""
    first, last = start // _DRAWS, (start + n_images - 1) // _DRAWS
    columns = [np.random.default_rng((seed, i)).standard_normal((_DRAWS, n_rows)) for i in range(first, last + 1)]
    begin = start - first * _DRAWS
    return np.concatenate(columns)[begin : begin + n_images].T


def _split_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of two arrays as it is rounded, and what rounding took from it (Knuth's TwoSum)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _leading(gram: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """Leading eigenvectors in columns, and the first eigenvalue that is cut off; destroys the matrix."""
    if not np.isfinite(gram).all():  # LAPACK would not return; the total, not finite either, says that all is void
        gram = np.eye(len(gram))
    values, vectors = np.linalg.eigh(gram)  # unlike SciPy's, it lets other threads run
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    return vectors[:, :size], float(values[size]) if len(values) > size else 0.0


def _stacked(parts: Sequence[np.ndarray]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield ``(a, b, tile)``: a range of columns of matrices put on top of each other, in one reused buffer."""
    height, p = sum(len(part) for part in parts), parts[0].shape[1]
    width = min(p, tile_width(height, parts[0].dtype))
    buffer = np.empty((height, width), np.result_type(*parts))
    for a in range(0, p, width):
        b = min(a + width, p)
        tile = buffer[:, : b - a]
        np.concatenate([part[:, a:b] for part in parts], out=tile)
        yield a, b, tile
