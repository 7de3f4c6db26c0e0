"""64-bit integers beyond those that float64 tells apart: their differences, means and quantiles, exact before rounding.

Numbers such as time stamps in nanoseconds are 1.7e18, where neighbouring float64 are 256 apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np

__all__ = ["between", "beyond_float64", "differences", "exact_means", "exact_number", "refuse_inexact"]

LAST = 2**53  # float64 holds all integers up to it


def beyond_float64(values: np.ndarray) -> bool:
    """Whether some of the values are integers beyond 2**53 in magnitude."""
    return _is_64_bit(values) and values.size > 0 and max(int(values.max()), -int(values.min())) > LAST


def refuse_inexact(values: np.ndarray) -> None:
    """Raise ValueError if some of the values are integers beyond 2**53: what needs them as float64 would be wrong."""
    if beyond_float64(values):
        value = max(int(values.max()), -int(values.min()))
        raise ValueError(
            f"The images have integers of up to {value} in magnitude, and float64 tells them apart up to 2**53 = "
            f"{LAST}. Subtract the smallest first, e.g. X - X.min()."
        )


def exact_number(value: Any) -> int | float:
    """Return a number as a float if there is an equal one, otherwise as an int."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, int) and float(value) != value else float(value)


def differences(values: np.ndarray, limits: Sequence[Any]) -> tuple[np.ndarray, list[float]]:
    """Return 64-bit integers and two or more limits as float64, less an integer near the first limit.

    Parameters
    ----------
    values : ndarray of int64 or uint64
    limits : sequence of int, float or Fraction
        Values below the first one come out below it, no matter how far.
    """
    info = np.iinfo(values.dtype)
    base = min(max(floor(limits[0]), info.min), info.max)
    unsigned = values.astype(values.dtype.newbyteorder("="), copy=False).view(np.uint64)
    steps = unsigned - np.uint64(base % 2**64)  # modulo 2^64, which is right from the base on
    found = np.minimum(steps.astype(np.float64), 2.0**64 - 2**11)
    found = np.where(found.astype(np.uint64) > steps, np.nextafter(found, 0), found)  # never up, over the edge of a bin
    found[values < base] = -1
    return found, [float(Fraction(limit) - base) for limit in limits]


def exact_means(rows: np.ndarray) -> list[float]:
    """Return means along the last axis, of (m, n) 64-bit integers: correctly rounded, without overflow."""
    upper, lower = (rows >> 32).sum(axis=1), (rows & 0xFFFFFFFF).sum(axis=1)
    return [(int(a) * 2**32 + int(b)) / rows.shape[1] for a, b in zip(upper, lower, strict=True)]


def between(a: np.ndarray, b: np.ndarray, share: Any) -> np.ndarray:
    """Return a + share * (b - a) of integers as exact fractions (dtype object), for quantiles between two of them."""
    a, b = a.astype(object), b.astype(object)
    fractions: np.ndarray = a + (b - a) * np.frompyfunc(Fraction, 1, 1)(share)
    return fractions


def _is_64_bit(values: np.ndarray) -> bool:
    return values.dtype.kind in "iu" and values.itemsize == 8
