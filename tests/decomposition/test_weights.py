"""Weights of images: each counts as often as its weight says, as if it were repeated; one of weight 0 is absent."""

import shutil

import dask
import dask.array as da
import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from imgstack_ml import (
    ComponentFilter,
    ImageFlattener,
    ImagePCA,
    MemoryLimitError,
    NonFiniteError,
    RankWarning,
    StackCenterer,
    load_model,
    save_model,
)
from imgstack_ml.decomposition import records
from imgstack_ml.linalg import integers
from tests.lib import fit_stack
from tests.lib.stacks import photographs

K = 4
SOLVERS = ("auto", "gram", "covariance_eigh", "tsqr", "randomized")
NAMES = ("components_", "mean_", "explained_variance_", "explained_variance_ratio_", "residual_variance_image_")


def weighted_stack(n, shape, dtype="float64", seed=0):
    """Images of separate singular values, also when repeated, and weights 0 to 3."""
    X = photographs(n, shape, dtype, seed)
    return X, np.random.default_rng(seed).integers(0, 4, n)


def oracle(X, weights, k=K, repeat=True):
    """Singular values, components, mean, variances and what is left of each pixel, in float64.

    Of images repeated; or, which takes less time, of the rows about the weighted mean times roots of weights.
    """
    degrees, rows = weights.sum() - 1, X.reshape(len(X), -1).astype(np.float64)
    if repeat:
        rows = np.repeat(rows, weights, axis=0)
        mean = rows.mean(axis=0)
        rows -= mean
    else:
        rows, weights = rows[weights > 0], weights[weights > 0]
        heaviest = rows[np.argmax(weights)].copy()
        rows -= heaviest
        offset = weights @ rows / weights.sum()
        mean, rows = heaviest + offset, (rows - offset) * np.sqrt(weights)[:, None]
    s, axes = np.linalg.svd(rows, full_matrices=False)[1:]
    left = rows - rows @ axes[:k].T @ axes[:k]
    return s, axes[:k], mean, s**2 / degrees, (left**2).sum(axis=0) / degrees


def assert_equals_repeats(pca, X, weights, rtol, k=K):
    s, axes, mean, variances, left = oracle(X, weights, k)
    assert_allclose(pca.explained_variance_, variances[:k], atol=rtol * variances[0])
    assert_allclose(pca.singular_values_, s[:k], atol=rtol * s[0])
    assert_allclose(pca.explained_variance_ratio_, variances[:k] / variances.sum(), atol=rtol)
    assert_allclose(pca.mean_, mean, rtol=1e-12)
    assert_allclose(np.abs(np.sum(pca.components_ * axes, axis=1)), 1, rtol=max(rtol, 1e-5) if rtol > 1e-9 else 1e-10)
    assert_allclose(pca.residual_variance_image_.ravel(), left, atol=max(rtol, 2e-14) * variances[0] * 10)
    assert (pca.n_samples_, pca.total_weight_) == (np.count_nonzero(weights), weights.sum())


@pytest.mark.parametrize(("n", "shape"), [(40, (12, 11)), (130, (7, 6))])
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-12), ("float32", 1e-6), ("uint8", 1e-6), ("uint16", 1e-6)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_weights_equal_repeated_images(solver, dtype, rtol, n, shape):
    X, weights = weighted_stack(n, shape, dtype)
    pca = ImagePCA(K, svd_solver=solver, random_state=0, tol=1e-7)
    rtol = rtol if solver != "randomized" else 1e-6
    scores = pca.fit_transform(X, sample_weight=weights)
    assert_equals_repeats(pca, X, weights, rtol)
    assert_array_equal(scores, pca.transform(X))
    lazy = clone(pca).fit(da.from_array(X, chunks=(17, -1, -1)), sample_weight=da.from_array(weights, chunks=10))
    assert_equals_repeats(lazy, X, weights, rtol)
    repeated = clone(pca).fit(np.repeat(X, weights, axis=0))
    assert_allclose(lazy.noise_variance_, repeated.noise_variance_, rtol=1e-4)
    assert_allclose(pca.score(X, sample_weight=weights), repeated.score(np.repeat(X, weights, axis=0)), rtol=1e-4)


