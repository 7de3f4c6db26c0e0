"""Fits of ImagePCA to the pixels inside a mask, against the same fit to their columns, and scikit-learn's PCA."""

import dask
import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA

from imgstack_ml import ImageFlattener, ImagePCA, NonFiniteError, StackCenterer, fit_together, load_model, save_model
from imgstack_ml.decomposition import records
from tests.lib.fits import noise, solved, streamed, tight, traced_peak
from tests.lib.stacks import counted, photographs

SOLVERS = ["gram", "covariance_eigh", "tsqr", "randomized", "auto"]
MASK = np.random.default_rng(0).random((9, 8)) < 0.5
SUM = int(MASK.sum())


def stack_of(dtype, n_images=60, junk=(np.nan, np.inf, -np.inf)):
    """Images whose pixels outside the mask are junk."""
    X = photographs(n_images, (9, 8), dtype)
    values = junk if X.dtype.kind == "f" else (0, 255)
    X[:, ~MASK] = np.random.default_rng(1).choice(values, X[:, ~MASK].shape)
    return X


def laid_out(X, kind):
    return X if kind == "numpy" else da.from_array(X, chunks=(7, *X.shape[1:]))


def assert_like_columns(pca, X, rtol):
    """It is scikit-learn's PCA of the columns inside, and 0 outside."""
    columns = X[:, MASK].astype(np.float64)
    ref = PCA(pca.n_components_, svd_solver="full").fit(columns)
    inside, outside = MASK.ravel(), ~MASK.ravel()
    assert pca.components_.shape == (pca.n_components_, 72)
    assert not pca.components_[:, outside].any()
    assert not pca.mean_[outside].any()
    assert_array_equal(pca.mask_, MASK)
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_", "noise_variance_"):
        assert_allclose(getattr(pca, name), getattr(ref, name), rtol=rtol)
    assert_allclose(pca.mean_[inside], ref.mean_, rtol=1e-6)
    assert_allclose(np.abs(pca.components_[:, inside] @ ref.components_.T), np.eye(len(ref.components_)), atol=1e-3)
    return ref, columns


