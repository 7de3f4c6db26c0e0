"""Scores of images, and images of scores."""

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from imgstack_ml import ImagePCA
from imgstack_ml.decomposition.projection import project, reconstruct, residual_squares
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


@pytest.mark.parametrize("large", [2**20, 1], ids=["small", "large"])
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_squares_of_few_large_images_with_and_without_a_second_look(dtype, large, monkeypatch):
    """Images that are faint beside their scores, and others; of more pixels than a sum in float32 has terms.

    Scores of large images are guessed first from a part of their pixels.
    """
    monkeypatch.setattr("imgstack_ml.decomposition.projection._LARGE", large)
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(5003, 3)))[0].T
    mean = rng.uniform(60, 90, 5003)
    images = (
        mean + np.array([[900, 0, 20], [1100, -300, 0], [3, 2, 1]]) @ axes + rng.normal(0, [[9], [0.3], [9]], (3, 5003))
    )
    block = np.rint(images).astype(dtype) if dtype == "uint8" else images
    scores = (block - mean) @ axes.T
    squares = np.square(block - mean - scores @ axes).sum(axis=1)
    for kind in ("float32", "float64") if dtype == "uint8" else ("float64",):
        found = residual_squares(np.split(block.reshape(3, 1, -1), [2]), axes.astype(kind), mean, dtype=kind)
        assert_allclose(found[0], scores, rtol=1e-5, atol=1e-3)
        assert_allclose(found[1], squares, rtol=1e-4 if kind == "float32" else 1e-9)
