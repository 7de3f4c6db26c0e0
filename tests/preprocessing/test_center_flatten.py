"""ImageFlattener and StackCenterer: shapes, laziness, digits, reads."""

import pickle

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from imgstack_ml import ImageFlattener, ImagePCA, StackCenterer, open_stack
from imgstack_ml.errors import NonFiniteError
from tests.lib.images import write_image
from tests.lib.stacks import counted, photographs

SHAPES = [(20, 60), (20, 6, 5), (20, 6, 5, 1), (20, 6, 5, 3), (1, 4, 4), (3, 1, 1)]
DTYPES = ["uint8", "int16", "int64", "bool", "float16", "float32", "float64", ">u2"]
CHUNKS = {"uneven": ((3, 8, 1, 8), -1, -1, -1), "pixels": (7, 5, 9, 2), "empty": ((5, 0, 15), -1, -1, -1)}


def images(shape, dtype="uint8"):
    values = photographs(shape[0], shape[1:], "uint8") // 2
    return (values > 60) if dtype == "bool" else values.astype(dtype)


def chunked(X, chunks):
    return da.from_array(X, chunks=CHUNKS[chunks][: X.ndim] if len(X) == 20 else 1)


# ImageFlattener


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
@pytest.mark.parametrize("chunks", CHUNKS)
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
    with pytest.raises(ValueError, match=r"needs rows of 30 values.*\(6, 5\)"):
        ImageFlattener().fit(images((20, 6, 5))).inverse_transform(rows)


# StackCenterer


@pytest.mark.parametrize("with_std", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(20, 60), (20, 6, 5, 3), (1, 4, 4)])
def test_centring_as_numpy_does(shape, dtype, with_std):
    X = images(shape, dtype)
    mean, std = X.astype(float).mean(axis=0), X.astype(float).std(axis=0)
    scale = np.where(std > 0, std, 1) if with_std else 1
    single = np.dtype(dtype).itemsize <= 2 or dtype == "float32"
    for data in (X, chunked(X, "pixels"), chunked(X, "empty")):
        centerer = StackCenterer(with_std=with_std).fit(data)
        assert_allclose(centerer.mean_, mean, rtol=1e-14)
        assert centerer.mean_.shape == shape[1:]
        assert centerer.n_passes_ == 1
        assert centerer.n_samples_ == len(X)
        assert (centerer.scale_ is None) is not with_std
        out = centerer.transform(data)
        assert isinstance(out, type(data))
        assert out.dtype == np.asarray(out).dtype == (np.float32 if single else np.float64)
        assert_allclose(out, (X - mean) / scale, rtol=0, atol=1e-5 if single else 1e-12)
        back = centerer.inverse_transform(out)
        assert isinstance(back, type(data))
        assert_allclose(back, X.astype(float), rtol=0, atol=1e-4 if single else 1e-11)


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_small_changes_on_large_offsets_keep_their_digits(scheduler):
    rng = np.random.default_rng(0)
    for X in (
        rng.normal(30_000, 10, (300, 7, 6)).round().astype(np.uint16),
        (1e6 + rng.standard_normal((300, 7, 6))).astype(np.float32),
        1e9 + rng.standard_normal((300, 7, 6)),
    ):
        exact = X - X[0].astype(float)
        with dask.config.set(scheduler=scheduler):
            centerer = StackCenterer(with_std=True).fit(da.from_array(X, chunks=(11, 3, 6)))
        assert_allclose(centerer.mean_ - X[0], exact.mean(axis=0), atol=1e-6)
        assert_allclose(centerer.scale_, exact.std(axis=0), rtol=1e-7)
        assert_allclose(centerer.transform(X).mean(axis=0, dtype=float), 0, atol=1e-3)


def test_a_pixel_that_never_changes_is_not_divided_by_rounding():
    X = np.random.default_rng(0).random((50, 4, 3))
    X[:, 1, 1] = 0.1
    centerer = StackCenterer(with_std=True).fit(da.from_array(X, chunks=(7, 4, 3)))
    assert centerer.scale_[1, 1] == 1
    assert_array_equal(centerer.transform(X)[:, 1, 1], 0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 30), st.lists(st.integers(1, 9), max_size=6), st.sampled_from(DTYPES), st.booleans())
def test_chunks_do_not_change_the_mean(n, sizes, dtype, threads):
    X = images((n, 4, 3), dtype)
    edges = np.unique([0, *(np.cumsum(sizes, dtype=int) % n), n])
    lazy = da.from_array(X, chunks=(tuple(np.diff(edges)), 3, 2))
    with dask.config.set(scheduler="threads" if threads else "sync"):
        centerer = StackCenterer(with_std=True).fit(lazy)
    std = X.astype(float).std(axis=0)
    assert_allclose(centerer.mean_, X.astype(float).mean(axis=0), rtol=1e-13, atol=1e-13)
    assert_allclose(centerer.scale_, np.where(std > 1e-12, std, 1), rtol=1e-10)