@pytest.mark.parametrize("kind", ["numpy", "lazy"])
@pytest.mark.parametrize(("dtype", "n_images"), [("uint8", 60), ("float32", 25), ("float64", 60)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_method_is_that_of_the_columns(solver, dtype, n_images, kind):
    X = stack_of(dtype, n_images)
    stack = laid_out(X, kind)
    pca = ImagePCA(3, svd_solver=solver, mask=MASK, random_state=0, tol=1e-6)
    scores = np.asarray(pca.fit_transform(stack))
    rtol = 1e-4 if dtype == "float32" else 1e-5
    ref, columns = assert_like_columns(pca, X, rtol)
    signs = np.sign(np.sum(pca.components_[:, MASK.ravel()] * ref.components_, axis=1))
    top = np.abs(scores).max()
    assert_allclose(scores * signs, ref.transform(columns), atol=1e-3 * top)
    assert_allclose(pca.transform(stack), scores, atol=1e-4 * top)
    images = np.asarray(pca.inverse_transform(laid_out(scores, kind)))
    assert not images[:, ~MASK].any()
    assert_allclose(images[:, MASK], ref.inverse_transform(ref.transform(columns)), atol=1e-3 * np.abs(columns).max())
    assert_allclose(pca.score_samples(stack), ref.score_samples(columns), rtol=1e-3)
    for ours, theirs in ((pca.get_covariance(), ref.get_covariance()), (pca.get_precision(), ref.get_precision())):
        inside = np.outer(MASK.ravel(), MASK.ravel())
        assert_allclose(ours[inside], theirs.ravel(), atol=1e-3 * np.abs(theirs).max())
        assert not ours[~inside].any()


@pytest.mark.parametrize("solver", SOLVERS[:-1])
def test_pixels_outside_make_no_difference_to_the_last_bit(solver):
    fits = []
    for junk in ((np.nan,), (0.0,), (1e300, -1e-300)):
        X = laid_out(stack_of("float64", 25, junk), "lazy")
        fits.append(ImagePCA(3, svd_solver=solver, mask=MASK, random_state=0).fit(X).components_)
    assert_array_equal(fits[0], fits[1])
    assert_array_equal(fits[0], fits[2])
    X = stack_of("float64", 25, (0.0,))
    alone = ImagePCA(3, svd_solver=solver, random_state=0).fit(laid_out(X[:, MASK], "lazy"))
    assert_array_equal(fits[0][:, MASK.ravel()], alone.components_)
    all_pixels = ImagePCA(3, svd_solver=solver, random_state=0, mask=np.ones_like(MASK)).fit(X)
    assert_array_equal(all_pixels.components_, ImagePCA(3, svd_solver=solver, random_state=0).fit(X).components_)


@pytest.mark.parametrize("solver", ["gram", "covariance_eigh"])
def test_exact_products_of_bytes(solver, monkeypatch):
    monkeypatch.setattr(records, "FEW_PRODUCTS", 0)
    X = stack_of("uint8")
    for kind in ("numpy", "lazy"):
        assert_like_columns(ImagePCA(3, svd_solver=solver, mask=MASK).fit(laid_out(X, kind)), X, 1e-6)


@pytest.mark.parametrize("solver", SOLVERS[:-1])
def test_images_that_are_read_again(solver):
    """Each read is one of the whole stack, and the result is that of the columns."""
    X = stack_of("float64", 100)
    found = []
    for pixels, mask in ((X, MASK), (X[:, MASK], None)):
        source = counted(pixels, 6)
        solve = streamed if solver == "randomized" else lambda *args, **given: solved(solver, *args, panel=30, **given)
        factors, runner = solve(source.data, 3, mask=mask)
        assert runner.n_passes == source.n_reads
        assert source.n_reads > 1 or solver in ("covariance_eigh", "tsqr")
        found.append(factors)
    assert found[0].components.shape == (3, SUM)
    assert_allclose(found[0].components, found[1].components, atol=1e-12)
    assert_allclose(found[0].singular_values, found[1].singular_values, rtol=1e-12)


@pytest.mark.parametrize(("solver", "kind"), [("gram", "lazy"), ("tsqr", "lazy"), ("randomized", "numpy")])
def test_the_peak_is_within_the_plan(solver, kind):
    shape, n_images = ((120, 110), 80) if solver in ("gram", "randomized") else ((12, 16), 600)
    mask = np.random.default_rng(0).random(shape) < 0.5
    stack = noise(n_images, shape, 10, "float64", distinct=7).persist()
    stack = np.asarray(stack) if kind == "numpy" else stack
    pca = tight(ImagePCA(3, svd_solver=solver, mask=mask, random_state=0), stack)
    with dask.config.set(scheduler="synchronous"):
        pca.fit(stack)  # what is imported and compiled at first use
        assert traced_peak(lambda: pca.fit(stack)) < pca.plan(stack).peak_bytes


@pytest.mark.parametrize("kind", ["numpy", "lazy"])
def test_pixels_that_are_finite_in_all_images(kind):
    X = stack_of("float64")
    X[:, MASK] = photographs(60, (9, 8), "float64")[:, MASK]
    source = counted(X, 7)
    pca = ImagePCA(3, mask="finite", svd_solver="gram").fit(X if kind == "numpy" else source.data)
    assert_like_columns(pca, X, 1e-6)
    assert pca.n_passes_ == (1 if kind == "numpy" else source.n_reads)
    assert source.n_reads == (0 if kind == "numpy" else 2)
    plan = ImagePCA(3, mask="finite", svd_solver="gram").plan(source.data)
    assert (plan.n_passes, "mask='finite'" in repr(plan)) == (2, True)
    whole = counted(stack_of("uint8"), 7)  # integers are finite
    assert ImagePCA(3, mask="finite", svd_solver="gram").fit(whole.data).n_passes_ == whole.n_reads == 1
    with pytest.raises(ValueError, match=r"no pixel is finite.*numpy\.isfinite\(X\)\.any\(axis=\(1, 2\)\)"):
        ImagePCA(3, mask="finite").fit(np.concatenate([X, X[:1] * np.nan]))


def test_pixels_inside_that_are_not_finite_are_named():
    X = stack_of("float32")
    fitted = ImagePCA(3, mask=MASK).fit(X)
    bad = X.copy()
    bad[17, *np.argwhere(MASK)[5]] = np.inf
    calls = [ImagePCA(3, svd_solver=solver, mask=MASK).fit for solver in SOLVERS]
    calls += [ImagePCA(3, mask=MASK).partial_fit, fitted.score, lambda stack: np.asarray(fitted.transform(stack))]
    for kind in ("numpy", "lazy"):
        for call in calls:
            with pytest.raises(NonFiniteError, match="image 17 "):
                call(laid_out(bad, kind))
    with pytest.raises(NonFiniteError, match="image 0 "):
        ImagePCA(3, mask=np.ones_like(MASK)).fit(X)


def test_batches_have_one_mask(tmp_path):
    X = stack_of("float64")
    pca = ImagePCA(3, mask=MASK, n_oversamples=30)
    for start in range(0, 60, 15):
        pca.partial_fit(laid_out(X[start : start + 15], "lazy"))
        save_model(pca, tmp_path / "model.safetensors", overwrite=True)
        pca = load_model(tmp_path / "model.safetensors")
    assert pca._summary.rows.shape[1] == SUM
    assert_like_columns(pca, X, 1e-4)
    with pytest.raises(ValueError, match=r"not the one of the images before.*set_params\(mask=mask_\)"):
        pca.set_params(mask=~MASK).partial_fit(X)
    with pytest.raises(ValueError, match="which pixels are finite in all images to come"):
        ImagePCA(3, mask="finite").partial_fit(X)
    ImagePCA(3, mask="finite").fit(X).partial_fit(X)


def test_components_are_bounded_by_the_pixels_inside():
    with pytest.raises(ValueError, match=f"min\\(n_samples, n_features\\)={SUM} for 60 images of {SUM} values inside"):
        ImagePCA(SUM + 1, mask=MASK).fit(stack_of("uint8"))
    assert ImagePCA(mask=MASK).fit(stack_of("uint8")).n_components_ == SUM


def test_steps_before_and_other_estimators_beside():
    X = stack_of("float64", junk=(0.0, 7.0))
    lazy = laid_out(X, "lazy")
    for flat in (ImageFlattener(), ImageFlattener(MASK)):
        rows = flat.fit_transform(StackCenterer().fit_transform(lazy))
        mask = MASK.ravel() if flat.mask is None else None
        pca = ImagePCA(3, mask=mask).fit(rows)
        assert_allclose(pca.explained_variance_, PCA(3).fit(X[:, MASK]).explained_variance_)
    pca, flattener = ImagePCA(3, mask=MASK), ImageFlattener("finite")
    assert fit_together([flattener, pca, StackCenterer()], counted(X, 7).data) == 3
    assert_like_columns(pca, X, 1e-6)


@pytest.mark.parametrize("solver", ["tsqr", "randomized"])
def test_on_a_cluster(client, solver):
    X = stack_of("float32")
    pca = ImagePCA(3, svd_solver=solver, mask="finite", random_state=0).fit(laid_out(X, "lazy"))
    assert_like_columns(pca, X, 1e-4)
    assert_allclose(np.asarray(pca.transform(laid_out(X, "lazy"))), pca.transform(X), rtol=1e-4, atol=1e-2)
