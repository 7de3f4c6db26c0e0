"""HOGFeatures: the vector of skimage.feature.hog for one image."""

import pytest

from imgstack_ml import HOGFeatures
from tests.lib.features import LAZY_GRID, SHORT_GRID, any_images, check_in_memory, check_lazy, hog_pairs


@pytest.mark.parametrize(("shape", "dtype"), SHORT_GRID)
def test_in_memory(shape, dtype):
    check_in_memory(hog_pairs, shape, dtype)


@pytest.mark.parametrize(("shape", "chunks", "dtype", "scheduler"), LAZY_GRID)
def test_lazy(shape, chunks, dtype, scheduler):
    check_lazy(hog_pairs, shape, chunks, dtype, scheduler)


def test_names():
    names = HOGFeatures(cells_per_block=(2, 1)).fit(any_images((3, 16, 16, 2), "uint8")).get_feature_names_out()
    assert (names[0], names[-1]) == ("block0_0_cell0_0_orientation0", "block0_1_cell1_0_orientation8")
