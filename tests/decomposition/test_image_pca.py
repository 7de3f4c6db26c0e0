"""ImagePCA against NumPy's SVD in float64 and scikit-learn's PCA, and everything that may be put into it."""

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from dask.callbacks import Callback
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_info

from imgstack_ml import ImageFlattener, ImagePCA, RankWarning, fit_together, open_stack
from imgstack_ml.errors import NonFiniteError
from tests.lib import fit_stack
from tests.lib.images import write_image
from tests.lib.stacks import (
    assert_components,
    assert_fitted,
    assert_scores,
    counted,
    photographs,
    reference,
    tolerance,
)

SOLVERS = ["gram", "covariance_eigh", "tsqr", "randomized", "auto"]
SCHEDULERS = ["sync", "threads"]
DTYPES = ["uint8", "uint16", "float32", "float64"]
SHAPES = {
    "n < p": (20, 11, 9),
    "n > p": (90, 6, 5),
    "n = p": (30, 6, 5),
    "one channel": (25, 8, 7, 1),
    "RGB": (24, 8, 7, 3),
    "rows": (40, 60),
    "one pixel": (12, 1, 1),
}
CHUNKS = {
    "numpy": None,
    "uneven": (3, 1),
    "single": 1,
    "one": -1,
    "pixels": 7,
}


def chunked(X, chunks):
    """X as a Dask array, or as it is."""
    if CHUNKS[chunks] is None:
        return X
    if chunks == "pixels":
        return da.from_array(X, chunks=(7, 5, 9, 2)[: X.ndim])
    rows = CHUNKS[chunks]
    if chunks == "uneven":
        rows = (*rows, len(X) - sum(rows))
    return da.from_array(X, chunks=(rows, *X.shape[1:]))


