"""Likelihoods and the covariance of the probabilistic model."""

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError

from imgstack_ml import ImagePCA, NonFiniteError
from imgstack_ml.decomposition.likelihood import log_likelihood
from tests.lib.stacks import counted, photographs


@pytest.mark.parametrize("k", [11, 12])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_noise_there_is_no_likelihood(k, dtype):
    """All variance explained: what rounding leaves is no noise."""
    X = np.random.default_rng(0).standard_normal((12, 10, 5)).astype(dtype)
    pca = ImagePCA(k).fit(X)
    with pytest.raises(ValueError, match=r"Fit fewer components, e.g. ImagePCA\(5|6\)"):
        pca.score(X)


def test_likelihood_with_all_directions():
    X = photographs(40, (3, 2), "float64")
    theirs = PCA(svd_solver="full").fit(X.reshape(40, -1))
    assert_allclose(ImagePCA().fit(X).score_samples(X), theirs.score_samples(X.reshape(40, -1)), rtol=1e-8)


def test_no_covariance_of_large_images():
    pca = ImagePCA(1).fit(photographs(3, (101, 100)))
    for method in ("get_covariance", "get_precision"):
        with pytest.raises(ValueError, match=f"10100 x 10100.*{method}"):
            getattr(pca, method)()


@pytest.mark.parametrize("k", [1, 4, 30])
@pytest.mark.parametrize(
    ("dtype", "scale", "rtol"), [("float64", 1, 1e-9), ("float64", 1e-30, 1e-9), ("uint8", 1, 1e-3)]
)
def test_precision_is_the_inverse_of_the_covariance(k, dtype, scale, rtol):
    X = photographs(60, (5, 6), dtype)
    X = X * scale if dtype == "float64" else X
    pca = ImagePCA(k).fit(X)
    theirs = PCA(k, svd_solver="full").fit(X.reshape(60, -1).astype(float))
    precision = pca.get_precision()
    unit = np.abs(precision).max()
    assert precision.dtype == np.float64
    for expected in (np.linalg.inv(pca.get_covariance()), theirs.get_precision()):
        assert_allclose(precision / unit, expected / unit, atol=rtol)


def test_no_precision_without_noise():
    with pytest.raises(ValueError, match="no inverse of the covariance"):
        ImagePCA(11).fit(photographs(12, (10, 5), "float64")).get_precision()


def test_likelihoods_are_lazy_and_read_each_image_once():
    source = counted(photographs(30, (6, 5)), 10)
    pca = ImagePCA(3).fit(source.data.compute())
    source.reads.clear()
    found = pca.score_samples(source.data)
    assert isinstance(found, da.Array)
    assert not source.reads
    assert pca.score(source.data) == pytest.approx(found.compute().mean())
    assert set(source.reads.values()) == {2}


def test_likelihood_of_a_block():
    """A normal distribution in two directions, with variance 4 along the first axis and noise of variance 0.25."""
    block = np.array([[[1.0, 5.0]], [[3.0, 4.0]]])
    axes, mean, variance = np.array([[1.0, 0.0]]), np.array([1.0, 4.0]), np.array([4.0])
    found = log_likelihood(0.25, 2 * np.log(2 * np.pi), block, axes, mean, variance, np.eye(1))
    assert_allclose(found, -0.5 * (2 * np.log(2 * np.pi) + np.array([1 / 0.25, 2**2 / 4])))


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("kind", [np.asarray, da.from_array], ids=["numpy", "dask"])
def test_an_image_whose_likelihood_is_no_number_is_named(kind):
    X = photographs(20, (6, 5), "float64")
    pca, far = ImagePCA(3).fit(X), X.copy()
    far[4] *= 1e160
    with pytest.raises(NonFiniteError, match=r"image 4 has values of up to .*beyond float64"):
        pca.score(kind(far))


def test_no_likelihood_before_fit():
    for method in (ImagePCA(2).score_samples, ImagePCA(2).score):
        with pytest.raises(NotFittedError):
            method(photographs(20, (6, 5)))
    with pytest.raises(NotFittedError):
        ImagePCA(2).get_covariance()
