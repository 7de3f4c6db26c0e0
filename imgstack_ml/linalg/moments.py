"""Means and norms of deviations that merge."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from .tiles import column_means, n_rows, row_groups, tiles

__all__ = ["Moments", "exact_sum", "merge_means", "merge_moments", "moments"]


class Moments(NamedTuple):
    """Number of images, their mean in two parts, and norms of the deviations from it (p,) or None; all float64.

    The mean is `mean` + `rest`, (p,) each, `rest` being the rounding error of `mean`. Merging needs the difference of
    two means, which may be far from zero and close to each other. Norms, since their squares could be beyond float64.
    """

    n: int
    mean: np.ndarray
    rest: np.ndarray
    norms: np.ndarray | None


def moments(blocks: Sequence[np.ndarray], with_norms: bool = False) -> Moments:
    """Moments of all images in some blocks, with norms if asked for."""
    return reduce(merge_moments, (_moments(pieces, with_norms) for _, pieces in row_groups(blocks)))


@np.errstate(over="ignore", invalid="ignore")  # the caller finds what is not finite
def _moments(blocks: Sequence[np.ndarray], with_norms: bool) -> Moments:
    """Moments of a few thousand images. The first image is subtracted before summing, so that sums stay small."""
    shift = blocks[0][0].ravel().astype(np.float64)
    if not with_norms and all(block.dtype.kind in "biu" and block.itemsize <= 2 for block in blocks):
        return Moments(n_rows(blocks), *exact_sum(shift, _mean_offset(blocks, shift)), None)
    offsets = np.empty(shift.size)
    norms = np.empty(shift.size) if with_norms else None
    for a, b, tile in tiles(blocks, shift, np.dtype(np.float64)):
        offsets[a:b] = tile.mean(axis=0)
        if norms is not None:
            tile -= offsets[a:b]
            norms[a:b] = _norms(tile)
    return Moments(n_rows(blocks), *exact_sum(shift, offsets), norms)


def _norms(tile: np.ndarray) -> np.ndarray:
    """Norms of the columns. Those whose squares could be beyond float64 are divided by powers of two first."""
    squares = np.einsum("ij,ij->j", tile, tile)
    norms: np.ndarray = np.sqrt(squares)
    odd = np.flatnonzero(~((squares > 2.0**-900) & (squares < 2.0**1000)))
    largest = np.abs(tile[:, odd]).max(axis=0, initial=0)
    if largest.any():
        exponents = np.zeros(tile.shape[1], int)
        exponents[odd] = np.frexp(largest)[1]
        tile = np.ldexp(tile, -exponents)  # all columns, so that NumPy adds in the same order
        norms[odd] = np.ldexp(np.sqrt(np.einsum("ij,ij->j", tile, tile)), exponents)[odd]
    return norms


def _mean_offset(blocks: Sequence[np.ndarray], shift: np.ndarray) -> np.ndarray:
    """Mean less `shift`, (p,), of integers of up to 16 bits. Float32 sums are exact here and faster than float64."""
    offset = np.empty(shift.size)
    for a, b, tile in tiles(blocks, shift, np.dtype(np.float32)):
        offset[a:b] = column_means(tile)
    return offset


@np.errstate(over="ignore", invalid="ignore")
def merge_moments(a: Moments, b: Moments) -> Moments:
    """Join the moments of two sets of images (Chan, Golub & LeVeque 1983, eq. 2.1)."""
    step, mean, rest = merge_means(a, b)
    n = a.n + b.n
    norms = None
    if a.norms is not None and b.norms is not None:
        norms = np.hypot(np.hypot(a.norms, b.norms), step * (a.n * b.n / n) ** 0.5)
    return Moments(n, mean, rest, norms)


@np.errstate(over="ignore", invalid="ignore")
def merge_means(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Difference of two means of `n` images, ``b - a``, and both parts of the mean of all images, (p,) each.

    Parameters
    ----------
    a, b : records with `n`, `mean` and `rest`
    """
    step = (b.mean - a.mean) + (b.rest - a.rest)
    return step, *exact_sum(a.mean, a.rest + step * (b.n / (a.n + b.n)))


def exact_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add two arrays. Return the rounded sum and its rounding error (Knuth's TwoSum)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
