"""ImageFlattener: images to rows and back, lazily."""

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from imgstack_ml import ImageFlattener, ImagePCA
from tests.lib.grids import LAZY, chunked
from tests.lib.stacks import counted, images

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


HALF = np.arange(20).reshape(4, 5) % 3 == 1


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("shape", [(7, 4, 5), (7, 4, 5, 2)])
def test_columns_inside_a_mask_are_given_and_put_back(shape, lazy):
    X = np.random.default_rng(0).normal(size=shape)
    X[:, ~HALF] = np.nan
    X[2, 0, 1] = np.nan  # inside; for an imputer
    mask = np.broadcast_to(HALF.reshape(4, 5, *(1,) * (len(shape) - 3)), shape[1:])
    stack = da.from_array(X, chunks=(3, *shape[1:])) if lazy else X
    flattener = ImageFlattener(HALF, fill_value=-1).fit(stack)
    rows = flattener.transform(stack)
    assert isinstance(rows, da.Array) == lazy
    np.testing.assert_array_equal(rows, X[:, mask])
    np.testing.assert_array_equal(flattener.inverse_transform(rows), np.where(mask, X, -1))
    names = flattener.get_feature_names_out()
    assert names.tolist() == [f"x{i}" for i in np.flatnonzero(mask)]
    of_rows = ImageFlattener(mask.ravel()).set_output(transform="pandas")
    table = of_rows.fit_transform(X.reshape(7, -1))
    assert table.columns.tolist() == names.tolist()
    np.testing.assert_array_equal(table, X[:, mask])


def test_pixels_that_are_finite_in_all_images():
    X = np.random.default_rng(0).normal(size=(7, 4, 5))
    X[3, ~HALF] = np.inf
    source = counted(X, 2)
    flattener = ImageFlattener("finite").fit(source.data)
    np.testing.assert_array_equal(flattener.mask_, HALF)
    assert flattener.n_passes_ == source.n_reads == 1
    assert ImageFlattener("finite").fit(X).n_passes_ == 0
    assert "n_passes_" not in vars(flattener.set_params(mask=None).fit(X))


def test_a_fill_value_that_rows_cannot_hold():
    rows = np.zeros((2, HALF.sum()), "uint8")
    for value in (300, 0.5, np.nan, "white", None):
        flattener = ImageFlattener(HALF, fill_value=value).fit(np.zeros((3, 4, 5)))
        with pytest.raises(ValueError, match=r"fill_value=.* uint8\. Set ImageFlattener\(fill_value=0\)"):
            flattener.inverse_transform(rows)
    with_nan = ImageFlattener(HALF, fill_value=np.nan).fit(np.zeros((3, 4, 5)))
    assert np.isnan(with_nan.inverse_transform(rows.astype("float32"))[:, ~HALF]).all()
    large = ImageFlattener(HALF, fill_value=1e6).fit(np.zeros((3, 4, 5)))
    assert large.inverse_transform(rows.astype("float32")).max() == 1e6
    with pytest.raises(ValueError, match=r"fill_value=1000000\.0 is no number that the rows can hold, .* float16"):
        large.inverse_transform(rows.astype("float16"))
    with pytest.raises(ValueError, match=f"needs rows of {HALF.sum()} values"):
        with_nan.inverse_transform(np.zeros((2, 20)))