@pytest.mark.parametrize(("case", "solver"), [*((case, case) for case in fit_stack.CASES), ("covariance_eigh", "tsqr")])
def test_weights_where_images_are_not_kept(case, solver):
    """Panels of images, blocks of the covariance, rows of images, reads of the streaming solver."""
    reads = fit_stack.Reads()
    stack = fit_stack.stack(case, reads.make)
    weights = np.random.default_rng(0).integers(0, 4, len(stack))
    weights[: stack.chunks[0][0]] = 0  # a block of which no image is left
    pca = fit_stack.estimator(case, tol=1e-3).set_params(svd_solver=solver)
    if solver in ("tsqr", "randomized"):
        pca.set_params(memory_limit="57MB" if solver == "tsqr" else "50MB")
    with dask.config.set(num_workers=2):
        assert solver == "tsqr" or not pca.plan(stack).chosen.keeps_images
        pca.fit(stack, sample_weight=weights)
    assert pca.n_passes_ == pytest.approx(len(reads.blocks) / stack.numblocks[0], abs=0.2)
    s, _, mean, variances, left = oracle(stack.compute(), weights, repeat=False)
    rtol = 1e-3 if solver == "randomized" else 1e-6
    assert_allclose(pca.explained_variance_, variances[:K], atol=rtol * variances[0])
    assert_allclose(pca.mean_, mean, rtol=1e-9)
    if solver != "randomized":
        assert_allclose(pca.residual_variance_image_.ravel(), left, atol=1e-6 * left.max())
    else:
        lower, upper = pca.certificate_.explained_variance_bounds
        assert np.all((lower <= variances[:K]) & (variances[:K] <= upper))
        assert pca.certificate_.total_variance == pytest.approx((s**2).sum() / (weights.sum() - 1))


@pytest.mark.parametrize("solver", ["gram", "auto"])
def test_weights_over_chunks_of_parts_of_images(solver):
    X, weights = weighted_stack(60, (24, 20), "uint16")
    stack = da.from_array(X, chunks=(20, 10, 7))
    for given in (weights, weights + 1):  # with images that are absent, and without
        assert_equals_repeats(ImagePCA(K, svd_solver=solver).fit(stack, sample_weight=given), X, given, 1e-6)
    mask = np.arange(20) % 3 > 0  # of columns
    bad = np.where((weights > 0)[:, None, None] & mask, X, np.float32(np.nan))
    stack = da.from_array(bad, chunks=(20, 10, 7))
    pca = ImagePCA(K, svd_solver=solver, mask=np.tile(mask, (24, 1)))
    assert_equals_repeats(pca.fit(stack, sample_weight=weights), X * mask, weights, 1e-6)
    position = np.flatnonzero(weights)[-3]
    bad[position, 20, 19] = np.nan
    with pytest.raises(NonFiniteError) as error:
        pca.fit(da.from_array(bad, chunks=(20, 10, 7)), sample_weight=weights)
    assert error.value.index == position


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("solver", SOLVERS[1:])
def test_weights_of_many_sizes(monkeypatch, solver, dtype):
    """An image of next to no weight and huge values takes no digits, nor does one of nearly all the weight."""
    monkeypatch.setattr(records, "FEW_PRODUCTS", 0)  # products in float32, or exact ones of bytes
    X = photographs(60, (12, 11), dtype)
    X[0] = 255 if dtype == "uint8" else X[0] * 1e5
    light, heavy, both = np.ones((3, 60))
    heavy[31] = 1e14
    light[0], light[50:] = 1e-30, 1e-30
    both[0], both[31] = 1e-30, 1e6
    for weights in (light, heavy, both):
        pca = ImagePCA(K, svd_solver=solver, random_state=0, tol=1e-3)
        scores = pca.fit_transform(X, sample_weight=weights)
        _, _, mean, variances, left = oracle(X, weights, repeat=False)
        assert_allclose(pca.explained_variance_, variances[:K], atol=1e-6 * variances[0])
        assert_allclose(pca.explained_variance_ratio_[0], variances[0] / variances.sum(), rtol=1e-6)
        assert_allclose(pca.mean_, mean, rtol=1e-7)
        assert_allclose(pca.residual_variance_image_.ravel(), left, atol=1e-6 * variances[0])
        projected = pca.transform(X)
        assert_allclose(scores, projected, atol=1e-5 * np.abs(projected).max())


