"""ImageFlattener: images to rows and back, lazily."""

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from imgstack_ml import ImageFlattener, ImagePCA
from tests.lib.grids import LAZY, chunked
from tests.lib.stacks import images

SHAPES = [(20, 60), (20, 6, 5), (20, 6, 5, 1), (20, 6, 5, 3), (1, 4, 4), (3, 1, 1)]
DTYPES = ["uint8", "int16", "int64", "bool", "float16", "float32", "float64", ">u2"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_flattening_and_back(shape, dtype):
    X = images(shape, dtype)
    flattener = ImageFlattener().fit(X)
    assert flattener.image_shape_ == shape[1:]
    assert flattener.n_features_in_ == np.prod(shape[1:])
    rows = flattener.transform(X)
    assert rows.dtype == X.dtype
    assert_array_equal(rows, X.reshape(len(X), -1))
    assert_array_equal(flattener.inverse_transform(rows), X)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunks", LAZY)
def test_lazy_stacks_stay_lazy_and_keep_their_row_chunks(shape, chunks):
    X = images(shape)
    lazy = chunked(X, chunks)
    flattener = ImageFlattener().fit(lazy)
    rows = flattener.transform(lazy)
    back = flattener.inverse_transform(rows)
    for result, expected in ((rows, X.reshape(len(X), -1)), (back, X)):
        assert isinstance(result, da.Array)
        assert result.chunks[0] == lazy.chunks[0]
        assert result.shape == expected.shape
        assert result.dtype == result._meta.dtype == expected.dtype
        assert result._meta.ndim == expected.ndim
        assert_array_equal(result.compute(), expected)
        assert [len(block.compute()) for block in result.blocks.ravel()] == list(lazy.chunks[0])


def test_rows_cut_between_pixels_become_images():
    X = images((20, 6, 5))
    rows = da.from_array(X.reshape(20, -1), chunks=(7, 4))
    assert_array_equal(ImageFlattener().fit(X).inverse_transform(rows), X)


def test_a_mean_and_eigenimages_become_images():
    X = images((20, 6, 5, 3))
    flattener = ImageFlattener().fit(X)
    pca = ImagePCA(2).fit(flattener.transform(X))
    assert flattener.inverse_transform(pca.components_).shape == (2, 6, 5, 3)
    assert flattener.inverse_transform(pca.mean_[None]).shape == (1, 6, 5, 3)


def test_strided_stacks_are_flattened_in_the_order_of_their_pixels():
    X = images((20, 6, 5, 3)).transpose(0, 2, 1, 3)[::2, ::-1]
    assert_array_equal(ImageFlattener().fit_transform(X), X.reshape(10, -1))
    assert_array_equal(ImageFlattener().fit_transform(da.from_array(X, chunks=(3, 2, 2, 2))), X.reshape(10, -1))


@pytest.mark.parametrize("rows", [np.zeros((4, 29)), np.zeros(30), np.zeros((2, 6, 5)), da.zeros((4, 31))])
def test_rows_of_another_length_are_refused(rows):
    with pytest.raises(ValueError, match=r"needs rows of 30 values, \(n_rows, 30\)"):
        ImageFlattener().fit(images((20, 6, 5))).inverse_transform(rows)
