"""Fits to images with missing pixels, against least squares in memory, and scikit-learn's PCA of imputed columns."""

import pickle

import dask
import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import subspace_angles
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from imgstack_ml import (
    ComponentFilter,
    ImageFlattener,
    ImagePCA,
    IntensityRescaler,
    MemoryLimitError,
    NonFiniteError,
    ReconstructionDisplay,
    generate_report,
    load_model,
    save_model,
)
from imgstack_ml.errors import RankWarning
from imgstack_ml.linalg.signs import component_signs
from tests.lib.fits import fresh_process, linux
from tests.lib.grids import pairwise
from tests.lib.stacks import counted, photographs

N, SIDE, K = 200, 24, 4
STREAMED = "18MB"  # too little to keep the images


def incomplete(kind, seed=0, dtype="float64", n=N):
    """Images of 12 modes of falling variance and noise, of which 40 % of the pixels, or three squares, are missing."""
    rng = np.random.default_rng(seed)
    p = SIDE * SIDE
    modes = np.linalg.qr(rng.standard_normal((p, 12)))[0].T
    X = 100 + (rng.standard_normal((n, 12)) * 30 * 0.75 ** np.arange(12)) @ modes + 0.3 * rng.standard_normal((n, p))
    observed = rng.random((n, p)) > 0.4
    if kind == "squares":
        observed = np.ones((n, SIDE, SIDE), bool)
        for image in observed:
            for y, x in rng.integers(0, SIDE - 8, (3, 2)):
                image[y : y + 8, x : x + 8] = False
        observed = observed.reshape(n, p)
    truth = X.reshape(n, SIDE, SIDE).astype(dtype)
    return truth, np.where(observed.reshape(truth.shape), truth, np.nan).astype(dtype)


def angle(a, b):
    return np.sin(subspace_angles(np.asarray(a, float).T, np.asarray(b, float).T)[0])


def least_squares(X, k, rounds=12):
    """Alternate NumPy's least squares of images and of pixels, until they have converged."""
    rows = X.reshape(len(X), -1)
    seen = ~np.isnan(rows)
    mean = np.nanmean(rows, axis=0)
    loadings = np.linalg.svd(np.where(seen, rows - mean, 0), full_matrices=False)[2][:k]
    for _ in range(rounds):
        scores = np.array(
            [np.linalg.lstsq(loadings[:, s].T, (x - mean)[s])[0] for x, s in zip(rows, seen, strict=True)]
        )
        ones = np.column_stack([scores, np.ones(len(scores))])
        solved = np.array([np.linalg.lstsq(ones[s], x[s])[0] for x, s in zip(rows.T, seen.T, strict=True)])
        loadings, mean = np.linalg.qr(solved[:, :k])[0].T, solved[:, k]
    return loadings


@pytest.fixture(scope="module")
def converged():
    return {kind: least_squares(incomplete(kind)[1], K) for kind in ("random", "squares")}