@pytest.mark.parametrize("chunks", ["kept", "regions", pytest.param("panels", marks=pytest.mark.slow)])
def test_weights_with_exact_products_of_bytes(monkeypatch, chunks):
    monkeypatch.setattr(records, "FEW_PRODUCTS", 0)
    n, shape = (400, (250, 260)) if chunks == "panels" else (60, (30, 25))
    X, weights = weighted_stack(n, shape, "uint8")
    weights = weights * 0.37
    stack = X if chunks == "kept" else da.from_array(X, chunks=(n // 10, 10 if chunks == "regions" else -1, -1))
    pca = ImagePCA(K, svd_solver="gram")
    if chunks == "panels":
        pca.set_params(memory_limit="60MB")
        assert 0 < pca.plan(stack).chosen.panel < n // 2
    pca.fit(stack, sample_weight=weights)
    rows, w = X.reshape(n, -1).astype(np.float64), weights[:, None]
    mean = (w * rows).sum(axis=0) / w.sum()
    s = np.linalg.svd(np.sqrt(w) * (rows - mean), compute_uv=False)[:K]
    rtol = 1e-11 if integers.are_fast(X.dtype) else 1e-6
    assert_allclose(pca.explained_variance_, s**2 / (w.sum() - 1), rtol=rtol)
    assert_allclose(pca.mean_, mean, rtol=1e-12)
    variance = (w * (rows - mean) ** 2).sum(axis=0) / (w.sum() - 1)
    explained = pca.explained_variance_ @ pca.components_.astype(np.float64) ** 2
    assert_allclose(pca.residual_variance_image_.ravel() + explained, variance, rtol=1e-6)


def test_weights_on_a_cluster(client):
    X, weights = weighted_stack(60, (12, 11), "uint8")
    stack = da.from_array(X, chunks=(13, -1, -1))
    for solver in SOLVERS:
        pca = ImagePCA(K, svd_solver=solver, random_state=0, tol=1e-7).fit(stack, sample_weight=weights)
        assert_equals_repeats(pca, X, weights, 1e-6)
    centred = StackCenterer(with_std=True).fit(stack, sample_weight=weights)
    assert_allclose(centred.mean_, np.average(X, axis=0, weights=weights), rtol=1e-14)


@pytest.mark.parametrize("solver", SOLVERS)
def test_weights_of_one_are_no_weights(solver):
    X = da.from_array(photographs(50, (12, 11)), chunks=(17, -1, -1))
    pca = ImagePCA(K, svd_solver=solver, random_state=0)
    fit_stack.assert_same_fit(clone(pca).fit(X, sample_weight=np.ones(50)), pca.fit(X))


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
@pytest.mark.parametrize("lazy", [False, True])
def test_images_of_weight_0_may_be_anything(lazy, dtype):
    """They are absent, for the number of images, the mask of finite pixels and the errors of others, too."""
    X, weights = weighted_stack(60, (12, 11), "float64")
    weights[:20], bad = 0, X.copy()
    bad[weights == 0] = np.nan
    clean = X[weights > 0]
    stack = da.from_array(bad, chunks=(10, 5, -1)) if lazy else bad
    for pca in (ImagePCA(K), ImagePCA(K, mask="finite"), ImagePCA(K, mask=X[0] > 0), ImagePCA(K, missing="mean")):
        found = clone(pca).fit(stack, sample_weight=weights)
        expected = clone(pca).fit(clean, sample_weight=weights[weights > 0])
        assert_allclose(found.explained_variance_, expected.explained_variance_, rtol=1e-12)
        assert found.n_samples_ == len(clean)
    mean = StackCenterer().fit(stack, sample_weight=weights).mean_
    assert_allclose(mean, np.average(clean, axis=0, weights=weights[weights > 0]), rtol=1e-13)
    score = found.score(stack, sample_weight=weights)
    assert score == pytest.approx(found.score(clean, sample_weight=weights[weights > 0]))
    position = int(np.flatnonzero(weights)[7])
    bad[position, 3, 4] = np.inf
    stack = da.from_array(bad, chunks=(10, 5, -1)) if lazy else bad
    for estimator in (ImagePCA(K), ImagePCA(K, missing="als"), StackCenterer()):
        with pytest.raises(NonFiniteError) as error:
            estimator.fit(stack, sample_weight=weights)
        assert error.value.index == position


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.r_[-1.0, np.ones(9)], r"sample_weight\[0\] is -1"),
        (np.r_[np.ones(9), np.nan], r"sample_weight\[9\] is nan"),
        (np.r_[1, np.inf, np.ones(8)], r"sample_weight\[1\] is inf"),
        (np.ma.masked_array(np.ones(10), [0, 0, 1] + [0] * 7), r"sample_weight\[2\] is nan"),
        (np.zeros(10), "All weights .* are zero"),
        (np.ones(9), r"shape \(9,\), and 10 images"),
        (np.ones((10, 1)), r"shape \(10, 1\)"),
        (2.0, r"shape \(\)"),
        (np.full(10, 1e300), "float64 counts"),
        (["a"] * 10, "dtype <U1"),
        ([10**400] * 10, "must hold numbers.* int too large"),
        (np.ones(10) * 1j, "dtype complex128"),
        (da.full(10, -1.0), r"sample_weight\[0\] is -1"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    X = photographs(10, (5, 4))
    fitted = ImagePCA(2).fit(X)
    for method in (fitted.fit, fitted.fit_transform, fitted.partial_fit, fitted.score, StackCenterer().fit):
        with pytest.raises(ValueError, match=message):
            method(X, sample_weight=weights)
    fit_stack.assert_same_fit(fitted, ImagePCA(2).fit(X))


def test_the_copy_of_images_that_count_is_part_of_the_memory_limit():
    X, weights = np.zeros((200, 100, 500), np.uint8), np.r_[0, np.ones(199)]
    pca = ImagePCA(2, svd_solver="gram", memory_limit="9MB")
    with pytest.raises(MemoryLimitError, match=r"copied, which takes 9\.49 MiB.*X\[sample_weight > 0\]"):
        pca.fit(X, sample_weight=weights)
    pca.set_params(memory_limit="30MB").plan(X)  # without weights there is no copy
    with pytest.raises(MemoryLimitError, match=r"the memory limit is 19\.1"):
        pca.fit(X, sample_weight=weights)


def test_weights_that_add_up_to_1_are_refused_where_variances_divide_by_their_sum():
    X, weights = photographs(10, (5, 4)), np.full(10, 0.1)
    with pytest.raises(ValueError, match=r"add up to 1.* Scale them to a mean of 1"):
        ImagePCA(2).fit(X, sample_weight=weights)
    with pytest.raises(ValueError, match="at least 2 images of a weight above 0"):
        ImagePCA(2).fit(X, sample_weight=np.r_[5, np.zeros(9)])
    with pytest.raises(ValueError, match=r"add up to 0\.3"):
        ImagePCA(2).partial_fit(X[:3], sample_weight=weights[:3])
    assert_allclose(StackCenterer().fit(X, sample_weight=weights).mean_, X.mean(axis=0))
    scaled = ImagePCA(2).fit(X, sample_weight=np.full(10, 0.3))  # 3 images' worth
    assert_allclose(scaled.explained_variance_, ImagePCA(2).fit(X).explained_variance_ * 9 * 0.3 / 2)


@pytest.mark.parametrize("dtype", ["float64", "uint8"])
def test_batches_with_weights(dtype, tmp_path):
    """Batches with weights, without, after a fit and after loading: repeated images; bounds hold."""
    X, weights = weighted_stack(90, (9, 8), dtype)
    weights[60:] = 1
    variances = oracle(X, weights)[3][:K]
    for begin in ("fit", "partial_fit"):
        pca = getattr(ImagePCA(K, n_oversamples=40), begin)(X[:30], sample_weight=weights[:30])
        save_model(pca, tmp_path / f"{begin}.safetensors")
        pca = load_model(tmp_path / f"{begin}.safetensors")
        pca.partial_fit(X[30:60], sample_weight=weights[30:60]).partial_fit(X[60:])
        lower, upper = pca.certificate_.explained_variance_bounds
        assert np.all((lower <= variances) & (variances <= upper))
        assert (pca.n_samples_, pca.total_weight_) == (np.count_nonzero(weights), weights.sum())
        assert_allclose(pca.mean_, np.average(X.reshape(90, -1), axis=0, weights=weights), rtol=1e-9)
    assert_allclose(pca.explained_variance_, variances, rtol=1e-5)


@pytest.mark.parametrize("missing", ["mean", "als"])
def test_weights_with_missing_pixels(missing):
    X, weights = weighted_stack(120, (9, 8), "float64")
    X[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
    pca = ImagePCA(2, missing=missing, tol=1e-8, max_passes=200)
    expected = clone(pca).fit(np.repeat(X, weights, axis=0))
    for stack in (X, da.from_array(X, chunks=(25, -1, -1))):
        found = clone(pca).fit(stack, sample_weight=weights)
        rtol = 1e-10 if missing == "mean" else 1e-4
        for name in NAMES:
            value = getattr(expected, name)
            assert_allclose(getattr(found, name), value, atol=rtol * np.abs(value).max(), err_msg=name)


def test_other_weights_resume_no_checkpoint(tmp_path, monkeypatch):
    fit_stack.save_every_wave(monkeypatch.setattr)
    weights, folder = np.random.default_rng(0).integers(1, 4, 10_000), tmp_path / "unfinished"

    def fit(weights, checkpoint=None, fail_at=None):
        reads = fit_stack.Reads(fail_at)
        pca = fit_stack.estimator("covariance_eigh", checkpoint)
        return pca.fit(fit_stack.stack("covariance_eigh", reads.make), sample_weight=weights), len(reads.blocks)

    with dask.config.set(scheduler="synchronous", num_workers=2):
        whole, n_reads = fit(weights)
        with pytest.raises(fit_stack.StopError):
            fit(weights, folder, fail_at=int(0.9 * n_reads))
        shutil.copytree(folder, tmp_path / "kept")
        resumed, n_read_again = fit(weights, folder)
        assert n_read_again < n_reads / 2
        fit_stack.assert_same_fit(resumed, whole)
        with pytest.warns(UserWarning, match="sample_weight"):
            assert fit(weights + 1, tmp_path / "kept")[1] == n_reads


def test_weights_are_routed():
    X, weights = weighted_stack(50, (9, 8), "float64")
    expected = ImagePCA(2).fit(X, sample_weight=weights)
    with sklearn.config_context(enable_metadata_routing=True):
        pca = ImagePCA(2).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        pipe = make_pipeline(ImageFlattener(), pca)
        pipe.fit(X, sample_weight=weights)
        assert_allclose(pipe[-1].explained_variance_, expected.explained_variance_, rtol=1e-10)
        assert pipe.score(X, sample_weight=weights) == pytest.approx(pipe[-1].score(X.reshape(50, -1), None, weights))
        centred = StackCenterer().set_fit_request(sample_weight=True).fit(X, sample_weight=weights)
        assert_allclose(centred.mean_.ravel(), expected.mean_, rtol=1e-14)
        filtered = ComponentFilter(ImagePCA(2).set_fit_request(sample_weight=True), keep=[0])
        filtered.fit(X, sample_weight=weights)
        assert_allclose(filtered.estimator_.mean_, expected.mean_, rtol=1e-14)
    pipe = make_pipeline(ImageFlattener(), ImagePCA(2)).fit(X, imagepca__sample_weight=weights)
    assert_allclose(pipe[-1].mean_, expected.mean_, rtol=1e-14)


def test_centring_with_weights():
    for dtype in ("uint8", "int32", "float32", "float64"):
        X, weights = weighted_stack(70, (9, 8), dtype)
        repeated = np.repeat(X, weights, axis=0).astype(np.float64)
        for stack in (X, da.from_array(X, chunks=(20, 4, -1))):
            found = StackCenterer(with_std=True).fit(stack, sample_weight=weights)
            assert_allclose(found.mean_, repeated.mean(axis=0), rtol=1e-13)
            assert_allclose(found.scale_, repeated.std(axis=0), rtol=1e-12)
            assert found.n_samples_ == np.count_nonzero(weights)
            assert found.n_passes_ == 1


def test_scikit_learns_repeat_check_fails_for_all_components_only():
    reason = "repeated images raise min(n_images, n_values), of which None takes all"
    failed = {"check_sample_weight_equivalence_on_dense_data": reason}
    with pytest.warns(RankWarning):
        found = check_estimator(ImagePCA(), expected_failed_checks=failed, on_skip=None)
    assert "xfail" in {one["status"] for one in found if one["check_name"] in failed}
