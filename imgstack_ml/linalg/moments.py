"""Mergeable sum of squares and mean."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from .tiles import column_means, n_rows, row_groups, tiles

__all__ = ["Moments", "merge_moments", "moments"]


class Moments(NamedTuple):
    """Count, mean (n_pixels,), and sum of squared deviations from it (n_pixels,), or None; all float64."""

    n: int
    mean: np.ndarray
    squares: np.ndarray | None


def moments(blocks: Sequence[np.ndarray], with_squares: bool = False) -> Moments:
    """Moments of some blocks of images."""
    return reduce(merge_moments, (_moments(pieces, with_squares) for _, pieces in row_groups(blocks)))


def _moments(blocks: Sequence[np.ndarray], with_squares: bool) -> Moments:
    """Moments, each value shifted by the first image's before anything is summed."""
    shift = blocks[0][0].ravel().astype(np.float64)
    if not with_squares and all(block.dtype.kind in "biu" and block.itemsize <= 2 for block in blocks):
        return Moments(n_rows(blocks), shift + _mean_offset(blocks, shift), None)
    mean = np.empty(shift.size)
    squares = np.empty(shift.size) if with_squares else None
    for a, b, tile in tiles(blocks, shift, np.dtype(np.float64)):
        offset = tile.mean(axis=0)
        mean[a:b] = shift[a:b] + offset
        if squares is not None:
            tile -= offset
            np.einsum("ij,ij->j", tile, tile, out=squares[a:b])
    return Moments(n_rows(blocks), mean, squares)


def _mean_offset(blocks: Sequence[np.ndarray], shift: np.ndarray) -> np.ndarray:
    """Mean of images of up to 16 bits, less `shift`: exact sums in float32, at several times the pace of float64."""
    offset = np.empty(shift.size)
    for a, b, tile in tiles(blocks, shift, np.dtype(np.float32)):
        offset[a:b] = column_means(tile)
    return offset


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Join the moments of two sets of images (Chan, Golub & LeVeque 1983, eq. 2.1)."""
    n = a.n + b.n
    step = b.mean - a.mean
    mean = a.mean + step * (b.n / n)
    squares = None
    if a.squares is not None and b.squares is not None:
        squares = a.squares + b.squares + step**2 * (a.n * b.n / n)
    return Moments(n, mean, squares)
