"""The parameter `range` of histograms and textures: the intensities that are divided into bins or levels."""

from __future__ import annotations

from functools import partial
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np

from ..linalg.extremes import merge_ranges, range_step
from ..passes.runner import Pass

__all__ = ["check_range", "pass_for_range", "range_of"]

_WORDS = ("dtype", "stack")


def check_range(value: Any) -> None:
    """Raise ValueError unless the parameter `range` is "dtype", "stack" or a pair of finite numbers low < high."""
    if value in _WORDS if isinstance(value, str) else _is_pair(value):
        return
    raise ValueError(
        f"range={value!r} is not known; it is 'dtype', 'stack', or a pair of finite numbers low < high, e.g. (0, 1)"
    )


def pass_for_range(value: Any) -> Pass | None:
    """Return the pass that finds the range of the stack; None if `range` is not "stack"."""
    if isinstance(value, str) and value == "stack":
        return Pass(partial(range_step, n_channels=1), merge_ranges, label="range")
    return None


def range_of(value: Any, found: np.ndarray | None, dtype: np.dtype) -> tuple[float, float]:
    """Return (low, high): `found` in a pass, the pair `value`, or the range of `dtype`, which is (-1, 1) for floats.

    The range of an integer dtype ends at its maximum plus 1, so that bins are equal: 32 bins of 8 values for 8 bits.
    """
    if found is not None:
        return float(found[0, 0]), float(found[1, 0])
    if not isinstance(value, str):
        return float(value[0]), float(value[1])
    if dtype.kind == "f":
        return -1.0, 1.0
    if dtype.kind == "b":
        return 0.0, 2.0
    return float(np.iinfo(dtype).min), float(int(np.iinfo(dtype).max) + 1)


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(end, Real) and isfinite(end) for end in value)
        and value[0] < value[1]
    )
