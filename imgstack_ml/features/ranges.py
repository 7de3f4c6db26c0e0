"""The range of intensities that histograms and textures divide into steps."""

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
    """Refuse a `range` parameter that is neither a word that is known nor a pair (low, high)."""
    if value in _WORDS if isinstance(value, str) else _is_pair(value):
        return
    raise ValueError(
        f"range={value!r} is not known; it is 'dtype', 'stack', or a pair of finite numbers low < high, e.g. (0, 1)"
    )


def pass_for_range(value: Any) -> Pass | None:
    """Return the pass that the range needs: none unless it is that of the stack."""
    return (
        Pass(partial(range_step, n_channels=1), merge_ranges, label="range")
        if isinstance(value, str) and value == "stack"
        else None
    )


def range_of(value: Any, found: np.ndarray | None, dtype: np.dtype) -> tuple[float, float]:
    """Return the ends of the range: given, found in a pass, or of a dtype, (-1, 1) for floats as in scikit-image.

    That of integers ends one above the largest, so that each integer is 1 wide: 8 bits make 32 bins of 8 values.
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
