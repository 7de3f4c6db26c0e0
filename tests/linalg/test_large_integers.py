"""64-bit integers beyond 2**53, against Python's integers."""

from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from imgstack_ml.linalg.large_integers import (
    between,
    beyond_float64,
    differences,
    exact_means,
    exact_number,
    refuse_inexact,
)

ENDS = {
    "int64": [-(2**63), -(2**62) - 3, -1, 0, 2**53 + 1, 2**63 - 1],
    "uint64": [0, 7, 2**53 + 1, 2**63 + 1, 2**64 - 1],
}


@pytest.mark.parametrize("dtype", ["int64", "uint64", ">i8"])
def test_differences_and_means_are_those_of_pythons_integers(dtype):
    ends = ENDS[np.dtype(dtype).newbyteorder("=").name]
    values = np.array(ends, dtype)
    for low in [*ends, 0.5, -1e30, 1e30, Fraction(2**62) + Fraction(1, 3)]:
        found, (bottom,) = differences(values, [low])
        assert 0 <= bottom < 1 or not ends[0] <= low <= ends[-1]
        for value, difference in zip(ends, found.tolist(), strict=True):
            if value < low:
                assert difference < bottom or bottom == 0 > difference
            else:
                exact = Fraction(value) - Fraction(low)
                assert abs(Fraction(difference) - Fraction(bottom) - exact) <= exact * Fraction(2) ** -50
    assert exact_means(values[None].astype(values.dtype.newbyteorder("="))) == [sum(ends) / len(ends)]
    assert between(values[:1], values[-1:], np.array([0.25]))[0] == ends[0] + Fraction(ends[-1] - ends[0], 4)


def test_differences_are_never_rounded_up():
    values = np.array([2**62 - 1, 2**62, 2**62 + 1, 2**63 - 1])
    assert_array_equal(differences(values, [0])[0], [2.0**62 - 2**9, 2.0**62, 2.0**62, 2.0**63 - 2**10])


def test_numbers_that_float64_holds_are_floats():
    for value in (3, np.int64(2**62), 0.5, np.float32(1e30), np.bool_(True), 2**53):
        assert isinstance(exact_number(value), float)
    assert exact_number(np.uint64(2**64 - 1)) == 2**64 - 1 != float(2**64 - 1)


def test_only_what_float64_rounds_is_beyond_it():
    for values in (np.array([2**53, -(2**53)]), np.array([1e300]), np.zeros((0, 3), "int64"), np.array([255], "uint8")):
        assert not beyond_float64(values)
        refuse_inexact(values)
    for value in (2**53 + 1, -(2**53) - 1):
        with pytest.raises(ValueError, match=rf"up to {2**53 + 1} .*X - X\.min\(\)"):
            refuse_inexact(np.array([0, value]))
