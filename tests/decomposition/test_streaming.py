"""The streaming solver of ImagePCA: accuracy, reads, what it says of itself, batches that come one by one."""

import warnings
from functools import cache

import dask
import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from imgstack_ml import ImageFlattener, ImagePCA, IntensityRescaler, StackCenterer, load_model, save_model
from imgstack_ml.base.validation import Images
from imgstack_ml.decomposition.request import FitRequest
from imgstack_ml.decomposition.sizes import FitSize
from imgstack_ml.decomposition.solvers import SOLVERS
from imgstack_ml.decomposition.streaming_plan import streaming_cost
from imgstack_ml.passes.runner import PassRunner
from tests.lib.stacks import counted, photographs, reference, stack_of_spectrum

K = 10


def streamed(X, k=K, *, chunks=64, tol=1e-4, max_passes=6, seed=0):
    """Factors of a stack that is read again for every product, as one that does not fit is; and its source."""
    source = counted(X, chunks)
    images = Images(source.data, None)
    problem = FitSize.of((len(X), images.n_pixels), X.dtype, k, max(source.data.chunks[0]), max_passes=max_passes)
    need = streaming_cost(problem, 2**40, 4, kept=False)
    runner = PassRunner(images, read_bytes=need.reading_bytes)
    factors = SOLVERS["randomized"](runner, need, problem, FitRequest(k, tol, max_passes, seed))
    assert runner.n_passes == source.n_reads <= max_passes
    return factors, source


def relative_errors(factors, X):
    """Of the variances; those below 1e-12 of the first count as nothing."""
    expected = np.pad(reference(X).singular_values, (0, K))[: len(factors.singular_values)] ** 2
    found = factors.singular_values**2
    real = expected > 1e-12 * expected[0]
    assert np.all(found[~real] <= 1e-12 * expected[0])
    return np.abs(found[real] / expected[real] - 1)


# accuracy

j = np.arange(1, 201)
SPECTRA = {
    "slow": j**-0.5,
    "inverse": 1.0 / j,
    "fast": 0.6**j,
    "flat floor": np.where(j <= 5, 10.0 / j, 0.5),
    "all equal": np.ones(200),
    "repeated": np.where(j <= 4, 10, np.where(j <= 12, 3, 0.1)),
    "rank below k": 1.0 / j[:6],
    "graded to 1e-3": np.where(j <= 10, 10.0 ** (-(j - 1) / 3), 1e-5),
    "graded to 1e-5": np.where(j <= 10, 10.0 ** (-(j - 1) * 5 / 9), 1e-7),
}


@pytest.mark.parametrize("images", ["spread", "drift"])
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA.keys())
def test_spectra_in_float64(spectrum, images):
    X = stack_of_spectrum(500, (900,), 1e3 * spectrum, offset=100.0, images=images)
    factors, _ = streamed(X)
    assert factors.certificate.converged
    assert relative_errors(factors, X).max() <= 1e-4


@pytest.mark.parametrize("name", ["slow", "flat floor", "graded to 1e-3", "graded to 1e-5"])
def test_spectra_in_float32(name):
    """Large enough for products in float32; small singular values make the later reads work in float64."""
    X = stack_of_spectrum(2_000, (15_000,), 1e3 * SPECTRA[name], offset=100.0, dtype="float32")
    factors, _ = streamed(X)
    assert factors.certificate.converged
    centred = X - X.mean(axis=0, dtype=np.float64)
    expected = np.linalg.eigvalsh(centred @ centred.T)[: -K - 1 : -1]
    assert_allclose(factors.singular_values**2, expected, rtol=1e-4)


