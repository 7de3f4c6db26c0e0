"""Scores of images, and images of scores."""

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from imgstack_ml import ImagePCA
from imgstack_ml.decomposition.projection import project, reconstruct
from tests.lib.stacks import photographs, stack_of_spectrum

DTYPES = ["uint8", "uint16", "float32", "float64"]


@pytest.mark.parametrize("fitted", DTYPES)
@pytest.mark.parametrize("later", DTYPES)
def test_images_of_another_dtype_are_projected_as_well(fitted, later):
    X = photographs(30, (8, 7), "uint8") + np.random.default_rng(0).random((8, 7))
    offset = 30_000.3 if "uint8" not in (fitted, later) else 0
    pca = ImagePCA(4).fit((X + offset).astype(fitted))
    Y = (X + offset).astype(later)
    expected = (Y.reshape(30, -1).astype(float) - pca.mean_) @ pca.components_.T.astype(float)
    for data in (Y, da.from_array(Y, chunks=(4, 8, 7))):
        assert_allclose(pca.transform(data), expected, rtol=0, atol=1e-6 * pca.singular_values_[0])


def test_single_precision_images_on_a_large_offset_after_a_fit_in_double():
    X = stack_of_spectrum(40, (50, 40), [100, 50, 20], offset=1e6 + np.random.default_rng(0).random(2000))
    pca = ImagePCA(3).fit(X)
    Y = X.astype(np.float32)
    expected = (Y.reshape(40, -1).astype(float) - pca.mean_) @ pca.components_.T
    assert_allclose(pca.transform(Y), expected, rtol=0, atol=1e-5 * 100)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_to_scores_and_back(dtype):
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((30, 4)))[0].T.astype(dtype)
    mean, scale, scores = rng.random(30), np.array([1.0, 2.0, 3.0, 0.5]), rng.standard_normal((7, 4))
    block = reconstruct((6, 5), scores, axes, mean, scale)
    assert block.shape == (7, 6, 5)
    assert block.dtype == dtype
    assert_allclose(
        block.reshape(7, 30), scores * scale @ axes + mean, rtol=0, atol=1e-5 if dtype == "float32" else 1e-14
    )
    found = project(block, axes, mean, scale)
    assert found.dtype == dtype
    assert_allclose(found, scores, rtol=0, atol=2e-6 if dtype == "float32" else 1e-14)


def test_a_block_of_no_image():
    axes = np.eye(2, 6)
    assert_array_equal(project(np.empty((0, 2, 3)), axes, np.zeros(6), np.ones(2)), np.empty((0, 2)))
    assert reconstruct((2, 3), np.empty((0, 2)), axes, np.zeros(6), np.ones(2)).shape == (0, 2, 3)
