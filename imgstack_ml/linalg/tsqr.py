"""What goes into a tall-skinny QR and comes out of its triangular factor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .gram import first_image
from .tiles import flat_rows, n_rows, tiles

__all__ = ["centred_columns", "rows_after_ones", "svd_of_r"]


def rows_after_ones(blocks: Sequence[np.ndarray], start: int, shift: np.ndarray) -> np.ndarray:
    """Rows [1, image - shift] (b, 1 + n_pixels), float64.

    In the R of all such rows the first row and column belong to the ones; what remains is the R of the centred
    images: elimination of the column of ones subtracts the mean, as Gram-Schmidt would.
    """
    rows = np.ones((n_rows(blocks), 1 + shift.size))
    row = 0
    for block in flat_rows(blocks):
        np.subtract(block, shift, out=rows[row : row + len(block), 1:], dtype=np.float64)
        row += len(block)
    return rows


def centred_columns(blocks: Sequence[np.ndarray], lo: int, hi: int) -> np.ndarray:
    """Pixels `lo` to `hi` of all images, centred, as rows (hi - lo, n_images), float64."""
    ((_, _, tile),) = tiles(blocks, first_image(blocks), np.dtype(np.float64), lo, hi, width=hi - lo)
    tile -= tile.mean(axis=0)
    return tile.T


def svd_of_r(R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values, descending, and right singular vectors in rows, of a triangular factor."""
    _, s, Vt = np.linalg.svd(R, full_matrices=False)
    return s, Vt
