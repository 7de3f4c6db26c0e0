"""HOGFeatures: the vector of skimage.feature.hog for one image."""

from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose

from imgstack_ml import HOGFeatures
from tests.lib.features import (
    LAZY_GRID,
    SHORT_GRID,
    any_images,
    assert_same,
    check_in_memory,
    check_lazy,
    gradients,
    hog_pairs,
)


@pytest.mark.parametrize(("shape", "dtype"), SHORT_GRID)
def test_in_memory(shape, dtype):
    check_in_memory(hog_pairs, shape, dtype)


@pytest.mark.parametrize(("shape", "chunks", "dtype", "scheduler"), LAZY_GRID)
def test_lazy(shape, chunks, dtype, scheduler):
    check_lazy(hog_pairs, shape, chunks, dtype, scheduler)


@pytest.mark.parametrize(
    "cells", [((4, 4), (2, 2)), ((5, 3), (1, 3)), ((5, 8), (3, 1)), ((1, 1), (1, 1)), ((17, 16), (1, 1))]
)
@pytest.mark.parametrize("norm", ["L1", "L1-sqrt", "L2", "L2-Hys"])
def test_cells_of_all_sizes_are_scikit_images(cells, norm, monkeypatch):
    monkeypatch.setattr("imgstack_ml.features.hog._BAND_PIXELS", 1000)  # a few rows of cells at a time
    for i, (dtype, shape) in enumerate(product(["uint8", "float32", "float64"], [(2, 17, 16), (2, 17, 16, 3)])):
        stack = np.random.default_rng(i).integers(0, 6, shape).astype(dtype)  # gradients of 45 degrees are common
        for n in (7 + i, 28):
            options = {"orientations": n, "block_norm": norm, "transform_sqrt": n % 2 == 0}
            options |= {"pixels_per_cell": cells[0], "cells_per_block": cells[1]}
            assert_same(HOGFeatures(**options).fit_transform(stack), gradients(stack, **options))


def test_an_unknown_norm_is_refused_in_fit():
    with pytest.raises(ValueError, match="block_norm='L3' is not known; it is one of 'L1', 'L1-sqrt', 'L2', 'L2-Hys'"):
        HOGFeatures(block_norm="L3").fit(any_images((3, 32, 32), "uint8"))


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