def pairwise():
    """Each pair of a shape, solver, dtype, way of chunks and scheduler once at least."""
    for i, shape in enumerate(SHAPES):
        for j, solver in enumerate(SOLVERS):
            dtype, chunks, scheduler = DTYPES[(i + j) % 4], list(CHUNKS)[(i + 2 * j) % 5], SCHEDULERS[(i // 2 + j) % 2]
            yield pytest.param(SHAPES[shape], solver, dtype, chunks, scheduler, id=f"{shape}-{solver}-{dtype}-{chunks}")


@pytest.mark.parametrize(("shape", "solver", "dtype", "chunks", "scheduler"), list(pairwise()))
def test_grid(shape, solver, dtype, chunks, scheduler):
    X = photographs(shape[0], shape[1:], dtype)
    pca = ImagePCA(min(5, *X.reshape(len(X), -1).shape), svd_solver=solver)
    with dask.config.set(scheduler=scheduler):
        scores = pca.fit_transform(chunked(X, chunks))
    ref = assert_fitted(pca, X)
    assert_allclose(pca.mean_, ref.mean, rtol=1e-7)
    assert isinstance(scores, np.ndarray if chunks == "numpy" else da.Array)
    assert_scores(pca, scores, X)


@pytest.mark.slow
def test_processes():
    X = photographs(20, (8, 7))
    with dask.config.set(scheduler="processes", num_workers=2):
        assert_fitted(ImagePCA(4).fit(chunked(X, "uneven")), X)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint32", "bool", "float16", ">u2", ">f4", ">f8"])
@pytest.mark.parametrize("solver", ["gram", "covariance_eigh", "tsqr"])
def test_other_dtypes(dtype, solver):
    values = photographs(30, (6, 5), "uint8") // 2
    X = (values > 60) if dtype == "bool" else values.astype(dtype)
    data = chunked(X, "pixels") if (len(dtype) + len(solver)) % 2 else X
    pca = ImagePCA(3, svd_solver=solver).fit(data)
    assert_fitted(pca, X, rtol=tolerance(np.dtype(dtype).newbyteorder("=")))
    assert_scores(pca, pca.transform(data), X)
    assert pca.components_.dtype.isnative


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(2, 24),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.sampled_from(DTYPES),
    st.sampled_from(SOLVERS),
    st.sampled_from(["sync", "threads"]),
    st.data(),
)
def test_neither_chunks_nor_scheduler_change_the_result(n, shape, dtype, solver, scheduler, data):
    X = photographs(n, shape, dtype, seed=n)
    sizes = [data.draw(st.lists(st.integers(1, m), max_size=4)) for m in X.shape]
    sizes = [tuple(np.diff(np.unique([0, *(np.cumsum(s) % m), m]))) for s, m in zip(sizes, X.shape, strict=True)]
    k = data.draw(st.integers(1, max(1, min(n - 1, X[0].size))))
    with dask.config.set(scheduler=scheduler):
        lazy = ImagePCA(k, svd_solver=solver).fit(da.from_array(X, chunks=sizes))
    whole = ImagePCA(k, svd_solver=solver).fit(X)
    top = whole.explained_variance_[0]
    assert_allclose(lazy.explained_variance_, whole.explained_variance_, rtol=0, atol=tolerance(dtype) * top)
    assert_components(lazy, reference(X))
    assert_components(whole, reference(X))


# against scikit-learn


@pytest.mark.parametrize(
    ("shape", "dtype", "whiten"),
    [
        (shape, dtype, bool((i + j) % 2))
        for i, shape in enumerate([(40, 9, 8), (90, 5, 4), (30, 6, 5)])
        for j, dtype in enumerate(DTYPES)
    ],
)
def test_scikit_learn_says_the_same(shape, dtype, whiten):
    X = photographs(shape[0], shape[1:], dtype)
    rows = X.reshape(len(X), -1).astype(np.float64)
    ours = ImagePCA(5, whiten=whiten).fit(chunked(X, "uneven"))
    theirs = PCA(5, whiten=whiten, svd_solver="full").fit(rows)
    rtol = tolerance(dtype)
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_", "noise_variance_"):
        assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=rtol, err_msg=name)
    assert_allclose(ours.mean_, theirs.mean_, rtol=1e-7)
    assert_allclose(ours.components_, theirs.components_, atol=1e-3)
    assert_allclose(np.sum(ours.components_ * theirs.components_, axis=1), 1, atol=1e-6)  # signs, too
    scale = 1 if whiten else theirs.singular_values_[0]
    assert_allclose(ours.transform(X), theirs.transform(rows), rtol=0, atol=1e-3 * scale)
    assert (ours.n_components_, ours.n_samples_, ours.n_features_in_) == (5, len(X), rows.shape[1])
    model = PCA(5, svd_solver="full").fit(rows)  # whitening changes scores, not the model; scikit-learn mixes them up
    assert_allclose(ours.get_covariance(), model.get_covariance(), rtol=0, atol=1e-5 * model.explained_variance_[0])
    assert_allclose(ours.score_samples(X), model.score_samples(rows), rtol=max(1e-8, rtol))
    assert_allclose(ours.score(chunked(X, "pixels")), model.score(rows), rtol=max(1e-8, rtol))
    restored = theirs.inverse_transform(theirs.transform(rows)).reshape(X.shape)
    assert_allclose(ours.inverse_transform(ours.transform(X)), restored, atol=1e-4 * np.ptp(rows), rtol=0)
    assert_array_equal(ours.get_feature_names_out(), [f"imagepca{j}" for j in range(5)])


@pytest.mark.parametrize(
    ("share", "solver", "dtype"),
    [
        (share, solver, ["uint8", "float64"][(i + j) % 2])
        for i, share in enumerate([1e-9, 0.5, 0.99, 1 - 1e-12])
        for j, solver in enumerate(SOLVERS[:4])
    ],
)
def test_a_share_of_the_variance_takes_as_many_as_scikit_learn(share, solver, dtype):
    X = photographs(25, (6, 5), dtype)
    theirs = PCA(share, svd_solver="full").fit(X.reshape(25, -1).astype(float))
    for data in (X, chunked(X, "uneven")):
        ours = ImagePCA(share, svd_solver=solver).fit(data)
        assert ours.n_components_ == theirs.n_components_
        assert_allclose(ours.explained_variance_, theirs.explained_variance_, rtol=tolerance(dtype), atol=1e-12)
        assert_allclose(
            ours.noise_variance_, theirs.noise_variance_, rtol=1e-4, atol=1e-9 * ours.explained_variance_[0]
        )


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(12, 6, 5), (40, 5, 4), (20, 5, 4)])
def test_none_takes_all_components(solver, shape):
    X = photographs(shape[0], shape[1:], "float64")
    pca = ImagePCA(svd_solver=solver).fit(chunked(X, "uneven"))
    assert pca.n_components_ == min(shape[0], shape[1] * shape[2])
    assert_fitted(pca, X)
    assert_allclose(pca.explained_variance_ratio_.sum(), 1)
    assert pca.noise_variance_ == pytest.approx(0, abs=1e-12 * pca.explained_variance_[0])
    assert_allclose(pca.inverse_transform(pca.transform(X)), X, atol=1e-9)


