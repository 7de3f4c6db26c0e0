"""The check of input: what passes stays lazy and unread, and what is refused is told what to pass."""

from pathlib import Path

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pytest
import xarray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from imgstack_ml.base.validation import (
    Images,
    check_images,
    check_rows,
    data_and_files,
    is_lazy,
    rows_are_views,
    working_dtype,
)
from imgstack_ml.errors import NonFiniteError

STACK = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


class Sparse:
    """As sparse arrays are: with a shape and a dtype, and dense only on demand."""

    __array_priority__ = 1

    def __init__(self, dense):
        self.shape, self.dtype, self.ndim = dense.shape, dense.dtype, dense.ndim

    def __getitem__(self, key):
        return self

    def todense(self):
        raise NotImplementedError


class Variable:
    """As those of netCDF4 are: masked where a value is missing."""

    shape, dtype, ndim = STACK.shape, STACK.dtype, STACK.ndim

    def __array__(self, dtype=None, copy=None):
        return np.ma.masked_array(STACK, STACK > 3)


def named(data, axes):
    return xarray.DataArray(data, dims=[{"c": "channel"}.get(axis, axis) for axis in axes])


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
        (list(np.ma.masked_array(STACK, STACK > 3)), TypeError, "masked array"),
        (Variable(), TypeError, "masked array"),
        (da.ma.masked_array(da.from_array(STACK), STACK > 3), TypeError, r"masked array.*dask\.array\.ma\.filled\(X"),
        (da.from_array(STACK).map_blocks(Sparse, meta=Sparse(STACK)), TypeError, r"sparse \(Sparse\).*block\.todense"),
        (Sparse(STACK), TypeError, r"sparse \(Sparse\).*X\.todense\(\)"),
        ([da.from_array(image) for image in STACK], TypeError, r"list that holds a dask\.Array.*dask\.array\.stack\(X"),
        ([[da.ones((2, 4, 5))]], TypeError, r"dask\.array\.concatenate\(X\)"),
        ([named(image, "yx") for image in STACK], TypeError, "list that holds a xarray.DataArray"),
        (named(STACK, "yxt"), TypeError, r"axes \('y', 'x', 't'\); Estimator needs.*\.transpose\('time', 'y', 'x'\)"),
        (named(STACK, "txy"), TypeError, r"axes \('t', 'x', 'y'\)"),
        (named(da.from_array(STACK), "yxt"), TypeError, r"axes \('y', 'x', 't'\)"),
        (named(STACK[0], "yx"), TypeError, r"axes \('y', 'x'\)"),
        (xarray.Dataset({"images": named(STACK, "tyx")}), TypeError, r"Dataset.*X\['images'\]"),
        (np.zeros((3, 4, 5), "M8[s]"), ValueError, r"dtype datetime64\[s\].*astype\('float32'\)"),
        (np.zeros((3, 20), "m8[s]"), ValueError, "dtype timedelta64"),
        (da.zeros((3, 4, 5), dtype="M8[s]"), ValueError, "dtype datetime64"),
        (da.zeros((3, 4, 5), dtype=complex), ValueError, r"dtype complex128.*abs\(X\), or X\.real"),
        ("a/b.png", TypeError, r"the path 'a/b\.png'.*open_stack\('a/b\.png'\)"),
        (Path("b.png"), TypeError, r"open_stack\('b\.png'\)"),
        (["a.png", Path("b.png")], TypeError, r"2 paths.*open_stack\(X\)"),
        (np.array(["a.png", "b.png"]), TypeError, r"open_stack\(list\(X\)\)"),
        ({"a": STACK}, TypeError, r"of type dict.*X\['a'\]"),
        (None, TypeError, r"X is None.*open_stack\(folder\)"),
        (b"GIF", TypeError, r"of type bytes.*BytesIO\(X\)"),
        (iter(STACK), TypeError, r"np\.stack\(list\(X\)\)"),
        (da.from_array(STACK)[da.from_array(np.ones(3, bool))], ValueError, "unknown chunk sizes.*compute_chunk_sizes"),
        (db.from_sequence([1]), TypeError, "X is a lazy Bag; Estimator needs a Dask array"),
        (STACK * [[[np.nan]], [[1]], [[1]]], NonFiniteError, "image 0 contains NaN or infinity"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_used_is_refused(X, error, message):
    with pytest.raises(error, match=message):
        Estimator().fit(X)


@pytest.mark.parametrize("axes", [("t", "y", "x"), "zyx", "tyxc", ("sample", "feature"), ("dim_0", "dim_1", "dim_2")])
@pytest.mark.parametrize("kind", [np.asarray, da.from_array], ids=["numpy", "dask"])
def test_arrays_with_names_of_axes_are_taken_where_the_order_is_that_of_a_stack(axes, kind):
    X = kind(STACK.reshape({2: (3, 20), 3: (3, 4, 5), 4: (3, 2, 2, 5)}[len(axes)]))
    images = Estimator().fit(named(X, axes)).images_
    assert type(images.data) is type(X)
    np.testing.assert_array_equal(images.data, X)
    assert is_lazy(named(X, axes)) == (kind is da.from_array)


def test_rows_of_numbers():
    rows = STACK.reshape(3, 20).astype(float)
    for X in (rows, rows.tolist(), named(rows, ("sample", "score"))):
        np.testing.assert_array_equal(check_rows("here", X, 20).data, rows)
    lazy = da.from_array(rows)
    assert check_rows("here", lazy, 20).data is lazy
    rows[1, 3] = np.nan
    assert check_rows("here", rows, 20, finite=False).data is rows
    for X, error, message in (
        (rows, NonFiniteError, "image 1"),
        (STACK, ValueError, r"shape \(3, 4, 5\); here needs rows of 20 values"),
        (np.ma.masked_array(rows), TypeError, r"X\.filled"),
        (da.ma.masked_array(lazy), TypeError, r"ma\.filled"),
        (list(lazy), TypeError, "list"),
        (rows * 1j, ValueError, "complex128; here needs"),
    ):
        with pytest.raises(error, match=message):
            check_rows("here", X, 20)


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


def test_rows_are_views_of_contiguous_images_only():
    assert rows_are_views(STACK)
    assert rows_are_views(STACK[::2])
    assert not rows_are_views(STACK[:, ::2])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dask.delayed(STACK), r"X is a Delayed.*dask.array.from_delayed\(X, shape, dtype\)"),
        (
            [dask.delayed(STACK[0])],
            r"dask.array.stack\(\[dask.array.from_delayed\(one, shape, dtype\) for one in X\]\)",
        ),
        ([STACK[0], STACK[1, :3]], r"image 0 has \(4, 5\), image 1 has \(3, 5\)"),
        ([[1, 2], [3, 4], [5]], r"image 0 has \(2,\), image 2 has \(1,\)"),
    ],
    ids=["delayed", "list of delayed", "ragged", "ragged rows"],
)
def test_what_is_no_array_is_refused_before_and_after_fit(given, message):
    for estimator, reset in ((Estimator(), True), (Estimator().fit(STACK), False)):
        with pytest.raises((TypeError, ValueError), match=message):
            check_images(estimator, given, reset=reset)
