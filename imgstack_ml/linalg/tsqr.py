"""Input of a tall-skinny QR factorisation, and the singular values and vectors of its triangular factor R."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .large_integers import refuse_inexact
from .tiles import column_means, flat_rows, heaviest_row, n_rows, tiles, times_roots, weights_of

__all__ = ["centred_columns", "rows_after_ones", "svd_of_r"]


def rows_after_ones(
    blocks: Sequence[np.ndarray], start: int, shift: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Rows [1, image - shift], (b, 1 + p), float64: a column of ones before the shifted images.

    With the `weights` (n,) of all images, rows are times the roots of these, and the mean is the weighted one.

    Factorising them centres the images without a separate read for the mean. The first row and column of R belong to
    the ones. The rest of R is the R of the centred images: making the other columns orthogonal to the ones subtracts
    the mean.
    """
    rows = np.ones((n_rows(blocks), 1 + shift.size))
    row = 0
    for block in flat_rows(blocks):
        refuse_inexact(block)
        np.subtract(block, shift, out=rows[row : row + len(block), 1:], dtype=np.float64)
        row += len(block)
    times_roots(rows, weights_of(weights, start, blocks))
    return _finite(rows)


def centred_columns(
    blocks: Sequence[np.ndarray], lo: int, hi: int, exponent: int = 0, weights: np.ndarray | None = None
) -> np.ndarray:
    """Columns `lo` to `hi` of the centred images A / 2^exponent as rows, (hi - lo, n), float64.

    `blocks` hold all images; with `weights` (n,), these are centred by them and times the roots of them.
    """
    shift, double = heaviest_row(blocks, weights), np.dtype(np.float64)
    ((_, _, tile),) = tiles(blocks, shift, double, lo, hi, width=hi - lo, exponent=exponent)
    tile -= tile.mean(axis=0) if weights is None else column_means(tile, weights)
    times_roots(tile, weights)
    return _finite(tile.T)


def svd_of_r(R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values (r,), descending, and right singular vectors (r, r) in rows, of a triangular factor (r, r)."""
    _, s, Vt = np.linalg.svd(R, full_matrices=False)
    return s, Vt


def _finite(rows: np.ndarray) -> np.ndarray:
    """Return the rows, or raise if differences of values are beyond float64: LAPACK could hang."""
    if not np.isfinite(rows.sum()):
        raise OverflowError
    return rows