def test_fit_reads_once_and_transform_not_at_all():
    source = counted(images((20, 6, 5)), 3)
    centerer = StackCenterer(with_std=True).fit(source.data)
    assert set(source.reads.values()) == {1}
    assert len(source.reads) == 20
    centerer.inverse_transform(centerer.transform(source.data))
    assert source.n_reads == 1


def test_a_bad_image_is_named(tmp_path):
    X = images((7, 6, 5), "float32")
    X[5, 0, 0] = np.inf
    with pytest.raises(NonFiniteError, match="image 5"):
        StackCenterer().fit(X)
    for i, image in enumerate(X):
        write_image(tmp_path / f"{i}.tif", image)
    with pytest.raises(NonFiniteError, match=r"image 5 \(.*5\.tif"):
        StackCenterer().fit(open_stack(tmp_path))


def test_results_repeat_bit_for_bit():
    X = da.from_array(np.random.default_rng(0).random((200, 9, 8)), chunks=(3, 9, 8))
    first = StackCenterer(with_std=True).fit(X)
    for _ in range(3):
        again = StackCenterer(with_std=True).fit(X)
        assert_array_equal(again.mean_, first.mean_)
        assert_array_equal(again.scale_, first.scale_)


# both


ESTIMATORS = [ImageFlattener(), StackCenterer(), StackCenterer(with_std=True)]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_the_input_is_never_changed_and_may_be_read_only(estimator, dtype):
    X = images((20, 6, 5), dtype)
    X.setflags(write=False)
    for data in (X, chunked(X, "pixels")):
        out = clone(estimator).fit(data).transform(data)
        clone(estimator).fit(data).inverse_transform(out)
        np.asarray(out)
    assert_array_equal(X, images((20, 6, 5), dtype))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_wrong_input_is_refused(estimator):
    X = images((20, 6, 5))
    with pytest.raises(NotFittedError):
        clone(estimator).transform(X)
    with pytest.raises(NotFittedError):
        clone(estimator).inverse_transform(X)
    fitted = clone(estimator).fit(X)
    for bad in (images((4, 5, 6)), images((4, 30)), da.from_array(images((4, 6, 5, 3)))):
        with pytest.raises(ValueError, match=r"fitted on images of shape \(6, 5\)"):
            fitted.transform(bad)
    with pytest.raises(ValueError, match=r"shape \(6, 5\) of one image.*X\[None\]"):
        fitted.transform(X[0])
    unknown = chunked(X, "uneven")[da.from_array(np.arange(20) > 4, chunks=5)]
    for method in (fitted.transform, clone(estimator).fit):
        with pytest.raises(ValueError, match=r"compute_chunk_sizes\(\)"):
            method(unknown)
    for bad in (np.zeros(5), np.zeros((2, 2, 2, 2, 2)), np.zeros((0, 4, 4)), da.zeros((3, 0, 2))):
        with pytest.raises(ValueError):
            clone(estimator).fit(bad)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_image_stacks_go_in_like_arrays(estimator, tmp_path):
    X = images((9, 6, 5, 3))
    for i, image in enumerate(X):
        write_image(tmp_path / f"{i}.png", image)
    stack = open_stack(tmp_path)
    fitted = clone(estimator).fit(stack)
    out = fitted.transform(stack)
    assert isinstance(out, da.Array)
    assert_allclose(out, clone(estimator).fit(X).transform(X))
    assert_allclose(pickle.loads(pickle.dumps(fitted)).transform(X), out)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_set_output_frames_rows_and_passes_stacks(estimator):
    framed = clone(estimator).set_output(transform="pandas")
    X = images((20, 6, 5), "float64")
    assert isinstance(framed.fit_transform(X), np.ndarray)
    assert isinstance(framed.fit_transform(chunked(X, "pixels")), da.Array)
    table = pd.DataFrame(X.reshape(20, -1), columns=[f"v{j}" for j in range(30)])
    out = framed.fit_transform(table)
    assert isinstance(out, pd.DataFrame)
    assert list(out.columns) == list(table.columns) == list(framed.get_feature_names_out())


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_html_and_feature_names(estimator):
    fitted = clone(estimator).fit(images((20, 6, 5)))
    assert type(estimator).__name__ in fitted._repr_html_()
    assert list(fitted.get_feature_names_out())[:2] == ["x0", "x1"]
    assert len(fitted.get_feature_names_out()) == 30
