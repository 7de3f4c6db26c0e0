"""Means and norms of deviations that merge."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from .large_integers import refuse_inexact
from .tiles import (
    TILE_BYTES,
    column_means,
    flat_rows,
    heaviest_row,
    n_rows,
    row_groups,
    tiles,
    times_roots,
    weights_of,
)

__all__ = [
    "Moments",
    "Sums",
    "WeightedMoments",
    "add_moments",
    "add_weighted_moments",
    "exact_sum",
    "merge_means",
    "merge_moments",
    "merge_sums_or_moments",
    "moments",
    "sums_or_moments",
    "weighted_moments",
    "weighted_pixels",
]

_TILE = 2**16  # pixels whose sums stay in the cache while values of several images are added to them
_MERGED = 2**15  # pixels of which the arrays of a merge stay in the cache
_WIDE = 2048


class Moments(NamedTuple):
    """Number of images, or the sum of their weights, and their mean in two parts and norms of deviations from it.

    All are float64; norms (p,) may be None. The mean is `mean` + `rest`, (p,) each, `rest` being the rounding error of
    `mean`. Merging needs the difference of two means, which may be far from zero and close to each other. Norms, since
    their squares could be beyond float64.
    """

    n: float
    mean: np.ndarray
    rest: np.ndarray
    norms: np.ndarray | None

    @classmethod
    def of_size(cls, n: float, n_pixels: int, with_norms: bool) -> Moments:
        """Make room for those of some pixels."""
        return cls(n, np.empty(n_pixels), np.empty(n_pixels), np.empty(n_pixels) if with_norms else None)

    def part(self, span: slice) -> Moments:
        """Return those of some of the pixels, as views."""
        return Moments(self.n, self.mean[span], self.rest[span], None if self.norms is None else self.norms[span])

    def put(self, span: slice, part: Moments) -> None:
        """Set those of some of the pixels."""
        for whole, piece in zip(self[1:], part[1:], strict=True):
            if whole is not None:
                whole[span] = piece

    def means(self, out: np.ndarray | None = None) -> np.ndarray:
        """Mean; `out` is not used, since nothing is computed."""
        return self.mean

    def deviations(self, out: np.ndarray | None = None) -> np.ndarray:
        """Norms."""
        assert self.norms is not None
        return self.norms


class Sums(NamedTuple):
    """Sums of `n` images, and of their squares or None: exact integers (p,), or float64 sums of float32 images.

    Float64 has 29 bits more than float32, so that most of these sums are exact. The sum of a million images is off by
    at most 1e-10 of the sum of magnitudes, and float32 rounds each pixel by up to 6e-8. Squares have no such reserve.
    """

    n: int
    sums: np.ndarray
    squares: np.ndarray | None

    @classmethod
    def of_none(cls, n_pixels: int, n_images: int, dtype: np.dtype, with_squares: bool) -> Sums:
        """Return zeros with room for `n_images` images of a dtype that `_can_be_summed`."""
        if dtype.kind == "f":
            return cls(0, np.zeros(n_pixels), None)
        largest = 1 if dtype.kind == "b" else int(max(np.iinfo(dtype).max, -int(np.iinfo(dtype).min)))
        room = [_least_integer(n_images * largest, dtype.kind == "i"), _least_integer(n_images * largest**2)]
        return cls(0, np.zeros(n_pixels, room[0]), np.zeros(n_pixels, room[1]) if with_squares else None)

    def means(self, out: np.ndarray | None = None) -> np.ndarray:
        """Mean, rounded once, in `out` if given."""
        mean: np.ndarray = np.divide(self.sums, self.n, out=out)
        return mean

    def deviations(self, out: np.ndarray | None = None) -> np.ndarray:
        """Norms of the deviations from the mean, in `out` if given."""
        assert self.squares is not None
        norms = np.empty(self.sums.size) if out is None else out
        for a in range(0, norms.size, _TILE):
            tile = slice(a, a + _TILE)
            norms[tile] = _norms_of_sums(self.n, self.sums[tile].astype(np.int64), self.squares[tile].astype(np.int64))
        return norms


def _norms_of_sums(n: int, sums: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Norms of deviations from the mean, float64, of n integers with these sums, and these sums of squares.

    About the integers m nearest to the means, all sums are integers: of x - m it is s - n m, and of its square
    q - 2 m s + n m^2.
    """
    near = np.rint(sums / n).astype(np.int64)
    left = sums - n * near
    norms: np.ndarray = np.sqrt(squares - near * (sums + left) - left.astype(np.float64) ** 2 / n)
    return norms