# scores and reconstructions


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("dtype", "whiten"), [("uint8", True), ("float32", False), ("float64", True)])
def test_transform_equals_fit_transform(solver, dtype, whiten):
    X = photographs(30, (8, 7), dtype)
    for data in (X, chunked(X, "uneven")):
        pca = ImagePCA(4, svd_solver=solver, whiten=whiten)
        at_once = np.asarray(pca.fit_transform(data))
        later = pca.transform(data)
        assert later.dtype == at_once.dtype == pca.components_.dtype == np.asarray(later).dtype
        unit = np.sqrt(pca.explained_variance_) if whiten else 1
        assert_allclose(at_once * unit, np.asarray(later) * unit, rtol=0, atol=1e-5 * pca.singular_values_[0])
        assert_scores(pca, later, X)
        if whiten:
            assert_allclose(np.std(at_once, axis=0, ddof=1), 1, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_images_come_back_as_images(shape):
    X = photographs(shape[0], shape[1:], "uint8")
    lazy = chunked(X, "pixels")
    pca = ImagePCA(1).fit(lazy)
    assert pca.eigenimages_.shape == (1, *shape[1:])
    assert pca.mean_image_.shape == shape[1:]
    assert pca.image_shape_ == shape[1:]
    assert np.shares_memory(pca.eigenimages_, pca.components_)
    back = pca.inverse_transform(pca.transform(lazy))
    assert isinstance(back, da.Array)
    assert back.shape == X.shape
    assert back.chunks[0] == lazy.chunks[0]
    assert_allclose(back.compute(), pca.inverse_transform(pca.transform(X)), rtol=1e-5, atol=1e-3)


def test_lazy_results_declare_what_they_compute():
    for dtype in DTYPES:
        X = chunked(photographs(20, (6, 5), dtype), "pixels")
        pca = ImagePCA(3).fit(X)
        scores = pca.transform(X)
        for lazy in (scores, pca.fit_transform(X), pca.inverse_transform(scores), pca.score_samples(X)):
            computed = lazy.compute()
            assert (lazy.dtype, lazy.shape) == (computed.dtype, computed.shape)
            assert lazy._meta.dtype == computed.dtype
            assert lazy._meta.ndim == computed.ndim
            blocks = [block.compute() for block in lazy.blocks.ravel()]
            assert [len(block) for block in blocks] == list(lazy.chunks[0])


def test_transform_and_plan_read_nothing():
    source = counted(photographs(30, (8, 7)), 10)
    pca = ImagePCA(3)
    pca.plan(source.data)
    assert not source.reads
    pca.fit(source.data)
    assert source.n_reads == 1
    scores = pca.transform(source.data)
    back = pca.inverse_transform(scores)
    pca.score_samples(source.data)
    assert source.n_reads == 1
    back[:10].compute()
    assert source.n_reads == pytest.approx(4 / 3)


def test_fit_transform_reads_no_more_than_fit():
    for solver in ("gram", "tsqr"):
        source = counted(photographs(30, (8, 7)), 10)
        scores = ImagePCA(3, svd_solver=solver).fit_transform(source.data)
        assert scores.chunks == ((10, 10, 10), (3,))
        scores.compute()
        assert set(source.reads.values()) == {1}


# hard stacks


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("shape", "value"), [((10, 6, 5), 7), ((10, 6, 5), 0.1), ((60, 5, 4), 0.1)])
def test_a_constant_stack_has_no_variance_and_says_so(solver, shape, value):
    X = np.full(shape, value, np.uint8 if value == 7 else np.float32)
    for data in (X, chunked(X, "uneven")):
        pca = ImagePCA(3, svd_solver=solver)
        with pytest.warns(RankWarning, match="0 independent"):
            scores = np.asarray(pca.fit_transform(data))
        assert_array_equal(pca.explained_variance_, 0)
        assert_array_equal(pca.explained_variance_ratio_, 0)
        assert pca.noise_variance_ == 0
        assert_allclose(pca.components_ @ pca.components_.T, np.eye(3), atol=1e-5)
        assert_allclose(pca.mean_, X[0].ravel(), rtol=1e-15)
        assert_allclose(scores, 0, atol=1e-6)
        assert_allclose(pca.transform(X), 0, atol=1e-5)
        assert_allclose(pca.inverse_transform(scores), X, rtol=1e-6)


