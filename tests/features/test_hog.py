"""HOGFeatures: the vector of skimage.feature.hog for one image."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from imgstack_ml import HOGFeatures
from tests.lib.features import LAZY_GRID, SHORT_GRID, any_images, check_in_memory, check_lazy, hog_pairs


@pytest.mark.parametrize(("shape", "dtype"), SHORT_GRID)
def test_in_memory(shape, dtype):
    check_in_memory(hog_pairs, shape, dtype)


@pytest.mark.parametrize(("shape", "chunks", "dtype", "scheduler"), LAZY_GRID)
def test_lazy(shape, chunks, dtype, scheduler):
    check_lazy(hog_pairs, shape, chunks, dtype, scheduler)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize(
    ("dtype", "factor"), [("float32", 1e-30), ("float32", 1e37), ("float64", 1e-140), ("float64", 1e140)]
)
def test_in_any_units(dtype, factor, root):
    images = np.abs(any_images((3, 16, 16), "float64"))
    images = (images / images.max()).astype(dtype)
    features = HOGFeatures(cells_per_block=(1, 1), transform_sqrt=root)
    usual = features.fit_transform(images)
    assert_allclose(features.fit_transform(images * np.dtype(dtype).type(factor)), usual, atol=1e-3)


def test_names():
    names = HOGFeatures(cells_per_block=(2, 1)).fit(any_images((3, 16, 16, 2), "uint8")).get_feature_names_out()
    assert (names[0], names[-1]) == ("block0_0_cell0_0_orientation0", "block0_1_cell1_0_orientation8")
