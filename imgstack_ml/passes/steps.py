"""Steps and merges, the NumPy side of a pass: what a pass learns, several of them in one, and raw copies of blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..base.gate import Check
from ..linalg.extremes import add_to_range, join_ranges, merge_ranges, range_step
from .blas import one_blas_thread
from .regions import Region

__all__ = [
    "Pass",
    "checked_blocks",
    "checked_step",
    "combined",
    "concatenated",
    "no_result",
    "range_pass",
    "raw_blocks",
    "raw_regions",
]

Partial = TypeVar("Partial")


class Pass(NamedTuple):
    """What one pass learns: see `PassRunner.run`, and `PassRunner.fold` for a sum over the images, pixel by pixel.

    Attributes
    ----------
    step, merge, partial_bytes, label
        As `PassRunner.run` has them; a step gets the weights of all images as a third argument, if they have some.
    fold : callable, optional
        ``fold(total, parts) -> total``: adds a region of consecutive images, arrays (b, *region), to `total`, which is
        None at first. It may write into `total`: the runner gives it to one call at a time and to nobody else.
    join : callable
        ``join(totals, regions)``: the result of the pass, as `merge` returns it, from the totals of all regions.
    begin : callable
        ``begin(region)``: the total of a region before any image, None by default.
    """

    step: Callable[..., Any]
    merge: Callable[[Any, Any], Any]
    partial_bytes: int = 0
    label: str = "features"
    fold: Callable[[Any, list[np.ndarray]], Any] | None = None
    join: Callable[[list[Any], Sequence[Region]], Any] = lambda totals, regions: totals
    begin: Callable[[Region], Any] = lambda region: None


def combined(passes: Sequence[Pass]) -> Pass:
    """Return one pass whose result is the list of the results of all."""
    folds = [one.fold for one in passes if one.fold is not None]
    return Pass(
        partial(_steps, [one.step for one in passes]),
        partial(_merges, [one.merge for one in passes]),
        sum(one.partial_bytes for one in passes),
        ", ".join(dict.fromkeys(one.label for one in passes)),
        partial(_folds, folds) if len(folds) == len(passes) else None,
        partial(_joins, [one.join for one in passes]),
        lambda region: [one.begin(region) for one in passes],
    )


def range_pass(n_channels: int = 1) -> Pass:
    """Return the pass that finds the smallest and largest values, (2, n_channels), in the dtype of the images."""
    per_channel = n_channels > 1
    return Pass(
        partial(range_step, n_channels=n_channels),
        merge_ranges,
        label="range",
        fold=partial(add_to_range, per_channel=per_channel),
        join=partial(join_ranges, per_channel=per_channel),
    )


def checked_step(
    step: Callable[..., Partial],
    blocks: list[np.ndarray],
    check: Check | None,
    start: int,
    shared: Sequence[Any],
    inside: Sequence[np.ndarray] = (),
) -> Partial:
    """Call ``step(blocks, start, *shared)`` with one thread of BLAS, after a check of the blocks if they were read.

    `inside` are the positions of the pixels inside a mask, if there is one. The step then gets rows of these pixels.
    """
    if check is not None:
        blocks = check(blocks, *inside)
    with one_blas_thread():
        return step(blocks, start, *shared)


def raw_blocks(blocks: list[np.ndarray], start: int) -> list[np.ndarray]:
    """Step that returns the blocks themselves."""
    return [_owned(block) for block in blocks]


def raw_regions(regions: list[list[np.ndarray]], start: int) -> list[list[np.ndarray]]:
    """Step that returns the chunks of regions themselves."""
    return [raw_blocks(chunks, start) for chunks in regions]


def checked_blocks(blocks: list[np.ndarray], start: int) -> list[np.ndarray]:
    """Step that returns the blocks as they are, for other tasks of the same process."""
    return blocks


def concatenated(earlier: list[Any], later: list[Any]) -> list[Any]:
    """Merge of lists."""
    return earlier + later


def no_result(a: None, b: None) -> None:
    """Merge of steps that write in place and return nothing."""


def _owned(block: np.ndarray) -> np.ndarray:
    """Copy a block that is a view of something larger, which would stay in memory with it, or not in C order."""
    larger = isinstance(block.base, np.ndarray) and block.base.nbytes > block.nbytes
    return block.copy() if larger or not block.flags.c_contiguous else block


def _steps(steps: list[Callable[..., Any]], blocks: list[np.ndarray], start: int, *weights: np.ndarray) -> list[Any]:
    return [step(blocks, start, *weights) for step in steps]


def _folds(folds: list[Callable[..., Any]], totals: list[Any], parts: list[np.ndarray]) -> list[Any]:
    return [fold(total, parts) for fold, total in zip(folds, totals, strict=True)]


def _joins(joins: list[Callable[..., Any]], totals: list[list[Any]], regions: Sequence[Region]) -> list[Any]:
    return [join(list(own), regions) for join, own in zip(joins, zip(*totals, strict=True), strict=True)]


def _merges(merges: list[Callable[[Any, Any], Any]], earlier: list[Any], later: list[Any]) -> list[Any]:
    return [merge(a, b) for merge, a, b in zip(merges, earlier, later, strict=True)]