@pytest.mark.parametrize(
    ("solver", "shape", "dtype", "whiten"),
    [
        (solver, [(20, 8, 7), (80, 5, 4)][(i + j) % 2], *kind)
        for i, solver in enumerate(SOLVERS)
        for j, kind in enumerate([("uint8", True), ("float32", False), ("float64", False)])
    ],
)
def test_few_distinct_images(solver, shape, dtype, whiten):
    X = photographs(shape[0], shape[1:], dtype)[np.arange(shape[0]) % 4]
    pca = ImagePCA(6, svd_solver=solver, whiten=whiten)
    with pytest.warns(RankWarning, match="3 independent"):
        scores = np.asarray(pca.fit_transform(chunked(X, "uneven")))
    ref = reference(X)
    assert_allclose(pca.explained_variance_[:3], ref.explained_variance(3), rtol=tolerance(dtype))
    assert_array_equal(pca.explained_variance_[3:], 0)
    assert_allclose(pca.components_ @ pca.components_.T, np.eye(6), atol=1e-5)
    assert np.all(np.isfinite(scores))
    back = pca.inverse_transform(pca.transform(X))
    assert_allclose(back, X, rtol=1e-4, atol=1e-4 * float(X.max()))


@pytest.mark.parametrize(
    ("solver", "shape", "k"),
    [
        (solver, shape, [1, 2, None][(i + j) % 3])
        for i, solver in enumerate(SOLVERS)
        for j, shape in enumerate([(2, 1, 1), (2, 6, 5), (3, 2, 1), (2, 1, 2)])
    ],
)
def test_very_few_images(solver, shape, k):
    X = photographs(shape[0], shape[1:], "float64")
    if k is not None and k > min(shape[0], np.prod(shape[1:])):
        k = 1
    for chunks in ("numpy", "single"):
        assert_fitted(ImagePCA(k, svd_solver=solver).fit(chunked(X, chunks)), X)


@pytest.mark.parametrize("wrap", [np.asarray, lambda x: chunked(x, "one")])
def test_one_image_has_no_variance(wrap):
    with pytest.raises(ValueError, match=r"at least 2 images.*n_samples=1"):
        ImagePCA(1).fit(wrap(photographs(1, (6, 5))))


@pytest.mark.parametrize(
    ("value", "dtype", "chunks"),
    [
        ([np.nan, np.inf, -np.inf][(i + j) % 3], dtype, chunks)
        for i, dtype in enumerate(["float16", "float32", "float64"])
        for j, chunks in enumerate(["numpy", "single", "pixels"])
    ],
)
def test_an_image_that_is_not_finite_is_named(value, dtype, chunks):
    X = photographs(60, (5, 4), "uint8").astype(dtype)
    X[17, 2, 3] = X[40, 0, 0] = value
    for solver in ("gram", "covariance_eigh", "tsqr"):
        with pytest.raises(NonFiniteError, match=r"image \d+ contains NaN or infinity.*X\[keep\]") as caught:
            ImagePCA(2, svd_solver=solver).fit(chunked(X, chunks))
        assert caught.value.index in ((17,) if chunks == "numpy" else (17, 40))


def test_the_file_that_is_not_finite_is_named(tmp_path):
    X = photographs(7, (6, 5), "float32")
    X[4, 3, 2] = np.nan
    files = [write_image(tmp_path / f"img{i}.tif", image) for i, image in enumerate(X)]
    stack = open_stack(tmp_path)
    for solver in ("gram", "covariance_eigh", "tsqr"):
        with pytest.raises(NonFiniteError, match=r"image 4 \(.*img4\.tif'\)"):
            ImagePCA(2, svd_solver=solver).fit(stack)
    picked = stack[[6, 4, 2, 1]]
    with pytest.raises(NonFiniteError, match=r"image 1 \(.*img4\.tif'\)"):
        ImagePCA(2).fit(picked)
    keep = np.arange(7) != 4
    assert_fitted(ImagePCA(2).fit(stack[keep]), X[keep])
    assert len(files) == 7


