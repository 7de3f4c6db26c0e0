"""ImageHistogram: equal to numpy.histogram of one channel."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from imgstack_ml import ImageHistogram
from tests.lib.features import (
    DTYPES,
    LAZY_GRID,
    SHAPES,
    any_images,
    assert_same,
    check_in_memory,
    check_lazy,
    histogram_pairs,
    histograms,
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_in_memory(shape, dtype):
    check_in_memory(histogram_pairs, shape, dtype)


@pytest.mark.parametrize(("shape", "chunks", "dtype", "scheduler"), LAZY_GRID)
def test_lazy(shape, chunks, dtype, scheduler):
    check_lazy(histogram_pairs, shape, chunks, dtype, scheduler)


def test_values_at_the_edges_of_bins():
    values = np.arange(256, dtype=np.uint8)
    for bins in (1, 2, 3, 10, 64, 255, 256, 257):
        for limits in ((0, 256), (0, 255), (3, 200), (10.5, 11.5), (-7, 999), (300, 400)):
            for dtype in ("uint8", "int8", "uint16", "int16", "float32"):
                stack = values.astype(dtype)[None]
                assert_same(ImageHistogram(bins, limits).fit_transform(stack), histograms(stack, bins, limits))


def test_images_outside_the_range_have_density_0():
    stack = any_images((4, 9, 8), "uint8") // 2
    stack[2] = 255
    result = ImageHistogram(4, (0, 128), density=True).fit_transform(stack)
    assert_array_equal(result[2], 0)
    assert_same(result[:2], histograms(stack[:2], 4, (0, 128), density=True))


def test_names():
    names = ImageHistogram(2).fit(any_images((3, 16, 16), "uint8")).get_feature_names_out()
    assert list(names) == ["c0_bin0", "c0_bin1"]
