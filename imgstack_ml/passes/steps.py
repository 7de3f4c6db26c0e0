"""Steps and merges, the NumPy side of a pass: what a pass learns, several of them in one, and raw copies of blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..base.gate import Check
from .blas import one_blas_thread

__all__ = ["Pass", "checked_step", "combined", "concatenated", "no_result", "raw_blocks"]

Partial = TypeVar("Partial")


class Pass(NamedTuple):
    """What one pass learns: see `PassRunner.run`."""

    step: Callable[..., Any]
    merge: Callable[[Any, Any], Any]
    partial_bytes: int = 0
    label: str = "features"


def combined(passes: Sequence[Pass]) -> Pass:
    """Return one pass whose result is the list of the results of all."""
    return Pass(
        partial(_steps, [one.step for one in passes]),
        partial(_merges, [one.merge for one in passes]),
        sum(one.partial_bytes for one in passes),
        ", ".join(dict.fromkeys(one.label for one in passes)),
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


def concatenated(earlier: list[np.ndarray], later: list[np.ndarray]) -> list[np.ndarray]:
    """Merge of lists of blocks."""
    return earlier + later


def no_result(a: None, b: None) -> None:
    """Merge of steps that write in place and return nothing."""


def _owned(block: np.ndarray) -> np.ndarray:
    """Copy a block that is a view of something larger, which would stay in memory with it, or not in C order."""
    larger = isinstance(block.base, np.ndarray) and block.base.nbytes > block.nbytes
    return block.copy() if larger or not block.flags.c_contiguous else block


def _steps(steps: list[Callable[..., Any]], blocks: list[np.ndarray], start: int) -> list[Any]:
    return [step(blocks, start) for step in steps]


def _merges(merges: list[Callable[[Any, Any], Any]], earlier: list[Any], later: list[Any]) -> list[Any]:
    return [merge(a, b) for merge, a, b in zip(merges, earlier, later, strict=True)]
