"""Signs of components depend on neither sign nor rounding of what was computed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from imgstack_ml.linalg.signs import component_signs
from tests.lib.blocks import steady


def test_signs_make_the_largest_entry_positive():
    rows = np.array([[1.0, -2.0, 0.5], [3.0, 1.0, -2.0], [0.0, 0.0, -1e-300]])
    assert_array_equal(component_signs(rows), [-1, 1, -1])


@steady(40)
@given(hnp.arrays(np.float64, (3, 6), elements=st.integers(-4, 4).map(float)), st.integers(0, 7))
def test_signs_depend_on_neither_sign_nor_rounding(rows, flips):
    signed = rows * component_signs(rows)[:, None]
    flip = np.array([-1.0 if flips >> j & 1 else 1.0 for j in range(3)])
    noisy = rows * flip[:, None] * (1 + 1e-7 * np.sin(np.arange(18)).reshape(3, 6))
    assert_allclose(noisy * component_signs(noisy)[:, None], signed, rtol=1e-6)


def test_signs_of_zeros_and_of_no_rows_are_harmless():
    assert_array_equal(component_signs(np.zeros((2, 3), np.float32)), [1, 1])
    assert component_signs(np.empty((0, 3))).shape == (0,)