def given(X, kind):
    """The same images in another form, and further parameters of the fit."""
    if kind == "numpy":
        return X, {}
    if kind == "masked":
        return np.ma.masked_array(np.nan_to_num(X, nan=1e9), np.isnan(X)), {}
    if kind == "a number":
        return da.from_array(np.nan_to_num(X, nan=-7), chunks=(30, -1, -1)), {"missing_values": -7}
    if kind == "lazy, masked":
        return da.ma.masked_invalid(da.from_array(X, chunks=(30, -1, -1))), {}
    return da.from_array(X, chunks=(7, SIDE, 10)), {}  # whole images are made of the chunks


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        *(("random", form) for form in ("numpy", "masked", "lazy")),
        *(("squares", form) for form in ("numpy", "a number", "lazy, masked")),
    ],
)
def test_components_are_those_of_least_squares(kind, form, converged):
    truth, X = incomplete(kind)
    images, options = given(X, form)
    pca = ImagePCA(K, missing="als", random_state=0, **options)
    scores = np.asarray(pca.fit_transform(images))
    complete = PCA(K).fit(truth.reshape(N, -1))
    error = angle(pca.components_, complete.components_)
    assert error <= 1.1 * angle(converged[kind], complete.components_)
    assert error < 0.5 * angle(ImagePCA(K, missing="mean").fit(X).components_, complete.components_)
    assert (pca.n_passes_, pca.svd_solver_, pca.certificate_) == (1, "als", None)
    assert_allclose(pca.components_ @ pca.components_.T, np.eye(K), atol=1e-12)
    assert_allclose(np.cov(scores.T), np.diag(pca.explained_variance_), atol=1e-9 * pca.explained_variance_[0])
    assert_allclose(pca.explained_variance_, complete.explained_variance_, rtol=0.05)
    assert (np.diff(pca.explained_variance_) < 0).all()
    assert_array_equal(component_signs(pca.components_), 1)
    transformed = pca.transform(images)
    assert isinstance(transformed, da.Array if "lazy" in form or form == "a number" else np.ndarray)
    assert_allclose(np.asarray(transformed), scores, atol=1e-8 * np.abs(scores).max())
    model, best = pca.inverse_transform(scores), complete.inverse_transform(complete.transform(truth.reshape(N, -1)))
    assert np.square(model - truth).sum() < 1.1 * np.square(best.reshape(truth.shape) - truth).sum()
    seen, fitted = ~np.isnan(X), model - X
    share = 1 - np.square(fitted[seen]).sum() / np.square((X - pca.mean_image_)[seen]).sum()
    assert_allclose(pca.explained_variance_ratio_.sum(), share, rtol=1e-6)
    variance = np.square(np.where(seen, fitted, 0)).sum(axis=0) / (seen.sum(axis=0) - 1)
    assert_allclose(pca.residual_variance_image_, variance, rtol=1e-6)


@pytest.mark.parametrize("kind", ["random", "squares"])
def test_images_that_are_not_kept_are_read_six_times_at_most(kind):
    X = incomplete(kind)[1]
    source = counted(X, 10)
    pca = ImagePCA(K, missing="als", memory_limit=STREAMED, random_state=0)
    assert not pca.plan(source.data).chosen.keeps_images
    pca.fit(source.data)
    assert source.n_reads == pca.n_passes_ <= 6
    assert_allclose(pca.components_, ImagePCA(K, missing="als", random_state=0).fit(X).components_, atol=1e-5)
    with pytest.warns(ConvergenceWarning, match=r"Raise max_passes=3, e.g. to 6"):
        assert pca.set_params(max_passes=3).fit(source.data).n_passes_ == 3
    with pytest.raises(ValueError, match=r"at least 3 times, and max_passes=2. Set max_passes=6"):
        pca.set_params(max_passes=2).fit(source.data)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("factor", [1.0, 1e-25, 1e25])
def test_of_complete_images_it_is_their_pca_in_any_units(dtype, factor):
    X = photographs(60, (9, 8), "float64").astype(dtype) * np.dtype(dtype).type(factor)
    pca = ImagePCA(3, missing="als", tol=1e-12, random_state=0).fit(X)
    ref = PCA(3, svd_solver="full").fit(X.reshape(60, -1).astype(np.float64) / factor)
    rtol = 1e-6 if dtype == "float64" else 1e-5
    assert_allclose(pca.explained_variance_ / factor**2, ref.explained_variance_, rtol=rtol)
    assert_allclose(pca.explained_variance_ratio_, ref.explained_variance_ratio_, rtol=rtol)
    assert_allclose(pca.noise_variance_ / factor**2, ref.noise_variance_, rtol=10 * rtol)
    assert_allclose(pca.mean_ / factor, ref.mean_, rtol=rtol)
    assert angle(pca.components_, ref.components_) < 1e-3


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("solver", ["gram", "covariance_eigh", "tsqr", "randomized"])
def test_the_mean_is_that_of_an_imputer(solver, lazy):
    X = incomplete("random", n=80)[1]
    rows = X.reshape(80, -1)
    ref = make_pipeline(SimpleImputer(), PCA(3, svd_solver="full")).fit(rows)
    source = counted(X, 30)
    images = source.data if lazy else X
    pca = ImagePCA(3, missing="mean", svd_solver=solver, tol=1e-9, random_state=0)
    pca.fit(images)
    assert source.n_reads == (pca.n_passes_ if lazy else 0)
    scores = np.asarray(clone(pca).fit_transform(images))
    assert pca.n_passes_ == (2 if lazy else 1)
    assert pca.plan(images).n_passes == 2
    assert_allclose(pca.explained_variance_, ref[1].explained_variance_, rtol=1e-7)
    assert_allclose(pca.mean_, ref[0].statistics_, rtol=1e-9)
    signs = np.sign(np.sum(pca.components_ * ref[1].components_, axis=1))
    for found in (scores, np.asarray(pca.transform(images))):
        assert_allclose(found * signs, ref.transform(rows), atol=1e-4 * np.abs(scores).max())