def test_unknown_chunks_are_refused_with_the_cure():
    X = chunked(photographs(20, (6, 5)), "single")
    unknown = X[da.from_array(np.arange(20) % 3 > 0, chunks=5)]
    for method in (ImagePCA(2).fit, ImagePCA(2).fit_transform, ImagePCA(2).plan, ImagePCA(2).fit(X).transform):
        with pytest.raises(ValueError, match=r"unknown chunk sizes.*X\.compute_chunk_sizes\(\)"):
            method(unknown)
    assert_fitted(ImagePCA(2).fit(unknown.compute_chunk_sizes()), X.compute()[np.arange(20) % 3 > 0])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("rows", [(5, 0, 5, 10), (0, 20), (0, 0, 7, 0, 13, 0)])
def test_empty_chunks(solver, rows):
    X = photographs(20, (6, 5))
    lazy = da.from_array(X, chunks=(rows, 6, 5))
    pca = ImagePCA(3, svd_solver=solver)
    scores = pca.fit_transform(lazy)
    assert_fitted(pca, X)
    assert scores.chunks[0] == rows
    assert_scores(pca, scores, X)
    assert_scores(pca, pca.transform(lazy), X)
    assert_allclose(pca.inverse_transform(pca.transform(lazy)), pca.inverse_transform(pca.transform(X)), rtol=1e-5)
    assert_allclose(pca.score(lazy), pca.score(X))


def test_images_selected_by_a_mask():
    X = photographs(20, (6, 5))
    mask = np.arange(20) > 11
    lazy = chunked(X, "single").rechunk((4, 6, 5))[mask]
    assert_fitted(ImagePCA(3).fit(lazy), X[mask])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("dtype", "shape"), [("uint8", (30, 8, 7)), ("float32", (60, 5, 4)), ("float64", (30, 8, 7))])
def test_the_input_is_never_changed_and_may_be_read_only(solver, dtype, shape):
    X = photographs(shape[0], shape[1:], dtype)
    before = X.copy()
    X.setflags(write=False)
    blocks = da.map_blocks(read_only, da.from_array(X, chunks=(9, *shape[1:])), dtype=dtype, meta=X[:0])
    for data in (X, blocks, X.reshape(len(X), -1)):
        pca = ImagePCA(3, svd_solver=solver)
        scores = pca.fit_transform(data)
        pca.transform(data)
        pca.inverse_transform(scores)
        pca.score_samples(data)
        assert_array_equal(X, before)
    for fitted in (pca.components_, pca.mean_):
        assert not np.shares_memory(fitted, X)


def read_only(block):
    block = block.copy()
    block.setflags(write=False)
    return block


@pytest.mark.parametrize("solver", SOLVERS)
def test_strided_input(solver):
    X = photographs(30, (6, 7, 3))
    for view in (
        X.transpose(0, 2, 1, 3),
        X[::2, ::-1],
        X[..., 1],
        np.asfortranarray(X),
        np.broadcast_to(X[:, :, :1], X.shape),
        np.moveaxis(X, 3, 1),
    ):
        for data in (view, da.from_array(view, chunks=(11, *view.shape[1:]))):
            assert_fitted(ImagePCA(2, svd_solver=solver).fit(data), view)


def test_mappings_from_disk(tmp_path):
    X = photographs(20, (6, 5), "uint16")
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert_fitted(ImagePCA(2).fit(mapped), X)


def test_chunked_stores():
    zarr = pytest.importorskip("zarr")
    X = photographs(20, (6, 5))
    store = zarr.array(X, chunks=(7, 6, 5))
    pca = ImagePCA(2)
    scores = pca.fit_transform(store)
    assert isinstance(scores, da.Array)
    assert_fitted(pca, X)
    assert isinstance(pca.transform(store), da.Array)