def _least_integer(largest: int, signed: bool = False) -> np.dtype:
    """Dtype of 32 bits if it holds `largest`, else of 64."""
    return np.dtype(f"{'i' if signed else 'u'}{4 if largest < 2 ** (32 - signed) else 8}")


def add_moments(
    total: Moments | Sums | None, blocks: Sequence[np.ndarray], n_images: int, with_norms: bool = False
) -> Moments | Sums:
    """Add images, or the same part of each, to `total`, which is overwritten; None at first.

    What can be summed as it is, is; other images are merged a group at a time, tile by tile.

    Parameters
    ----------
    blocks : sequence of ndarray (b_i, ...)
        Consecutive images, after those in `total`.
    n_images : int
        The most that are added.
    """
    rows = flat_rows(blocks)
    dtype = rows[0].dtype
    if _can_be_summed(dtype, with_norms):
        sums = total if isinstance(total, Sums) else Sums.of_none(rows[0].shape[1], n_images, dtype, with_norms)
        for a in range(0, rows[0].shape[1], _TILE):
            _add_tile(sums, [block[:, a : a + _TILE] for block in rows], a)
        return sums._replace(n=sums.n + n_rows(rows))
    return _add_others(total if isinstance(total, Moments) else None, rows, with_norms)


class WeightedMoments(NamedTuple):
    """Moments of weighted images, and the number of these images."""

    n_images: int
    moments: Moments


def add_weighted_moments(
    total: WeightedMoments | None, blocks: Sequence[np.ndarray], weights: np.ndarray, with_norms: bool = False
) -> WeightedMoments:
    """Add images, or the same part of each, with the weights (n,) of the whole stack to `total`; None at first."""
    done, before = total or (0, None)
    rows = flat_rows(blocks)
    found = _add_others(before, rows, with_norms, weights_of(weights, done, rows))
    return WeightedMoments(done + n_rows(rows), found)


def sums_or_moments(
    blocks: Sequence[np.ndarray], start: int, n_images: int, with_norms: bool = False
) -> Moments | Sums:
    """Return sums of images that can be summed, unless images are so small that BLAS is faster; else moments.

    Parameters
    ----------
    n_images : int
        The most whose results are merged.
    """
    image = blocks[0][0]
    if _can_be_summed(image.dtype, with_norms) and image.size >= _WIDE:
        return add_moments(None, blocks, n_images, with_norms)
    return moments(blocks, with_norms)


def merge_sums_or_moments(a: Any, b: Any) -> Moments | Sums:
    """Join two results of `sums_or_moments`."""
    if isinstance(a, Moments):
        return merge_moments(a, b)
    return Sums(a.n + b.n, a.sums + b.sums, None if a.squares is None else a.squares + b.squares)


def _add_others(
    total: Moments | None, rows: Sequence[np.ndarray], with_norms: bool, weights: np.ndarray | None = None
) -> Moments:
    n, p = n_rows(rows), rows[0].shape[1]
    if total is None:
        total = Moments.of_size(0, p, with_norms)
    width = min(_width(n), _MERGED)
    for a in range(0, p, width):
        span = slice(a, a + width)
        found = moments([block[:, span] for block in rows], with_norms, weights)
        if total.n:
            _merge_into(total.part(span), total.part(span), found)
        else:
            total.put(span, found)
    return total._replace(n=total.n + (n if weights is None else float(weights.sum())))


def _can_be_summed(dtype: np.dtype, with_norms: bool) -> bool:
    """Tell whether sums keep all digits: integers of up to 16 bits, floats of up to 32 bits without their squares."""
    if dtype.kind == "f":
        return dtype.itemsize <= 4 and not with_norms
    return dtype.kind in "biu" and dtype.itemsize <= 2


def _add_tile(total: Sums, tile: Sequence[np.ndarray], a: int) -> None:
    """Add a tile, whose first pixel is number `a`, to sums."""
    width = tile[0].shape[1]
    sums, squares = total.sums[a : a + width], None if total.squares is None else total.squares[a : a + width]
    for block in tile:
        # Wide rows are added one by one, in the cache; many narrow ones at a time, since each call takes a microsecond.
        rows = block if width >= _WIDE else [block.sum(axis=0, dtype=sums.dtype)]
        for row in rows:
            sums += row
        if squares is not None:
            for part in block[:, None] if width >= _WIDE else [block]:
                wide = part.astype(np.int32 if part.dtype.kind == "i" else np.uint32)
                wide *= wide
                squares += wide.view(np.uint32).sum(axis=0, dtype=squares.dtype)


