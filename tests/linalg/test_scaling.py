"""Units of images: powers of two that keep squares within float32 and float64."""

import numpy as np
import pytest

from imgstack_ml.linalg.scaling import ALL_ZERO, exponent_of, largest_value, power_of_two

FLOATS = ["float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", FLOATS)
def test_squares_of_images_in_their_units_fit_float32(dtype):
    limits = np.finfo(dtype)
    for value in (limits.max, limits.tiny, limits.smallest_subnormal, limits.tiny * limits.max**0.3, -1e3):
        block = np.array([[0, value, value / 3]], dtype)
        exponent = exponent_of([np.zeros((2, 3), dtype), block])
        work = np.dtype(np.float64 if dtype == "float64" else np.float32)
        scaled = np.abs(block.astype(work) * power_of_two(exponent, work)).max()
        assert 2.0**-86 < scaled < 2.0**33
        assert np.ldexp(scaled, exponent) == abs(block[0, 1])


def test_integers_and_usual_units_are_not_divided():
    for dtype in ("bool", "uint8", "int64", "uint64"):
        assert exponent_of([np.ones((2, 3), dtype)]) == 0
    for value in (1e-9, 1.0, 65535.0, 4e9):
        assert exponent_of([np.full((1, 2), value)]) == 0
    assert power_of_two(0, np.dtype(np.float32)) == 1


def test_zeros_fit_any_units():
    assert exponent_of([np.zeros((2, 3)), np.zeros((0, 3))]) == ALL_ZERO
    assert power_of_two(ALL_ZERO, np.dtype(np.float32)) == 1


def test_the_largest_value_is_that_of_either_sign():
    assert largest_value([np.array([[1, -7]]), np.array([[6, 2]], "uint8")]) == 7
