"""Orthonormal rows of the size of an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import scipy.linalg

from .ranges import Run, at_once
from .tiles import TILE_BYTES

__all__ = ["completed_rows", "inner_products", "orthonormalise_rows"]

_ROUNDS = 8  # each reduces the condition number of the rows by 1e5 or more; float64 knows none above 1e16
_FEW = 2**20  # values that one thread handles in less time than it takes to divide them
_TILE = 2**15  # columns at most: in float64, more of few rows would leave the cache
_SHIFT = 1e-11  # share of the trace that makes positive definite what rounding has made indefinite


def orthonormalise_rows(rows: np.ndarray, run: Run = at_once) -> None:
    """Make rows (k, p) orthonormal, in place, by Cholesky QR in float64. k must not be more than p.

    A row changes only by multiples of the rows before it, and in its length; zeros and what is linearly dependent
    become arbitrary directions. One round is enough for nearly orthonormal rows. For others, the factorisation is
    shifted and repeated (Fukaya, Kannan, Nakatsukasa, Yamamoto & Yanagisawa 2020, "Shifted Cholesky QR for computing
    the QR factorization of ill-conditioned matrices", algorithm 4.2). `run` walks through large rows.
    """
    run = run if rows.size > _FEW else at_once
    for number in range(_ROUNDS if len(rows) else 0):
        gram = run(_inner, np.add, [rows])
        norms = np.sqrt(np.diag(gram))
        if _filled(rows, norms == 0, number):
            continue
        gram /= np.multiply.outer(norms, norms)
        apart = np.linalg.norm(gram - np.eye(len(gram)))
        factor = _factor(gram)
        # What is still dependent after one round has no other direction.
        if number and _filled(rows, np.diag(factor) ** 2 < 10 * _SHIFT * len(rows), number):
            continue
        factor *= norms[:, None]
        run(partial(_divide, factor=factor), lambda a, b: None, [rows])
        if apart < 0.5:
            return


def completed_rows(rows: np.ndarray, k: int) -> np.ndarray:
    """Orthonormal rows (k, p): those given, then random ones orthogonal to them, the same in every call."""
    missing, p = k - len(rows), rows.shape[1]
    if missing <= 0:
        return rows
    complete = np.empty((k, p), rows.dtype)
    complete[: len(rows)] = rows
    fresh = complete[len(rows) :]
    np.random.default_rng(0).standard_normal(out=fresh, dtype=rows.dtype)
    for _ in range(2):  # the second round removes what rounding in the first has left of the given rows
        _project_out(fresh, rows)
        orthonormalise_rows(fresh)
    return complete


def inner_products(rows: np.ndarray) -> np.ndarray:
    """Inner products (k, k) of rows, float64."""
    return _inner([rows], 0, rows.shape[1])


def _inner(buffers: Sequence[np.ndarray], lo: int, hi: int) -> np.ndarray:
    (rows,) = buffers
    gram = np.zeros((len(rows), len(rows)))
    for _, tile, _ in _tiles(rows[:, lo:hi]):
        gram += tile @ tile.T
    return gram


def _divide(buffers: Sequence[np.ndarray], lo: int, hi: int, factor: np.ndarray) -> None:
    """Replace rows by the inverse of a lower triangular `factor` times them."""
    for _, tile, out in _tiles(buffers[0][:, lo:hi]):
        # Its transpose is in the order of BLAS, which then copies nothing.
        out[:] = scipy.linalg.blas.dtrsm(1.0, factor, tile.T, side=1, lower=1, trans_a=1, overwrite_b=1).T


def _filled(rows: np.ndarray, which: np.ndarray, number: int) -> bool:
    """Fill some rows with random numbers, others in each round. Return whether there were any."""
    rows[which] = np.random.default_rng((1, number)).standard_normal((np.count_nonzero(which), rows.shape[1]))
    return bool(which.any())


def _factor(gram: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor of a matrix with diagonal 1; of a shifted one, if rounding has made it indefinite."""
    factor: np.ndarray
    try:
        factor = scipy.linalg.cholesky(gram, lower=True)
    except scipy.linalg.LinAlgError:
        factor = scipy.linalg.cholesky(gram + _SHIFT * len(gram) * np.eye(len(gram)), lower=True)
    return factor


def _project_out(fresh: np.ndarray, rows: np.ndarray) -> None:
    """Subtract from `fresh` its projection on orthonormal `rows`, in place, tile by tile in float64."""
    along = np.zeros((len(fresh), len(rows)))
    for span, tile, _ in _tiles(fresh, len(rows)):
        along += tile @ rows[:, span].T
    for span, tile, out in _tiles(fresh, len(rows)):
        out[:] = tile - along @ rows[:, span]


def _tiles(rows: np.ndarray, n_others: int = 0) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield ranges of columns, a copy of them in float64, and the columns themselves."""
    width = max(64, min(_TILE, TILE_BYTES // (8 * max(1, len(rows) + n_others))))
    for a in range(0, rows.shape[1], width):
        span = slice(a, a + width)
        yield span, rows[:, span].astype(np.float64), rows[:, span]
