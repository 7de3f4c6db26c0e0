"""Contract 9: the units of the images change results by a factor, and by nothing else."""

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from imgstack_ml import ChannelStatistics, ImageHistogram, ImagePCA, IntensityRescaler, StackCenterer, TextureFeatures
from tests.lib.stacks import stack_of_spectrum

POWERS = {"float32": [-99, 33, 96], "float64": [-465, 33, 464]}
FACTORS = {"float32": [1e-24, 3.7, 1e30], "float64": [1e-140, 3.7, 1e140]}
# Powers of the units in which results are.
DEGREES = {
    **dict.fromkeys(["components", "ratio"], 0),
    **dict.fromkeys(["singular values", "mean", "scores", "scores of fit", "images"], 1),
    **dict.fromkeys(["variance", "noise", "captured", "deficit", "bounds"], 2),
}
SOLVERS = ["gram", "by panels", "covariance_eigh", "tsqr", "randomized", "streamed", "partial_fit"]


def stack(dtype, n=60, shape=(9, 8)):
    X = 5 + stack_of_spectrum(n, shape, 100 * 0.6 ** np.arange(20), seed=4)
    return X.astype(dtype)


def results(X, solver, whiten=False):
    """All numbers that a fit gives, and the log-likelihood of the images."""
    images = da.from_array(X, chunks=(13, -1, -1))
    pca = ImagePCA(4, whiten=whiten, random_state=0)
    if solver == "partial_fit":
        for i in range(0, len(X), 25):
            pca.partial_fit(X[i : i + 25])
        fitted = pca.transform(images)
    else:
        name = {"by panels": "gram", "streamed": "randomized"}.get(solver, solver)
        pca.set_params(svd_solver=name)
        if name != solver:
            pca.set_params(memory_limit="1kB")
            with pytest.raises(ValueError, match="memory_limit=") as refused:
                pca.plan(images)
            pca.set_params(memory_limit=str(refused.value).split("memory_limit='")[1].split("'")[0])
        fitted = pca.fit_transform(images)
    scores, said = pca.transform(images), pca.certificate_
    found = {
        "components": pca.components_,
        "ratio": pca.explained_variance_ratio_,
        "singular values": pca.singular_values_,
        "mean": pca.mean_,
        "scores": scores.compute(),
        "scores of fit": np.asarray(fitted),
        "images": pca.inverse_transform(scores).compute(),
        "variance": pca.explained_variance_,
        "noise": pca.noise_variance_,
    }
    if said is not None:
        found |= {"captured": said.captured_variance, "deficit": said.deficit_bounds}
        found["bounds"] = said.explained_variance_bounds
    return found, np.asarray(pca.score_samples(images))


