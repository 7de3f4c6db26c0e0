"""StackCenterer: digits, reads, laziness."""

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from imgstack_ml import StackCenterer, open_stack
from imgstack_ml.errors import NonFiniteError
from tests.lib.grids import chunked, pairwise
from tests.lib.images import write_image
from tests.lib.stacks import counted, images

DTYPES = ["uint8", "int16", "int64", "bool", "float16", "float32", "float64", ">u2"]


@pytest.mark.parametrize(
    ("shape", "dtype", "with_std"), pairwise([(20, 60), (20, 6, 5, 3), (1, 4, 4)], DTYPES, [False, True])
)
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