@pytest.mark.parametrize(
    "X",
    [
        np.zeros(5),
        np.zeros((3, 2, 2, 2, 2)),
        np.zeros((0, 4, 4)),
        np.zeros((4, 0, 4)),
        np.zeros((4, 4, 4), complex),
        np.array([["a", "b"], ["c", "d"]]),
    ],
    ids=lambda x: f"{x.shape} {x.dtype}",
)
@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_no_stack_is_refused(X, lazy):
    with pytest.raises(ValueError):
        ImagePCA(1).fit(da.from_array(X) if lazy else X)


def test_data_frames_of_dask_are_refused_with_the_cure():
    dataframe = pytest.importorskip("dask.dataframe", exc_type=ImportError)
    frame = dataframe.from_pandas(pd.DataFrame(np.zeros((4, 3))), npartitions=1)
    with pytest.raises(TypeError, match=r"to_dask_array\(lengths=True\)"):
        ImagePCA(1).fit(frame)


def test_images_of_another_shape_are_refused():
    pca = ImagePCA(2).fit(photographs(20, (6, 5)))
    for bad in (photographs(4, (5, 6)), photographs(4, (30,)), photographs(4, (6, 5, 3))):
        for data in (bad, da.from_array(bad)):
            for method in (pca.transform, pca.score_samples, pca.score):
                with pytest.raises(ValueError, match=r"fitted on images of shape \(6, 5\)"):
                    method(data)
    for scores in (np.zeros((4, 3)), np.zeros(2), da.zeros((4, 1))):
        with pytest.raises(ValueError, match=r"needs rows of 2 values, \(n_rows, 2\)"):
            pca.inverse_transform(scores)


def test_nothing_works_before_fit():
    X = photographs(20, (6, 5))
    for method in ("transform", "inverse_transform"):
        with pytest.raises(NotFittedError):
            getattr(ImagePCA(2), method)(X)


# warnings point at the line of the user


WAYS = {
    "fit": lambda X: ImagePCA(3).fit(X),
    "fit of keywords": lambda X: ImagePCA(3).fit(X=X),
    "fit_transform": lambda X: ImagePCA(3).fit_transform(X),
    "set_output": lambda X: ImagePCA(3).set_output(transform="pandas").fit_transform(X),
    "partial_fit": lambda X: ImagePCA(3).partial_fit(X),
    "Pipeline.fit": lambda X: make_pipeline(ImageFlattener(), ImagePCA(3)).fit(X),
    "Pipeline.fit_transform": lambda X: make_pipeline(ImageFlattener(), ImagePCA(3)).fit_transform(X),
    "inside a Pipeline": lambda X: make_pipeline(ImagePCA(3), MinMaxScaler()).fit(X),
    "fit_together": lambda X: fit_together([ImagePCA(3)], X),
}


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_rank_warning_points_at_the_line_of_the_user(way, lazy):
    X = photographs(20, (6, 5))[np.arange(20) % 2]
    with pytest.warns(RankWarning, match="20 images have 1 independent") as record:
        WAYS[way](chunked(X, "uneven") if lazy else X)
    assert [(one.filename, one.lineno) for one in record] == [(__file__, WAYS[way].__code__.co_firstlineno)]


@pytest.mark.parametrize("piped", [False, True])
def test_a_convergence_warning_points_at_the_line_of_the_user(piped):
    pca, stack = fit_stack.estimator("randomized", max_passes=2), fit_stack.stack("randomized")
    model = make_pipeline(ImageFlattener(), pca) if piped else pca
    with pytest.warns(ConvergenceWarning, match=r"After 1 products.*max_passes=2") as record:
        model.fit(stack)
    assert [one.filename for one in record] == [__file__]


# scikit-learn's protocol


