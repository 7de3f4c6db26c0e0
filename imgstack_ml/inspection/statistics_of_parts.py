"""Statistics of each image of a stack whose chunks hold parts of images: no whole image is needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from itertools import groupby
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..base.parts import Region
from ..linalg.extremes import extremes_of, joined_channels
from ..passes.steps import Pass
from .image_statistics import GRID, N_SAMPLED, ImageStatistics, cell_edges, digest_of, signatures_of, with_few_levels

__all__ = ["pass_over_parts"]


class _Part(NamedTuple):
    """What is known of a part of each of b images, of `h` lines.

    Attributes
    ----------
    lowest, highest : ndarray of shape (b, h, n_channels)
        Of each line.
    at_top : ndarray of shape (b, n_channels), int
        Pixels that have the largest value of the part.
    sums : ndarray of shape (b, n_cells, n_channels), float64
        Over the cells of the grid of the whole image.
    digests : ndarray of shape (b,), uint64
    sampled : ndarray of shape (b, n_sampled)
        Those of some pixels of the whole image that are in the part.
    """

    lowest: np.ndarray
    highest: np.ndarray
    at_top: np.ndarray
    sums: np.ndarray
    digests: np.ndarray
    sampled: np.ndarray


def pass_over_parts(image_shape: tuple[int, ...]) -> Pass:
    """Return the pass over chunks that each have all channels of their pixels, for `PassRunner.fold`."""
    begin, join = partial(_begin, image_shape), partial(_joined, image_shape)
    return Pass(_no_step, _no_step, label="intensities", fold=_add, join=join, begin=begin)


def _no_step(*_: Any) -> None:
    raise NotImplementedError("this pass runs over parts of images only")


class _Total(NamedTuple):
    image_shape: tuple[int, ...]
    region: Region
    parts: list[_Part]


def _begin(image_shape: tuple[int, ...], region: Region) -> _Total:
    return _Total(image_shape, region, [])


def _add(total: _Total, parts: Sequence[np.ndarray]) -> _Total:
    total.parts.extend(_of_part(part, total.image_shape, total.region) for part in parts)
    return total


def _plane(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels of an image; a row is an image of one line."""
    height, width, *channels = shape if len(shape) > 1 else (1, *shape)
    return height, width, *(channels or [1])  # type: ignore[return-value]


def _of_part(part: np.ndarray, image_shape: tuple[int, ...], region: Region) -> _Part:
    (height, width, n_channels), lines = _plane(image_shape), joined_channels(np.ascontiguousarray(part))
    top, left = (region[0].start, region[1].start) if len(region) > 1 else (0, region[0].start)
    pixels = lines.reshape(*lines.shape[:2], -1, n_channels)
    highest = extremes_of(lines, n_channels)[1]
    at_top = np.count_nonzero(pixels == highest[:, None, None], axis=(1, 2))
    sums = np.zeros((len(part), *(min(GRID, size) for size in (height, width)), n_channels))
    tops, lefts = (
        np.clip(cell_edges(size, GRID) - start, 0, n)
        for size, start, n in zip((height, width), (top, left), pixels.shape[1:3], strict=True)
    )
    for j in np.flatnonzero(np.diff(tops)):
        band = pixels[:, tops[j] : tops[j + 1]].sum(axis=1, dtype=np.float64)
        own = np.flatnonzero(np.diff(lefts))
        sums[:, j, own] += np.add.reduceat(band, lefts[own], axis=1)
    y, x, channel = np.unravel_index(_sampled(image_shape), (height, width, n_channels))
    y, x = y - top, x - left
    inside = (y >= 0) & (y < pixels.shape[1]) & (x >= 0) & (x < pixels.shape[2])
    return _Part(
        pixels.min(axis=2),
        pixels.max(axis=2),
        at_top,
        sums.reshape(len(part), -1, n_channels),
        np.array([digest_of(one) for one in lines], dtype=np.uint64),
        pixels[:, y[inside], x[inside], channel[inside]],
    )


def _sampled(image_shape: tuple[int, ...]) -> np.ndarray:
    n = prod(image_shape)
    return np.arange(0, n, max(1, n // N_SAMPLED))


def _joined(image_shape: tuple[int, ...], totals: list[_Total], regions: Sequence[Region]) -> ImageStatistics:
    found = [_Part(*map(np.concatenate, zip(*total.parts, strict=True))) for total in totals]
    height, width, _ = _plane(image_shape)
    lines = []
    for _, group in groupby(zip(found, regions, strict=True), lambda one: one[1][0] if len(one[1]) > 1 else None):
        beside = [part for part, _ in group]
        ends = (np.minimum, [part.lowest for part in beside]), (np.maximum, [part.highest for part in beside])
        lines.append([reduce(join, arrays) for join, arrays in ends])
    lowest, highest = (np.concatenate(ends, axis=1) for ends in zip(*lines, strict=True))
    minima, maxima = lowest.min(axis=1), highest.max(axis=1)
    own = [np.where(part.highest.max(axis=1) == maxima, part.at_top, 0) for part in found]
    at_top: np.ndarray = np.add.reduce(own) / (height * width)
    for i in np.flatnonzero(at_top.max(axis=1) > 1 / N_SAMPLED):
        if with_few_levels(np.concatenate([part.sampled[i] for part in found]), prod(image_shape)):
            at_top[i] = 0
    sums: np.ndarray = np.add.reduce([part.sums for part in found])
    edges = (cell_edges(size, GRID) for size in (height, width))
    cells = sums.mean(axis=2) / np.outer(*map(np.diff, edges)).ravel()
    digests = np.stack([part.digests for part in found], axis=1)
    blank = (lowest == highest).all(axis=2)
    return ImageStatistics(
        minima.astype(np.float64),
        maxima.astype(np.float64),
        sums.sum(axis=1) / (height * width),
        at_top,
        np.array([digest_of(one) for one in digests], dtype=np.uint64),
        signatures_of(cells),
        cells.std(axis=1),
        np.stack([_blank_share(lowest[:, ::step], blank[:, ::step]) for step in (1, -1)], axis=1),
    )


def _blank_share(values: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """Share (b,) of the lines, from the first on, that all have the colour of the first, from values of blank lines."""
    alike = blank & (values == values[:, :1]).all(axis=2)
    share: np.ndarray = np.where(alike.all(axis=1), alike.shape[1], alike.argmin(axis=1)) / alike.shape[1]
    return share