@pytest.mark.parametrize("dtype", POWERS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_powers_of_two_change_no_digit(solver, dtype):
    X = stack(dtype)
    expected, likelihood = results(X, solver)
    for power in POWERS[dtype]:
        found, now = results(np.ldexp(X, power), solver)
        for name, value in expected.items():
            assert_array_equal(np.ldexp(found[name], -power * DEGREES[name]), value, err_msg=f"{name}, 2^{power}")
        assert_allclose(now + X[0].size * power * np.log(2), likelihood, rtol=1e-10)


@pytest.mark.parametrize("dtype", FACTORS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_other_factors_change_nothing_but_rounding(solver, dtype):
    X, rtol = stack(dtype), 1e-5 if dtype == "float32" else 1e-10
    expected, _ = results(X, solver, whiten=True)
    tolerance = 1e-4 if solver in ("randomized", "streamed", "partial_fit") else rtol
    for factor in FACTORS[dtype]:
        found, _ = results((X.astype(np.float64) * factor).astype(dtype), solver, whiten=True)
        for name in ("singular values", "mean", "variance", "ratio", "images", "noise"):
            value = np.asarray(found[name], np.float64) / factor ** (DEGREES[name] / 2) / factor ** (DEGREES[name] / 2)
            size = np.abs(expected[name]).max()
            assert_allclose(value, expected[name], rtol=0, atol=tolerance * size, err_msg=f"{name} x {factor}")
        assert_allclose(np.abs(found["scores"]), np.abs(expected["scores"]), atol=30 * tolerance)  # whitened: no units


@pytest.mark.parametrize("factor", [1e170, 1e-170, 1e308])
@pytest.mark.parametrize("solver", ["gram", "covariance_eigh", "tsqr", "randomized", "partial_fit"])
def test_what_is_no_number_is_refused_with_a_divisor(solver, factor):
    X = (np.random.default_rng(0).random((12, 4, 3)) - 0.5) * factor
    divisor = f"{10.0 ** np.floor(np.log10(np.abs(X).max())):.0e}"
    images = da.from_array(X, chunks=(5, -1, -1))
    with pytest.raises(ValueError, match=rf"up to {np.abs(X).max():.3g}, .* e\.g\. X / {divisor}".replace("+", r"\+")):
        results(X, solver) if solver == "partial_fit" else ImagePCA(2, svd_solver=solver).fit(images)
    assert results(X / float(divisor), solver)[0]["components"].shape == (4, 12)


def test_scores_and_images_that_are_no_float32_are_refused():
    rng = np.random.default_rng(0)
    X = (rng.random((20, 1, 1)) * np.ones((1, 30, 30)) * 3e38).astype(np.float32) + rng.random((20, 30, 30), np.float32)
    pca = ImagePCA(1).fit(X)
    for ask in (lambda: pca.transform(X), lambda: ImagePCA(1).fit_transform(X)):
        with pytest.raises(ValueError, match=r"scores have values of up to 1e40, and float32 ends at .* by 1e3"):
            ask()
    with pytest.raises(ValueError, match=r"images have values of up to 1e\d+, and float32 ends"):
        pca.inverse_transform(np.full((2, 1), 1e42))


@pytest.mark.parametrize("solver", ["gram", "covariance_eigh", "tsqr", "randomized"])
def test_values_at_the_end_of_float32(solver, monkeypatch):
    """Their differences are beyond it."""
    monkeypatch.setattr("imgstack_ml.decomposition.records.FEW_PRODUCTS", 0)
    X = ((np.random.default_rng(0).random((30, 6, 5)) - 0.5) * 6.7e38).astype(np.float32)
    pca = ImagePCA(3, svd_solver=solver).fit(da.from_array(X, chunks=(7, -1, -1)))
    expected = np.linalg.svd((X.astype(np.float64) - X.astype(np.float64).mean(axis=0)).reshape(30, -1))[1][:3]
    assert_allclose(pca.singular_values_, expected, rtol=1e-4 if solver == "randomized" else 1e-5)


SCALED = {"float32": [-110, -60, 96], "float64": [-1000, -465, 464, 950]}
TRANSFORMERS = [  # and the power of the units in which its results are
    (StackCenterer(with_std=True), 0),
    (ChannelStatistics(percentiles=(5, 50)), 1),
    (IntensityRescaler(out_range=(0, 1)), 0),
    (IntensityRescaler("stack", "image"), 1),
    (IntensityRescaler(percentiles=(5, 95), out_range="uint8"), 0),
    (ImageHistogram(8), 0),
    (ImageHistogram(8, density=True), -1),
    (TextureFeatures(), 0),
]


@pytest.mark.parametrize("dtype", SCALED)
def test_transformers_in_all_units(dtype):
    """Deviations, bins and levels: squares, widths and their inverses are beyond the dtype here."""
    X = np.ldexp(np.random.default_rng(0).integers(-200, 200, (12, 7, 6)), -8).astype(dtype)
    X[:, 2, 3] = 0.5  # constant
    for transformer, degree in TRANSFORMERS:
        expected = np.asarray(transformer.fit_transform(X))
        for power in SCALED[dtype]:
            scaled = np.ldexp(X, power)
            found = transformer.fit(da.from_array(scaled, chunks=(12, -1, -1))).transform(scaled)
            assert_array_equal(np.ldexp(found, -power * degree), expected, err_msg=f"{transformer}, 2^{power}")
            if isinstance(transformer, StackCenterer):
                assert transformer.scale_[2, 3] == 1
                std = np.ldexp(X.astype(np.float64).std(axis=0), power)
                assert_allclose(transformer.scale_, np.where(std > 0, std, 1), rtol=1e-14)
    centerer = StackCenterer(with_std=True).fit(da.from_array(scaled, chunks=(5, -1, -1)))
    assert_allclose(centerer.scale_, np.where(std > 0, std, 1), rtol=1e-14)


def test_float32_below_its_smallest_normal_number():
    X = (np.random.default_rng(0).random((20, 7, 6)) * 1e-40).astype(np.float32)
    exact = X.astype(np.float64)
    centred = StackCenterer(with_std=True).fit_transform(X)
    assert_allclose(centred, (exact - exact.mean(axis=0)) / exact.std(axis=0), atol=1e-6)
    rescaled, low = IntensityRescaler(out_range=(0, 1)).fit_transform(X), exact.min(axis=(1, 2), keepdims=True)
    assert_allclose(rescaled, (exact - low) / (exact.max(axis=(1, 2), keepdims=True) - low), atol=1e-6)
    limits = (exact.min(), exact.max())
    assert_array_equal(ImageHistogram(8).fit_transform(X), [np.histogram(image, 8, limits)[0] for image in exact])


def test_pixels_of_different_sizes_have_their_own_deviations():
    sizes = 10.0 ** np.arange(-300, 301, 50)
    X = np.random.default_rng(0).standard_normal((9, sizes.size, 1)) * sizes[:, None]
    expected = (X / sizes[:, None]).std(axis=0) * sizes[:, None]
    assert_allclose(StackCenterer(with_std=True).fit(da.from_array(X, chunks=(2, -1, -1))).scale_, expected, rtol=1e-13)


@pytest.mark.parametrize("step", [2.0, 0.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_more_bins_than_numbers(dtype, step):
    """NumPy's edges of bins are equal there, which is an error."""
    large = 2.0**24 if dtype == "float32" else 2.0**53
    X = (large + step * np.arange(3).repeat(4)).astype(dtype).reshape(1, 4, 3)
    expected = np.histogram(X.astype(np.float64) - large, 8, (0, 2 * step))[0][None]
    assert_array_equal(ImageHistogram(8).fit_transform(X), expected)
