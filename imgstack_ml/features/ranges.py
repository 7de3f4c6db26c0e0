"""The parameter `range` of histograms and textures: the intensities that are divided into bins or levels.

By default, 8-bit images have the range of their dtype, which they fill, and which needs no read. A wider dtype says
little of the values in it: 12 bits in uint16, floats from 0 to 255. Their range is learned from the stack.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..base.validation import is_pair
from ..base.warn import warn
from ..errors import ImageError
from ..linalg.large_integers import LAST, differences, exact_number
from ..passes.steps import Pass, range_pass

__all__ = ["as_bins_need", "check_for_range", "check_range", "pass_for_range", "range_of"]

_WORDS = ("auto", "dtype", "stack")


class _BeyondDtypeError(ImageError, ValueError):
    """A float image has values that ``range="dtype"`` does not cover."""

    def __init__(self, index: int, file: str | None, value: float):
        super().__init__(
            index,
            file,
            f" has the value {value:g}, and range='dtype' means (-1, 1) for floats, as in scikit-image. Learn the "
            "range from the stack: range='stack'; or give a pair, e.g. range=(0, 255)",
        )
        self._more = (value,)


def check_range(value: Any) -> None:
    """Raise ValueError unless the parameter `range` is one of the words or a pair of finite numbers low < high."""
    if value in _WORDS if isinstance(value, str) else is_pair(value) and value[0] < value[1]:
        return
    raise ValueError(
        f"range={value!r} is not known; it is {', '.join(map(repr, _WORDS))}, or a pair of finite numbers low < high, "
        "e.g. (0, 1)"
    )


def pass_for_range(value: Any, dtype: np.dtype) -> Pass | None:
    """Return the pass that finds the range of the stack; None if `range` and dtype say it."""
    if isinstance(value, str) and (value == "stack" or (value == "auto" and dtype.itemsize > 1)):
        return range_pass(1)
    return None


def range_of(value: Any, found: np.ndarray | None, dtype: np.dtype) -> tuple[float, float]:
    """Return (low, high): `found` in a pass, the pair `value`, or the range of `dtype`, which is (-1, 1) for floats.

    The range of an integer dtype ends at its maximum plus 1, so that bins are equal: 32 bins of 8 values for 8 bits.
    Ends are floats; those that float64 does not hold are ints.
    """
    if found is not None:
        return exact_number(found[0, 0]), exact_number(found[1, 0])
    if not isinstance(value, str):
        return exact_number(value[0]), exact_number(value[1])
    if dtype.kind == "f":
        return -1.0, 1.0
    if dtype.kind == "b":
        return 0.0, 2.0
    return float(np.iinfo(dtype).min), float(int(np.iinfo(dtype).max) + 1)


def as_bins_need(
    planes: np.ndarray, limits: tuple[float, float], close: bool = False
) -> tuple[np.ndarray, tuple[float, float], int]:
    """Return images and limits that floats can divide into bins or levels: the same ones, but where these cannot be.

    64-bit integers beyond 2**53, and all if `close`, become float64, less the lower limit: their differences are exact.
    Huge or tiny floats are multiplied by a power of two, which changes no digit; its exponent is the last result.
    """
    (low, high), power = limits, 0
    largest, width = max(abs(low), abs(high)), high / 2 - low / 2
    if planes.dtype.kind in "iu" and planes.itemsize == 8 and largest >= LAST:
        planes, (low, high) = differences(planes, limits)
    elif planes.dtype.kind == "f" and width > 0:
        info = np.finfo(planes.dtype)
        if width < info.tiny / info.eps or largest > info.max / 4:
            power = -int(np.frexp(largest)[1])
            planes, low, high = np.ldexp(planes, power), float(np.ldexp(low, power)), float(np.ldexp(high, power))
    return (planes.astype(np.float64) - low, (0.0, high - low), power) if close else (planes, (low, high), power)


def check_for_range(value: Any, limits: tuple[float, float], n_steps: int) -> Callable[[np.ndarray], None] | None:
    """Return what to check blocks by: nothing, but for ``range="dtype"``, which can leave no feature that varies."""
    if isinstance(value, str) and value == "dtype":
        return partial(_check_block, limits=limits, n_steps=n_steps)
    return None


def _check_block(block: np.ndarray, *, limits: tuple[float, float], n_steps: int) -> None:
    """Raise for floats beyond the range of floats; warn if all of different pixels are in one bin or level."""
    low, high = float(block.min()), float(block.max())
    if block.dtype.kind == "f" and not limits[0] <= low <= high <= limits[1]:
        values = block.reshape(len(block), -1)
        largest = np.take_along_axis(values, np.abs(values).argmax(axis=1)[:, None], 1)[:, 0]
        index = int((np.abs(largest) > limits[1]).argmax())
        raise _BeyondDtypeError(index, None, float(largest[index]))
    step = (limits[1] - limits[0]) / n_steps
    if low < high and (low - limits[0]) // step == (high - limits[0]) // step:
        warn(
            f"range='dtype' means {limits} for {block.dtype}, and different pixels are all in one of its {n_steps} "
            "parts, so that features of them are constant. Learn the range from the stack: range='stack'; or give a "
            "pair, e.g. range=(0, 4096)"
        )