def sorted_by_class(X):
    rng = np.random.default_rng(1)
    looks = np.repeat(rng.integers(0, 60, (5, *X.shape[1:])), len(X) // 5, axis=0)
    return (X // 2 + looks).astype(np.uint8)


def last_tenth_unlike(X):
    rolled = np.roll(X[-len(X) // 10 :], 7, axis=1)
    return np.concatenate([X[: -len(X) // 10], 255 - rolled])


def duplicates(X):
    return np.tile(X[:30], (len(X) // 30, 1, 1, 1))


def brightest_first(X):
    return X[np.argsort(-X.mean(axis=(1, 2, 3)))]


@pytest.mark.parametrize("arranged", [sorted_by_class, last_tenth_unlike, duplicates, brightest_first])
def test_order_and_repetition_do_not_matter(arranged):
    X = arranged(photographs(900, (12, 12, 3)))
    factors, _ = streamed(X, 5)
    assert factors.certificate.converged
    assert relative_errors(factors, X).max() <= 1e-4


@pytest.mark.parametrize(("offset", "dtype"), [(30_000, "uint16"), (1e6, "float64"), (-5e3, "float32")])
def test_a_small_change_on_a_large_offset(offset, dtype):
    s = 40.0 * 0.8 ** np.arange(20) * np.sqrt(600)
    X = stack_of_spectrum(600, (20, 20), s, offset=offset, dtype="float64")
    X = np.rint(X).astype(dtype) if dtype == "uint16" else X.astype(dtype)
    factors, _ = streamed(X)
    assert relative_errors(factors, X).max() <= 1e-4
    assert_allclose(factors.mean, reference(X).mean, rtol=0, atol=1e-6)


@cache
def noise():
    return np.random.default_rng(0).integers(0, 256, (1_500, 24, 24), dtype=np.uint8)


def test_noise_is_slow_and_the_solver_says_so():
    with pytest.warns(ConvergenceWarning, match=r"max_passes=3.*tol="):
        factors, _ = streamed(noise(), max_passes=3)
    certificate = factors.certificate
    assert not certificate.converged
    error = relative_errors(factors, noise()).max()
    assert 1e-4 < error <= certificate.largest_error


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
@pytest.mark.parametrize("chunks", [1, 37, (400, 1, 199), 600])
def test_chunks_and_schedulers_do_not_matter(chunks, scheduler):
    X = stack_of_spectrum(600, (10, 12, 3), 1e3 * SPECTRA["inverse"], dtype="float32")
    expected, _ = streamed(X, 5, chunks=100, tol=1e-9)
    with dask.config.set(scheduler=scheduler):
        found, _ = streamed(X, 5, chunks=chunks, tol=1e-9)
    first = expected.singular_values[0]
    assert_allclose(found.singular_values, expected.singular_values, rtol=0, atol=1e-4 * first)
    assert_allclose(np.abs(np.sum(found.components * expected.components, axis=1)), 1, rtol=0, atol=1e-4)
    assert np.abs(np.abs(found.scores) - np.abs(expected.scores)).max() <= 1e-4 * first


def test_the_same_seed_repeats_bit_for_bit():
    X = photographs(300, (12, 12))
    twice = [ImagePCA(4, svd_solver="randomized", random_state=3).fit(X) for _ in range(2)]
    assert np.array_equal(twice[0].components_, twice[1].components_)
    other = ImagePCA(4, svd_solver="randomized", random_state=np.random.RandomState(7)).fit(X)
    assert_allclose(other.explained_variance_, twice[0].explained_variance_, rtol=1e-4)


# reads


@pytest.mark.parametrize("max_passes", [1, 2, 3, 6])
def test_reads_are_counted_and_limited(max_passes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        factors, source = streamed(noise(), max_passes=max_passes)
    assert source.n_reads == max_passes
    assert factors.n_iter == max_passes - 1


def test_scores_come_without_a_read_and_are_those_of_transform():
    X = photographs(400, (16, 16, 3))
    factors, source = streamed(X, 5)
    before = source.n_reads
    expected = (X.reshape(400, -1) - factors.mean) @ factors.components.T
    assert np.abs(factors.scores - expected).max() <= 1e-5 * factors.singular_values[0]
    assert source.n_reads == before


def test_images_that_are_kept_are_read_once_and_iterated():
    X = noise()
    source = counted(X, 100)
    pca = ImagePCA(3, svd_solver="randomized", random_state=0, max_passes=2).fit(source.data)
    assert source.n_reads == pca.n_passes_ == 1
    assert pca.n_iter_ > 1
    assert pca.certificate_.converged
    assert_allclose(pca.explained_variance_, reference(X).explained_variance(3), rtol=1e-4)


def test_reads_of_a_whole_pipeline():
    """One read to learn the mean image, one for the PCA, which keeps the images: the classifier costs none."""
    X = photographs(120, (14, 14))
    y = X.mean(axis=(1, 2)) > np.median(X.mean(axis=(1, 2)))
    source = counted(X, 20)
    steps = IntensityRescaler(), StackCenterer(), ImageFlattener(), ImagePCA(5, svd_solver="randomized", random_state=0)
    pipeline = make_pipeline(*steps, LogisticRegression()).fit(source.data, y)
    assert source.n_reads == 2
    without = counted(X, 20)
    make_pipeline(steps[0], *steps[2:], LogisticRegression()).fit(without.data, y)
    assert without.n_reads == 1
    assert pipeline.score(source.data, y) > 0.5


# a single look


@pytest.mark.filterwarnings("error")
def test_a_single_read_gives_lower_bounds_and_the_exact_total():
    X = photographs(500, (14, 14, 3))
    factors, source = streamed(X, 5, max_passes=1)
    ref = reference(X)
    assert source.n_reads == 1
    assert factors.scores is None
    assert_allclose(factors.total, ref.total, rtol=1e-9)
    found, expected = factors.singular_values**2, ref.singular_values[:5] ** 2
    assert np.all(found <= expected * (1 + 1e-9))
    assert_allclose(found, expected, rtol=1e-2)
    certificate = factors.certificate
    assert not certificate.is_exact
    assert certificate.estimated_deficit is None
    assert np.all(certificate.explained_variance_bounds[1] * 499 >= expected)
    assert "at least" in repr(certificate)


# a share of the variance


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_a_share_is_reached_on_exact_variance(share):
    X = stack_of_spectrum(500, (30, 30), 1e3 * SPECTRA["inverse"], dtype="float32")
    factors, _ = streamed(X, share)
    ref = reference(X)
    explained = np.cumsum(ref.singular_values**2) / ref.total
    assert len(factors.singular_values) == np.searchsorted(explained, share, side="right") + 1
    assert (factors.singular_values**2).sum() > share * factors.total


def test_a_share_out_of_reach_warns_and_says_what_was_reached():
    with pytest.warns(ConvergenceWarning, match=r"n_components=0.99: \d+ components.*explain 0\.\d+ of the variance"):
        factors, _ = streamed(noise(), 0.99, max_passes=3)
    assert 0.1 < (factors.singular_values**2).sum() / factors.total < 0.99


# batches that come one by one


@pytest.mark.parametrize("size", [1, 7, 60, 400])
def test_any_split_into_batches_agrees_with_one_fit(size):
    X = stack_of_spectrum(400, (12, 12, 3), 1e3 * 0.8 ** np.arange(60), dtype="float32", offset=50.0)
    pca = ImagePCA(5)
    for start in range(0, len(X), size):
        batch = X[start : start + size]
        pca.partial_fit(da.from_array(batch, chunks=(5, -1, -1, -1)) if start % 2 else batch)
    whole = ImagePCA(5, svd_solver="gram").fit(X)
    assert pca.n_samples_ == 400
    assert_allclose(pca.explained_variance_, whole.explained_variance_, rtol=1e-3)
    assert_allclose(pca.explained_variance_ratio_, whole.explained_variance_ratio_, rtol=1e-3)
    assert_allclose(pca.mean_, whole.mean_, rtol=0, atol=1e-4)
    assert_allclose(np.abs(np.sum(pca.components_ * whole.components_, axis=1)), 1, rtol=0, atol=1e-3)
    assert np.all(pca.certificate_.explained_variance_bounds[1] >= whole.explained_variance_)


def test_partial_fit_goes_on_after_fit_and_after_load(tmp_path):
    X = stack_of_spectrum(400, (12, 12), 1e3 * 0.6 ** np.arange(40), offset=50.0)
    whole = ImagePCA(5).fit(X)
    fitted = ImagePCA(5).fit(X[:250])
    save_model(fitted, tmp_path / "half.safetensors")
    for pca in (fitted, load_model(tmp_path / "half.safetensors")):
        pca.partial_fit(X[250:])
        assert pca.n_samples_ == 400
        assert_allclose(pca.explained_variance_[:3], whole.explained_variance_[:3], rtol=2e-2)
        assert_allclose(pca.mean_, whole.mean_, rtol=0, atol=1e-9)


def test_fit_begins_anew_after_partial_fit():
    X = photographs(100, (9, 9))
    pca = ImagePCA(3).partial_fit(X[:50] // 2)
    pca.fit(X)
    assert pca.n_samples_ == 100
    assert_allclose(pca.explained_variance_, reference(X).explained_variance(3), rtol=1e-6)


def test_batches_of_another_shape_are_refused():
    pca = ImagePCA(3).partial_fit(photographs(50, (9, 9)))
    with pytest.raises(ValueError, match="9"):
        pca.partial_fit(photographs(50, (8, 9)))


def test_a_certificate_is_saved_with_the_model(tmp_path):
    pca = ImagePCA(3, svd_solver="randomized", random_state=0).fit(photographs(90, (9, 9)))
    save_model(pca, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors").certificate_
    assert repr(loaded) == repr(pca.certificate_)
    assert np.array_equal(loaded.explained_variance_bounds, pca.certificate_.explained_variance_bounds)


# parameters


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_passes", 0), ("max_passes", 2.5), ("n_oversamples", -1), ("tol", -1.0), ("tol", "small"), ("tol", np.nan)],
)
def test_bad_parameters_are_named(name, value):
    with pytest.raises(ValueError, match=rf"{name}="):
        ImagePCA(2, **{name: value}).fit(photographs(20, (6, 5)))


def test_auto_streams_what_is_too_large_for_the_exact_solvers():
    stack = da.zeros((20_032, 256, 256, 3), dtype=np.uint8, chunks=(64, 256, 256, 3))
    assert ImagePCA(10, memory_limit="1GB").plan(stack).solver == "randomized"
    assert ImagePCA(10).plan(stack[:200]).solver == "gram"
    assert ImagePCA(10).plan(da.zeros((100_000, 28, 28), chunks=(1_000, 28, 28))).solver == "covariance_eigh"


def test_a_plan_says_that_a_centerer_costs_a_read():
    stack = counted(photographs(60, (8, 8)), 10).data
    centred = StackCenterer().fit(stack).transform(stack)
    assert "took a read" in repr(ImagePCA(3).plan(centred))
    assert "took a read" not in repr(ImagePCA(3).plan(stack))
