"""The check of input: what passes stays lazy and unread, and what is refused is told what to pass."""

import dask.array as da
import dask.bag as db
import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from imgstack_ml.base.validation import (
    Images,
    check_images,
    data_and_files,
    first_nonfinite,
    is_lazy,
    rows_are_views,
    working_dtype,
)
from imgstack_ml.errors import NonFiniteError

STACK = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


class Estimator(BaseEstimator):
    def fit(self, X):
        self.images_ = check_images(self, X, reset=True)
        return self


@pytest.mark.usefixtures("no_arrays")
@pytest.mark.parametrize("shape", [(3, 20), (3, 4, 5), (3, 2, 2, 5)])
def test_lazy_input_stays_lazy(shape):
    lazy = da.from_array(STACK.reshape(shape), chunks=2)
    estimator = Estimator().fit(lazy)
    assert estimator.images_ == Images(lazy, None)
    assert estimator.image_shape_ == estimator.images_.image_shape == shape[1:]
    assert estimator.n_features_in_ == estimator.images_.n_pixels == 20
    assert check_images(estimator, lazy, reset=False).data is lazy


def test_input_in_memory_is_not_copied():
    images = Estimator().fit(STACK).images_
    assert np.shares_memory(images.data, STACK)
    assert images.files is None
    np.testing.assert_array_equal(Estimator().fit(STACK.tolist()).images_.data, STACK)


def test_chunked_stores_become_lazy_with_their_own_chunks():
    class Store:
        shape, dtype, ndim, chunks = STACK.shape, STACK.dtype, 3, (2, 4, 5)

        def __getitem__(self, key):
            return STACK[key]

    assert is_lazy(Store())
    data = Estimator().fit(Store()).images_.data
    assert data.chunks == ((2, 1), (4,), (5,))
    np.testing.assert_array_equal(data.compute(), STACK)


def test_what_is_lazy_and_has_files():
    assert is_lazy(da.from_array(STACK))
    assert not is_lazy(STACK)
    assert not is_lazy([[1, 2]])
    data, files = data_and_files(STACK)
    assert data is STACK
    assert files is None


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros(3), ValueError, "1D array"),
        (np.zeros((1, 1, 1, 1, 1)), ValueError, r"shape \(1, 1, 1, 1, 1\) and needs .*X\[None\]"),
        (np.zeros((0, 4, 5)), ValueError, "0 sample"),
        (da.zeros((3, 0, 5)), ValueError, r"empty array of shape \(3, 0, 5\)"),
        (da.zeros(3), ValueError, r"shape \(3,\) and needs"),
        (np.ma.masked_array(STACK, STACK > 3), TypeError, r"masked array.*X\.filled\(value\)"),
        (da.zeros((3, 4, 5), dtype=complex), ValueError, r"dtype complex128.*astype\('float32'\)"),
        (da.from_array(STACK)[da.from_array(np.ones(3, bool))], ValueError, "unknown chunk sizes.*compute_chunk_sizes"),
        (db.from_sequence([1]), TypeError, "X is a lazy Bag; Estimator needs a Dask array"),
        (STACK * [[[np.nan]], [[1]], [[1]]], NonFiniteError, "image 0 contains NaN or infinity"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_used_is_refused(X, error, message):
    with pytest.raises(error, match=message):
        Estimator().fit(X)


def test_nan_passes_where_it_may():
    X = np.full((2, 3, 3), np.nan)
    assert check_images(Estimator(), X, reset=True, finite=False).data is X


@pytest.mark.parametrize("kind", [np.asarray, da.from_array], ids=["numpy", "dask"])
def test_images_of_another_shape_than_fitted_are_refused(kind):
    with pytest.raises(NotFittedError):
        check_images(Estimator(), kind(STACK), reset=False)
    estimator = Estimator().fit(kind(STACK))
    with pytest.raises(ValueError, match=r"images of shape \(5, 4\), but Estimator was fitted on .*\(4, 5\)"):
        check_images(estimator, kind(STACK.reshape(3, 5, 4)), reset=False)
    with pytest.raises(ValueError, match=r"shape \(4, 5\) of one image.*X\[None\]"):
        check_images(estimator, kind(STACK[0]), reset=False)
    rows = Estimator().fit(kind(STACK.reshape(3, 20)))
    with pytest.raises(ValueError, match="X has 10 features, but Estimator is expecting 20 features as input"):
        check_images(rows, kind(STACK.reshape(6, 10)), reset=False)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int8", "int16", "bool", "float16", "float32"])
def test_float32_for_what_it_holds_exactly(dtype):
    assert working_dtype(np.dtype(dtype)) == np.float32
    assert working_dtype(np.dtype(">u2")) == np.float32


@pytest.mark.parametrize("dtype", ["uint32", "int32", "int64", "float64"])
def test_float64_for_the_rest(dtype):
    assert working_dtype(np.dtype(dtype)) == np.float64


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_first_nonfinite_image(bad):
    X = np.zeros((4, 3, 2), np.float32)
    assert first_nonfinite(X) is None
    X[2, 1, 1] = X[3, 0, 0] = bad
    assert first_nonfinite(X) == 2
    assert first_nonfinite(np.full((2, 2), np.finfo(np.float64).max)) is None  # the sum alone is infinite
    assert first_nonfinite(STACK) is None


def test_rows_are_views_of_contiguous_images_only():
    assert rows_are_views(STACK)
    assert rows_are_views(STACK[::2])
    assert not rows_are_views(STACK[:, ::2])