@parametrize_with_checks(
    [
        ImagePCA(n_components=1),
        ImagePCA(0.9, svd_solver="tsqr", whiten=True),
        ImagePCA(2, svd_solver="randomized", random_state=0),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([ImagePCA(), ImagePCA(0.9, svd_solver="randomized", random_state=0)])
def test_scikit_learns_checks_with_other_parameters(estimator, check):
    check(estimator)


def test_parameters_clone_and_repr():
    pca = ImagePCA(3, svd_solver="tsqr", whiten=True, memory_limit="1GB")
    X = photographs(20, (6, 5))
    copy = clone(pca.fit(X))
    assert copy.get_params() == pca.get_params()
    assert not hasattr(copy, "components_")
    assert "ImagePCA" in copy._repr_html_()
    assert "svd_solver='tsqr'" in repr(copy)
    assert copy.set_params(n_components=2).fit(X).n_components_ == 2


def test_fitting_again_forgets_the_first_fit():
    pca = ImagePCA(2).fit(pd.DataFrame(photographs(20, (4,), "float64"), columns=list("abcd")))
    assert list(pca.feature_names_in_) == list("abcd")
    X = chunked(photographs(30, (6, 5)), "uneven")
    pca.fit(X)
    assert not hasattr(pca, "feature_names_in_")
    assert_fitted(pca, X.compute())


def test_fitted_attributes_are_plain_and_survive_without_the_files(tmp_path):
    X = photographs(9, (6, 5))
    for i, image in enumerate(X):
        write_image(tmp_path / f"{i}.png", image)
    stack = open_stack(tmp_path)
    pca = ImagePCA(3).fit(stack)
    expected = np.asarray(pca.transform(stack))
    for file in stack.files:
        os.remove(file)
    again = pickle.loads(pickle.dumps(pca))
    assert_array_equal(again.transform(X), expected)
    for name, value in vars(again).items():
        assert value is None or isinstance(value, np.ndarray | float | int | str | tuple), name
        if isinstance(value, np.ndarray):
            assert type(value) is np.ndarray
            assert value.flags.c_contiguous, name
    assert again.explained_variance_.dtype == again.mean_.dtype == np.float64
    assert isinstance(again.noise_variance_, float)
    assert type(again.n_components_) is int


def test_set_output():
    X = photographs(20, (6, 5))
    pca = ImagePCA(2).set_output(transform="pandas")
    frame = pca.fit_transform(X)
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == ["imagepca0", "imagepca1"]
    assert_allclose(frame, pca.transform(X), rtol=1e-4, atol=1e-2)


# threads


def blas_threads():
    return sorted((lib["filepath"], lib["num_threads"]) for lib in threadpool_info() if lib["user_api"] == "blas")


@pytest.mark.usefixtures("two_blas_threads")
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_blas_limit_comes_back(solver):
    before = blas_threads()
    X = chunked(photographs(60, (5, 4), "float32"), "uneven")
    ImagePCA(2, svd_solver=solver).fit(X)
    assert blas_threads() == before
    bad = da.map_blocks(lambda block: block * np.nan, X, dtype=X.dtype)
    with pytest.raises(NonFiniteError):
        ImagePCA(2, svd_solver=solver).fit(bad)
    broken = da.map_blocks(lambda block: block / 0 if block.ndim > 9 else 1 / 0, X, dtype=X.dtype, meta=X._meta)
    with pytest.raises(ZeroDivisionError):
        ImagePCA(2, svd_solver=solver).fit(broken)
    assert blas_threads() == before


@pytest.mark.usefixtures("two_blas_threads")
@pytest.mark.parametrize("solver", SOLVERS)
def test_fits_at_the_same_time_do_not_disturb_each_other(solver):
    before = blas_threads()
    callbacks = set(Callback.active)
    arrays = [photographs(60, (5, 4), "uint8", seed) for seed in range(4)]
    meeting = threading.Barrier(4)

    def fit(X):
        meeting.wait(30)
        for _ in range(3):
            pca = ImagePCA(3, svd_solver=solver).fit(chunked(X, "uneven"))
        return pca

    with ThreadPoolExecutor(4) as pool:
        for X, pca in zip(arrays, pool.map(fit, arrays), strict=True):
            assert_fitted(pca, X)
    assert blas_threads() == before
    left = Callback.active - callbacks  # global to the process: one left behind watches every later graph
    Callback.active -= left
    assert not left


def test_progress_goes_to_stderr_and_only_if_asked(capfd):
    X = chunked(photographs(20, (6, 5)), "uneven")
    ImagePCA(2).fit(X)
    assert capfd.readouterr() == ("", "")
    ImagePCA(2, progress=True).fit(X)
    out, err = capfd.readouterr()
    assert out == ""
    assert "20/20" in err
