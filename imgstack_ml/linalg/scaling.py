"""Powers of two by which images are divided before they are multiplied, so that no square over- or underflows.

Float32 ends at 1e38: squares of values of 1e20 overflow, and those of 1e-24 are 0. Dividing by a power of two changes
no digit, so that results in any units are the same up to a factor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["ALL_ZERO", "exponent_of", "largest_value", "power_of_two"]

ALL_ZERO = -1024  # exponent of images of zeros, which fit any units
_STEP = 32  # exponents are multiples of it: images in usual units are not divided, and most batches have the same one


def exponent_of(blocks: Sequence[np.ndarray]) -> int:
    """Exponent e of the units 2^e for some images: 0 for integers, and for floats between 2^-32 and 2^32.

    The largest value is between 2^-32 and 2^32 in these units.
    """
    if all(block.dtype.kind != "f" for block in blocks):
        return 0
    largest = largest_value(blocks)
    binary = _STEP * int((np.frexp(largest)[1] - 1) / _STEP)
    # 2^128 is no float32, and 2^1024 no float64.
    return ALL_ZERO if largest == 0 else -96 if binary == -128 else max(binary, -992)


def largest_value(blocks: Sequence[np.ndarray], start: int = 0) -> float:
    """Largest magnitude of all values; it is a step of a pass, for which `start` means nothing here."""
    return max((max(float(block.max()), -float(block.min())) for block in blocks if block.size), default=0.0)


def power_of_two(exponent: int, dtype: np.dtype) -> np.floating:
    """2^-exponent, the factor from intensities to the units of `exponent`; 1 for images of zeros."""
    factor: np.floating = np.ldexp(dtype.type(1), 0 if exponent == ALL_ZERO else -exponent)
    return factor