def test_pixels_outside_a_mask_are_not_looked_at():
    X = incomplete("random", n=60)[1]
    mask = np.random.default_rng(0).random((SIDE, SIDE)) < 0.5
    X[:, ~mask] = np.inf
    for missing in ("als", "mean"):
        pca = ImagePCA(3, mask=mask, missing=missing, random_state=0)
        inside = ImagePCA(3, missing=missing, random_state=0).fit(X[:, mask])
        for images in (X, da.from_array(X, chunks=(7, -1, -1))):
            scores = np.asarray(pca.fit_transform(images))
            assert_allclose(pca.components_[:, mask.ravel()], inside.components_, atol=1e-10)
            assert not pca.components_[:, ~mask.ravel()].any()
            assert_allclose(scores, inside.transform(X[:, mask]), atol=1e-8 * np.abs(scores).max())


def test_results_on_a_cluster_are_the_same(client):
    X = incomplete("squares", n=60)[1]
    lazy = da.from_array(X, chunks=(10, -1, -1))
    for missing in ("als", "mean"):
        pca = ImagePCA(3, missing=missing, random_state=0)
        scores = pca.fit_transform(lazy).compute()
        assert_allclose(scores, np.asarray(clone(pca).fit_transform(X)), atol=1e-8 * np.abs(scores).max())


