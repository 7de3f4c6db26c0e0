"""Smallest and largest values of images and stacks, against NumPy."""

from functools import reduce

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from imgstack_ml.linalg.extremes import extremes_of, joined_channels, merge_ranges, range_step
from tests.lib.blocks import DTYPES, cut, images


@pytest.mark.parametrize("shape", [(12,), (4, 3), (4, 3, 2)])
def test_joined_channels_are_a_view(shape):
    X = images(5, shape)
    joined = joined_channels(X)
    assert joined.shape == (5, 1, 12) if len(shape) == 1 else (5, 4, 3 * (*shape, 1)[2])
    assert np.shares_memory(joined, X)
    assert_array_equal(joined.ravel(), X.ravel())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_extremes_of_images_and_stacks_are_numpys(n_channels, dtype):
    X = images(7, (5, 4, n_channels), dtype)
    planes = X.reshape(7, -1, n_channels)
    lowest, highest = extremes_of(joined_channels(X), n_channels)
    assert_array_equal(lowest, planes.min(axis=1))
    assert_array_equal(highest, planes.max(axis=1))
    expected = np.stack([planes.min(axis=(0, 1)), planes.max(axis=(0, 1))])
    found = reduce(
        merge_ranges, [range_step(some, 0, n_channels=n_channels) for some in ([X[:1], X[1:3]], cut(X[3:], 2))]
    )
    assert_array_equal(found, expected)
    assert found.dtype == X.dtype.newbyteorder("=")
