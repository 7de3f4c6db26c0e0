"""Means and sums of squared deviations that merge."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from .tiles import column_means, n_rows, row_groups, tiles

__all__ = ["Moments", "merge_moments", "moments"]


class Moments(NamedTuple):
    """Number of images, mean (p,), and sums of squared deviations from the mean (p,) or None. Arrays are float64."""

    n: int
    mean: np.ndarray
    squares: np.ndarray | None


def moments(blocks: Sequence[np.ndarray], with_squares: bool = False) -> Moments:
    """Moments of all images in some blocks, with sums of squares if asked for."""
    return reduce(merge_moments, (_moments(pieces, with_squares) for _, pieces in row_groups(blocks)))


def _moments(blocks: Sequence[np.ndarray], with_squares: bool) -> Moments:
    """Moments of a few thousand images. The first image is subtracted before summing, so that sums stay small."""
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
    """Mean less `shift`, (p,), of integers of up to 16 bits. Float32 sums are exact here and faster than float64."""
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