@pytest.mark.parametrize("values", [np.nan, 0])
def test_models_are_saved(values, tmp_path):
    X = incomplete("random", n=60)[1]
    pca = ImagePCA(3, missing="als", missing_values=values, whiten=True, random_state=0).fit(
        X if np.isnan(values) else np.nan_to_num(X)
    )
    save_model(pca, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.get_params().keys() == pca.get_params().keys()
    images = X[:5] if np.isnan(values) else np.nan_to_num(X[:5])
    assert_array_equal(loaded.transform(images), pca.transform(images))
    assert_allclose(np.asarray(pca.fit_transform(np.nan_to_num(X) if values == 0 else X)).std(axis=0, ddof=1), 1)


def test_integers_are_taken_and_the_input_is_never_changed():
    X = np.round(incomplete("random", n=60)[1] - 50).clip(1, 255)
    bytes_, before = np.nan_to_num(X).astype(np.uint8), np.nan_to_num(X).astype(np.uint8)
    found = ImagePCA(3, missing="als", missing_values=0, random_state=0).fit(bytes_)
    assert found.components_.dtype == np.float32
    assert_array_equal(bytes_, before)
    expected = ImagePCA(3, missing="als", random_state=0).fit(X)
    assert_allclose(found.components_, expected.components_, atol=1e-5)
    marked = incomplete("random", n=60)[1]
    kept = np.nan_to_num(marked, nan=-1.0)
    ImagePCA(3, missing="als", missing_values=-1, random_state=0).fit(kept)
    assert_array_equal(kept, np.nan_to_num(marked, nan=-1.0))


@pytest.mark.parametrize("lazy", [False, True])
def test_what_shows_too_little_is_named(lazy):
    _, X = incomplete("random", n=60)

    def images(X):
        return da.from_array(X, chunks=(7, -1, -1)) if lazy else X

    pca = ImagePCA(3, missing="als")
    few = X.copy()
    few[17].ravel()[2:] = np.nan
    for missing, least in (("als", "at least 3, as many as components,"), ("mean", "a pixel")):
        if missing == "mean":
            few[17] = np.nan
        with pytest.raises(NonFiniteError, match=rf"image 17 shows \d pixels, and {least} must be observed"):
            pca.set_params(missing=missing).fit(images(few))
        fitted = ImagePCA(3, missing=missing).fit(X)
        with pytest.raises(NonFiniteError, match=r"image 17 shows"):
            np.asarray(fitted.transform(images(few)))
    hole = X.copy()
    hole[2:, 5, 7] = np.nan
    with pytest.raises(ValueError, match=r"pixel \(5, 7\) is observed in [012] of 60 images, and 3 are needed"):
        ImagePCA(3, missing="als").fit(images(hole))
    hole[30, 5, 7] = np.inf
    for missing in ("als", "mean"):
        with pytest.raises(NonFiniteError, match="image 30"):
            ImagePCA(3, missing=missing).fit(images(hole))


@pytest.mark.parametrize(("rank", "k"), [(0, 2), (1, 1), (2, 2), (3, 3), (1, 3)])
def test_images_without_noise_warn_where_components_explain_everything(rank, k):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((60, rank)) @ rng.standard_normal((rank, 64)) + 10).reshape(60, 8, 8)
    covered = np.where(rng.random(X.shape) < 0.2, np.nan, X)
    with pytest.warns(RankWarning, match="explain all that is observed" if rank == k else "variance 0|explain all"):
        pca = ImagePCA(k, missing="als", tol=1e-6, random_state=0).fit(covered)
    if rank in (0, k):
        assert_allclose(pca.inverse_transform(pca.transform(covered)), X, atol=1e-4)
    lazy = da.from_array(covered, chunks=(10, -1, -1))
    limit = ImagePCA(k, missing="als").plan(lazy).peak_bytes - X.nbytes // 2
    streamed = ImagePCA(k, missing="als", memory_limit=limit, max_passes=3, random_state=0)
    with pytest.warns(ConvergenceWarning if rank else RankWarning):
        assert np.isfinite(streamed.fit(lazy).components_).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"missing": "drop"}, r"missing='drop' must be one of \('raise', 'mean', 'als'\)"),
        ({"missing": "als", "missing_values": None}, "missing_values=None must be NaN or a number"),
        ({"missing": "als", "missing_values": 10**400}, "must be NaN or a number"),
        ({"missing_values": 0}, "missing_values=0 marks missing pixels, and missing='raise' takes none"),
        ({"missing": "als", "svd_solver": "gram"}, "Set svd_solver='auto'; or missing='mean'"),
        ({"missing": "als", "n_components": 0.9}, "needs a number of components, and n_components=0.9"),
        ({"missing": "als", "n_components": None}, "needs a number of components, and n_components=None"),
        ({"missing": "als", "checkpoint": "folder"}, "cannot be resumed. Set checkpoint=None"),
        ({"missing": "mean", "checkpoint": "folder"}, "cannot be resumed. Set checkpoint=None"),
        ({"missing": "mean", "mask": "finite"}, "Set one of the two"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        ImagePCA(**{"n_components": 3} | params).fit(incomplete("random", n=20)[1])


def test_missing_pixels_are_errors_where_nobody_asks_for_them():
    _, X = incomplete("random", n=60)
    with pytest.raises(NonFiniteError, match="image 0"):
        ImagePCA(3).fit(X)
    with pytest.raises(TypeError, match="masked array"):
        ImagePCA(3).fit(np.ma.masked_invalid(X))
    with pytest.raises(NonFiniteError, match=r"Only ImagePCA\(missing='als'\) takes NaN .* no step before it but Im"):
        make_pipeline(IntensityRescaler(), ImagePCA(3, missing="als")).fit(X)
    pca = ImagePCA(3, missing="als").fit(X)
    with pytest.raises(ValueError, match="partial_fit takes no missing pixels"):
        pca.partial_fit(X)
    assert ImageFlattener().fit_transform(X).shape == (60, SIDE * SIDE)


@pytest.mark.parametrize(
    ("lazy", "kind", "inside"),
    pairwise([False, True], ["nan", "number", "masked"], [None, np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 3 > 0]),
)
def test_methods_for_complete_images_refuse_missing_pixels_with_a_line_that_fills_them(kind, lazy, inside):
    truth, X = incomplete("random", n=60)
    values = -7 if kind == "number" else np.nan
    X[0] = truth[0]
    if kind == "number":
        X = np.nan_to_num(X, nan=values)
    if lazy:
        X = da.from_array(X, chunks=(60, -1, -1))
    if kind == "masked":
        X = (da.ma if lazy else np.ma).masked_invalid(X)
    pca = ImagePCA(3, missing="als", missing_values=values, mask=inside, random_state=0).fit(X)
    route = ComponentFilter(FrozenEstimator(pca), remove=[0]).fit(X).transform
    for method in (pca.reconstruct, pca.residuals, pca.outlier_statistics, pca.score_samples, pca.score, route):
        with pytest.raises(NonFiniteError, match=r"image 1 has missing pixels, and .* takes none") as refusal:
            dask.compute(method(X))
        line = str(refusal.value).split("leave it out: X = ")[1]
        filled = eval(line, {"numpy": np, "dask": dask, "pca": pca, "X": X})
        assert isinstance(filled, da.Array) == lazy
        dask.compute(method(filled))
    assert_allclose(np.asarray(filled)[0], np.asarray(X[0]))
    assert_allclose(np.asarray(pca.residuals(truth)), np.asarray(clone_of_complete(pca).residuals(truth)))


def clone_of_complete(pca):
    return pickle.loads(pickle.dumps(pca)).set_params(missing="raise", missing_values=np.nan)


def test_pictures_of_reconstructions_refuse_numbers_that_mark_missing_pixels():
    _, X = incomplete("random", n=60)
    X = np.nan_to_num(X, nan=-7)
    pca = ImagePCA(3, missing="als", missing_values=-7).fit(X)
    for draw in (generate_report, ReconstructionDisplay.from_estimator):
        with pytest.raises(ValueError, match="missing_values=-7 of the ImagePCA marks missing pixels"):
            draw(pca, X)
    pca.set_params(missing_values=np.nan)
    ReconstructionDisplay.from_estimator(pca, incomplete("random", n=60)[0])


@pytest.mark.parametrize("lazy", [False, True], ids=["numpy", "dask"])
def test_integers_beyond_float64_are_refused_unless_they_are_missing(lazy):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 100, (9, 4, 4))
    hidden = rng.random(X.shape) < 0.1
    expected = ImagePCA(2, missing="mean").fit(np.where(hidden, np.nan, X))
    X[hidden] = -(2**63)
    masked = np.ma.masked_array(X, hidden)
    beyond = np.ma.masked_array(X + 2**53 * ~hidden, hidden)
    if lazy:
        X, masked, beyond = (da.from_array(one, chunks=(3, -1, -1)) for one in (X, masked, beyond))
    for images, values in ((X, -(2**63)), (masked, np.nan)):
        found = ImagePCA(2, missing="mean", missing_values=values).fit(images)
        assert_allclose(found.explained_variance_, expected.explained_variance_, rtol=1e-12)
    with pytest.raises(ValueError, match=r"float64 tells them apart up to 2\*\*53"):
        ImagePCA(2, missing="mean").fit(beyond)


