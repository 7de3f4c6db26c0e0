"""The parameter `range` of histograms and textures."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from imgstack_ml import ChannelStatistics, ImageHistogram, TextureFeatures
from tests.lib.features import any_images, assert_same, histograms, textures_like


@pytest.mark.parametrize(
    ("dtype", "limits"),
    [
        ("bool", (0, 2)),
        ("uint8", (0, 256)),
        ("int8", (-128, 128)),
        ("uint16", (0, 65536)),
        ("int32", (-(2**31), 2**31)),
        ("uint64", (0, 2.0**64)),
        ("float32", (-1, 1)),
        ("float64", (-1, 1)),
    ],
)
def test_the_range_of_a_dtype(dtype, limits):
    stack = any_images((5, 9, 8), dtype)
    features = ImageHistogram(16).fit(stack)
    assert features.range_ == limits
    assert_same(features.transform(stack), histograms(stack, 16, limits))
    assert textures_like("dtype").fit(stack).range_ == limits


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_constant_stacks(dtype):
    stack = np.full((4, 9, 8), 7, dtype)
    assert_same(ImageHistogram(5, "stack").fit_transform(stack), histograms(stack, 5, (7, 7)))
    assert np.isfinite(TextureFeatures(range="stack").fit_transform(stack)).all()
    assert_array_equal(ChannelStatistics(("std",)).fit_transform(stack), 0)
