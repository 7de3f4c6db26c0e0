"""ChannelStatistics: equal, to the last bit, to NumPy's functions of one channel."""

import pytest

from imgstack_ml import ChannelStatistics
from tests.lib.features import DTYPES, LAZY_GRID, SHAPES, any_images, check_in_memory, check_lazy, statistics_pairs


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_in_memory(shape, dtype):
    check_in_memory(statistics_pairs, shape, dtype)


@pytest.mark.parametrize(("shape", "chunks", "dtype", "scheduler"), LAZY_GRID)
def test_lazy(shape, chunks, dtype, scheduler):
    check_lazy(statistics_pairs, shape, chunks, dtype, scheduler)


def test_names():
    stack = any_images((3, 16, 16, 2), "uint8")
    assert list(ChannelStatistics(("max",), (2.5,)).fit(stack).get_feature_names_out()) == [
        "c0_max",
        "c0_percentile2.5",
        "c1_max",
        "c1_percentile2.5",
    ]