def test_units_whose_squares_float64_does_not_hold_are_named():
    _, X = incomplete("random", n=60)
    with pytest.raises(ValueError, match=r"values of up to .*e-20\d, whose squares .* Divide the images by 1e-20\d"):
        ImagePCA(3, missing="als").fit((X - 100) * 1e-202)


def test_lists_of_masked_arrays_are_told_how_to_become_one():
    X = np.ma.masked_invalid(incomplete("random", n=20)[1])
    with pytest.raises(TypeError, match=r"list that holds a masked array; ImagePCA needs one array: numpy\.ma\.stack"):
        ImagePCA(2, missing="als").fit(list(X))
    ImagePCA(2, missing="als").fit(np.ma.stack(list(X)))


def test_a_limit_that_is_too_small_names_one_that_works():
    X = da.from_array(incomplete("random")[1], chunks=(10, -1, -1))
    with pytest.raises(MemoryLimitError, match=r"Set ImagePCA\(memory_limit='\d+MB', missing='als'\)") as refusal:
        ImagePCA(K, missing="als", memory_limit="5MB").fit(X)
    limit = str(refusal.value).split("memory_limit='")[1].split("'")[0]
    assert "->als" in repr(ImagePCA(K, missing="als", memory_limit=limit).plan(X))


@linux
@pytest.mark.slow
@pytest.mark.parametrize("limit", ["400MB", "2GB"])
def test_a_fresh_process_takes_no_more_than_planned(limit):
    pca = ImagePCA(8, missing="als", missing_values=7, memory_limit=limit, tol=1e-2)
    taken, planned, reads, _ = fresh_process(pca, "noise(3000, (200, 200), 50)")
    assert reads == (1 if limit == "2GB" else 4)
    assert taken <= planned