def moments(blocks: Sequence[np.ndarray], with_norms: bool = False, weights: np.ndarray | None = None) -> Moments:
    """Moments of all images in some blocks, with norms if asked for; each image counts as often as `weights` say."""
    groups = ((pieces, weights_of(weights, row, pieces)) for row, pieces in row_groups(blocks))
    return reduce(merge_moments, (_moments(pieces, with_norms, own) for pieces, own in groups))


def weighted_moments(blocks: Sequence[np.ndarray], start: int, weights: np.ndarray, with_norms: bool) -> Moments:
    """Moments of images with the weights (n,) of the whole stack; that of the first image is `start`."""
    return moments(blocks, with_norms, weights_of(weights, start, blocks))


def weighted_pixels(blocks: Sequence[np.ndarray], lo: int, hi: int, weights: np.ndarray, pixels: np.ndarray) -> None:
    """Write weighted means and sums of squares about them to the columns `lo` to `hi` of `pixels` (2, p)."""
    found = moments([rows[:, lo:hi] for rows in flat_rows(blocks)], with_norms=True, weights=weights)
    pixels[:, lo:hi] = found.mean, found.deviations() ** 2


@np.errstate(over="ignore", invalid="ignore")  # the caller finds what is not finite
def _moments(blocks: Sequence[np.ndarray], with_norms: bool, weights: np.ndarray | None) -> Moments:
    """Moments of a few thousand images. One image is subtracted before summing, so that sums stay small."""
    shift = heaviest_row(blocks, weights)
    if n_rows(blocks) == 1:
        refuse_inexact(shift)
        none = np.zeros(shift.size)
        count = 1.0 if weights is None else float(weights.sum())
        return Moments(count, shift.astype(np.float64), none, none.copy() if with_norms else None)
    if (
        weights is None
        and not with_norms
        and all(block.dtype.kind in "biu" and block.itemsize <= 2 for block in blocks)
    ):
        return Moments(n_rows(blocks), *exact_sum(shift, _mean_offset(blocks, shift)), None)
    offsets = np.empty(shift.size)
    norms = np.empty(shift.size) if with_norms else None
    for a, b, tile in tiles(blocks, shift, np.dtype(np.float64), width=_width(n_rows(blocks))):
        offsets[a:b] = tile.mean(axis=0) if weights is None else (weights / weights.sum()) @ tile
        if norms is not None:
            tile -= offsets[a:b]
            times_roots(tile, weights)
            norms[a:b] = _norms(tile)
    n = n_rows(blocks) if weights is None else float(weights.sum())
    return Moments(n, *exact_sum(shift, offsets), norms)


def _width(n: int) -> int:
    """Pixels in a tile of `n` images in float64. It sums no products, which limit others to `TERMS`."""
    return max(64, min(_TILE, TILE_BYTES // (8 * n)))


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


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Join the moments of two sets of images (Chan, Golub & LeVeque 1983, eq. 2.1)."""
    merged = Moments.of_size(a.n + b.n, a.mean.size, a.norms is not None and b.norms is not None)
    for i in range(0, a.mean.size, _MERGED):
        span = slice(i, i + _MERGED)
        _merge_into(merged.part(span), a.part(span), b.part(span))
    return merged


@np.errstate(over="ignore", invalid="ignore")
def _merge_into(out: Moments, a: Moments, b: Moments) -> None:
    """Join the moments of few pixels; `out` may be one of them."""
    step, mean, rest = merge_means(a, b)
    if out.norms is not None:
        assert a.norms is not None
        assert b.norms is not None
        step *= (a.n * b.n / (a.n + b.n)) ** 0.5
        np.hypot(np.hypot(a.norms, b.norms), step, out=out.norms)
    out.mean[:], out.rest[:] = mean, rest


@np.errstate(over="ignore", invalid="ignore")
def merge_means(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Difference of two means of `n` images, ``b - a``, and both parts of the mean of all images, (p,) each.

    Parameters
    ----------
    a, b : records with `n`, `mean` and `rest`
    """
    step = b.mean - a.mean
    step += b.rest - a.rest
    low = step * (b.n / (a.n + b.n))
    low += a.rest
    return step, *exact_sum(a.mean, low)


def exact_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add two arrays. Return the rounded sum and its rounding error (Knuth's TwoSum)."""
    total = a + b
    part = total - a
    rest = total - part
    np.subtract(a, rest, out=rest)
    rest += b - part
    return total, rest
