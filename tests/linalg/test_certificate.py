"""The certificate of the streaming solver: rigorous figures contain NumPy's truth, and say something."""

import time
import warnings
from collections import Counter
from functools import cache, partial
from threading import Lock
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from skimage import data
from skimage.data import lfw_subset
from sklearn.exceptions import ConvergenceWarning

from imgstack_ml import ImagePCA
from imgstack_ml.base.validation import Images
from imgstack_ml.datasets import make_cells
from imgstack_ml.decomposition import records, streaming
from imgstack_ml.decomposition.records import FitRequest, FitSize
from imgstack_ml.decomposition.solvers import SOLVERS
from imgstack_ml.decomposition.streaming_plan import streaming_cost
from imgstack_ml.errors import ImagesChangedError
from imgstack_ml.linalg import certificate as kernels
from imgstack_ml.linalg.certificate import Residuals, estimated_errors, nystrom_values, trusted, upper_bounds
from imgstack_ml.passes.runner import PassRunner
from tests.lib.kinds import KINDS, as_pixels
from tests.lib.stacks import counted, reference, stack_of_spectrum

ROOMY, CRAMPED = 2**40, 1  # memory for every block of the basis, or for as few as may be


def streamed(X, k, *, chunks=64, tol=1e-4, max_passes=6, seed=0, limit=ROOMY, single=False):
    """Factors of a stack that is read again for every product."""
    lazy = counted(X, chunks).data
    images = Images(lazy, None)
    problem = FitSize.of((len(lazy), images.n_pixels), lazy.dtype, k, max(lazy.chunks[0]), max_passes=max_passes)
    need = streaming_cost(problem, limit, 2, kept=False)
    runner = PassRunner(images, read_bytes=need.reading_bytes)
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", ConvergenceWarning)
        if single:  # products in float32, as large stacks have them
            patch.setattr(records, "FEW_PRODUCTS", 0)
        return SOLVERS["randomized"](runner, need, problem, FitRequest(k, tol, max_passes, seed))


class Case(NamedTuple):
    """One stack and how it is solved."""

    kind: str
    n: int
    p: int
    k: int
    dtype: str
    offset: float
    chunks: int
    tol: float
    max_passes: int
    seed: int
    limit: int
    single: bool

    @property
    def options(self):
        return {name: getattr(self, name) for name in ("chunks", "tol", "max_passes", "seed", "limit", "single")}

    @property
    def images(self):
        rng = np.random.default_rng(self.seed)
        return as_pixels(KINDS[self.kind](rng, self.n, self.p), self.dtype, self.offset)


@st.composite
def cases(draw):
    # Blocks are of 16 rows and more: sizes about there leave one direction, or none, outside of a basis.
    sizes = st.integers(2, 12) | st.integers(13, 60) | st.integers(60, 300)
    n, p = draw(sizes), draw(st.integers(1, 3) | sizes)
    return Case(
        draw(st.sampled_from(sorted(KINDS))),
        n,
        p,
        draw(st.integers(1, min(n, p, 12))),
        draw(st.sampled_from(["uint8", "uint16", "float32", "float64"])),
        draw(st.sampled_from([0.0, 2.0, 1e4])),
        draw(st.integers(1, n)),
        draw(st.sampled_from([0.0, 1e-9, 1e-4])),
        draw(st.integers(1, 4) | st.integers(5, 14)),
        draw(st.integers(0, 2**20)),
        draw(st.sampled_from([ROOMY, CRAMPED])),
        draw(st.booleans()),
    )


MERGES = Case("duplicates", 299, 4, 1, "uint16", 0.0, 1, 1e-9, 1, 1, CRAMPED, False)  # 298 merges, with rounding each


@settings(max_examples=10, deadline=None, derandomize=True)
@given(cases())
@example(MERGES)
@example(MERGES._replace(p=57, k=10))
def test_rigorous_figures_contain_the_truth(case):
    X = case.images
    found = streamed(X, case.k, **case.options)
    certificate, ref, degrees = found.certificate, reference(X), case.n - 1
    truth = ref.explained_variance(case.k)
    lower, upper = certificate.explained_variance_bounds
    assert np.all(lower <= truth)
    assert np.all(truth <= upper)
    low, high = certificate.deficit_bounds
    assert 0 <= low <= high
    # Rounding can capture a little more than the best there is.
    assert low <= max(truth.sum() - certificate.captured_variance, 0) <= high
    eps = np.finfo(np.float64 if X.dtype == np.float64 else np.float32).eps
    rounding = 64 * eps * truth[0]
    assert abs(certificate.total_variance - ref.total / degrees) <= 64 * eps * ref.total / degrees
    centred = X.reshape(case.n, -1) - ref.mean
    along = ((centred @ found.components[: found.rank].T.astype(np.float64)) ** 2).sum() / degrees
    if certificate.is_exact:
        assert abs(certificate.captured_variance - along) <= rounding
    else:
        assert certificate.captured_variance <= along + rounding


many = settings(max_examples=400, deadline=None, derandomize=True)
test_rigorous_figures_contain_the_truth_of_many_stacks = pytest.mark.slow(
    many(given(cases())(test_rigorous_figures_contain_the_truth.hypothesis.inner_test))
)


# the kernels alone


class Basis(NamedTuple):
    """Eigenvalues of a matrix C, a basis W that holds the leading `n_known` eigenvectors, and the residuals in it."""

    values: np.ndarray
    C: np.ndarray
    W: np.ndarray
    n_known: int
    residuals: Residuals

    @property
    def lost(self):
        return float(np.append(self.values, 0.0)[self.n_known])


@st.composite
def bases(draw):
    p, r = draw(st.integers(2, 14)), draw(st.integers(1, 5))
    n_known = draw(st.integers(0, min(r, p)))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    values = draw(st.sampled_from([0.3 ** np.arange(p), np.ones(p), 1 / np.arange(1, p + 1), 1e3 * (np.arange(p) < 3)]))
    vectors = np.linalg.qr(rng.standard_normal((p, p)))[0]
    C = (vectors * values) @ vectors.T
    W = np.linalg.qr(np.hstack([vectors[:, :n_known], rng.standard_normal((p, min(r, p) - n_known))]))[0].T
    outside = W @ C - W @ C @ W.T @ W
    theta, coefficients = np.linalg.eigh(W @ C @ W.T)
    return Basis(values, C, W, n_known, Residuals(theta[::-1], coefficients[:, ::-1], outside @ outside.T))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(bases(), st.booleans(), st.sampled_from([1.0, 2.0**-480, 2.0**480]))
def test_bounds_contain_the_eigenvalues(basis, with_lost, scale):
    residuals, total, r = basis.residuals, basis.values.sum(), len(basis.W)
    theta, truth, pad = residuals.values, basis.values[:r], 1e-9 * basis.values[0]
    vectors = residuals.coefficients.T @ basis.W
    norms = np.linalg.norm(vectors @ basis.C - theta[:, None] * vectors, axis=1)
    np.testing.assert_allclose(residuals.norms, norms, atol=1e-7 * basis.values[0])
    nystrom = nystrom_values(residuals, trusted(residuals, 1e-9 * basis.values[0], total))
    assert np.all(theta <= nystrom)
    assert np.all(nystrom <= truth + pad)
    lost = basis.lost if with_lost else None
    upper = upper_bounds(residuals, nystrom, r, total, lost)
    assert np.all(basis.values[: r + 1] <= upper[: len(basis.values)] + pad)
    # the same in other units
    scaled = Residuals(scale * theta, residuals.coefficients, scale**2 * residuals.inner)
    there = upper_bounds(scaled, scale * nystrom, r, scale * total, None if lost is None else scale * lost)
    np.testing.assert_allclose(there / scale, upper, rtol=0, atol=1e-7 * basis.values[0])
    # with the small Ritz values eliminated: true as well, and hardly larger
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_LARGE", 0)
        few = [upper_bounds(residuals, nystrom, k, total, lost) for k in range(1, r + 1)]
    for k, bounds in enumerate(few, start=1):
        assert np.all(upper[:k] - pad <= bounds[:k])
        assert bounds[k - 1] <= 1.1 * upper[k - 1] + pad
    known = min(basis.n_known, r)
    if with_lost and basis.n_known == r:  # the basis holds all that is asked for, and nothing else is as large
        np.testing.assert_allclose(upper[:known], np.maximum(truth[:known], basis.lost), atol=pad)


def test_squares_beyond_float64_end():
    residuals = Residuals(np.array([1e200, 1e190]), np.eye(2), np.full((2, 2), np.inf))
    use = trusted(residuals, 0.0, 2e200)
    assert not use.any()
    nystrom = nystrom_values(residuals, use)
    np.testing.assert_allclose(upper_bounds(residuals, nystrom, 2, 2e200, None), [2e200, 1e200, 1e200], rtol=1e-9)


def test_estimates_are_sums_of_geometric_series():
    theta, nystrom = np.array([8.0, 4.0, 2.0, 0.0]), np.array([8.5, 4.5, 3.0, 0.0])
    np.testing.assert_allclose(estimated_errors(theta, nystrom, 2, 3), [0.5 / (1 - 1 / 4), 0.5 / (1 - 1 / 2)])
    np.testing.assert_allclose(estimated_errors(theta, nystrom, 2, 1), [0.5 / 0.1, 0.5 / 0.1])  # a ratio of 0.9 at most
    np.testing.assert_allclose(estimated_errors(theta[:2], nystrom[:2], 2, 2), [0.5, 0.5])  # nothing is left outside


# what rounding hides


@pytest.mark.parametrize("floor", [0.0, 1e-7])
def test_small_components_of_float32_images_are_found_by_products_in_float64(floor):
    """Down to 1e-5 of the first, below the noise of float32; the first read, in float32, has them 1e-3 off."""
    X = stack_of_spectrum(300, (2000,), np.append(np.logspace(0, -5, 10), floor * np.ones(9)), dtype="float32")
    found = streamed(X, 10, chunks=50, single=True)
    truth = reference(X).explained_variance(10)
    errors = np.abs(found.singular_values**2 / 299 / truth - 1)
    assert found.certificate.converged
    assert np.all(errors <= 1e-4)
    assert errors.max() <= found.certificate.largest_error


@pytest.mark.parametrize(("tol", "reached"), [(1e-4, True), (1e-12, False), (0.0, False)])
def test_a_tol_below_rounding_is_not_claimed(tol, reached):
    X = stack_of_spectrum(120, (50,), 0.5 ** np.arange(30))
    pca = ImagePCA(8, svd_solver="randomized", tol=tol, random_state=0, max_passes=40)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        pca.fit(X)
    assert pca.certificate_.converged == reached == (pca.certificate_.largest_error <= tol)
    assert reached or "rounding" in str(record[0].message)


@pytest.mark.slow
@pytest.mark.parametrize("k", [50, 200, 500])
@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_bounds_take_a_fifth_of_a_fit_at_most(k, decay):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((6 * k + 1500, 2000), dtype=np.float32) * np.arange(1, 2001, dtype=np.float32) ** -decay
    X = (X @ rng.standard_normal((2000, 6000), dtype=np.float32)).astype(np.float32)
    spent = Counter()

    def timed(function):
        def call(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent["bounds"] += time.perf_counter() - start

        return call

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name in ("_certify", "nystrom_values"):
            patch.setattr(streaming, name, timed(getattr(streaming, name)))
        start = time.perf_counter()
        ImagePCA(k, svd_solver="randomized", random_state=0, memory_limit="4GB").fit(X)
        spent["fit"] = time.perf_counter() - start
    print(f"\nk = {k}, decay {decay}: {spent['bounds']:.2f} of {spent['fit']:.2f} s")
    assert spent["bounds"] <= 0.2 * max(spent["fit"], 2)


# what it says is of use


@cache
def cells(n, size):
    return make_cells(n, size)


@cache
def faces():
    return lfw_subset()


@cache
def patches(n=3_000, size=64):
    """Squares cut from the colour photographs that come with scikit-image."""
    rng = np.random.default_rng(0)
    photos = [data.astronaut(), data.coffee(), data.cat(), data.rocket(), data.retina(), data.hubble_deep_field()]
    out = np.empty((n, size, size, 3), np.uint8)
    for i in range(n):
        photo = photos[i % len(photos)]
        y, x = (rng.integers(side - size) for side in photo.shape[:2])
        out[i] = photo[y : y + size, x : x + size]
    return out


PICTURES = [
    pytest.param(partial(cells, 200, 64), 10, id="cells"),
    pytest.param(partial(cells, 844, 32), 10, id="cells of all kinds"),
    pytest.param(faces, 10, id="faces"),
    pytest.param(partial(patches, 1_500, 32), 30, id="patches"),
    pytest.param(patches, 30, id="large patches", marks=pytest.mark.slow),
    pytest.param(partial(cells, 844, 256), 10, id="cells of full size", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("reads", [2, 3])
@pytest.mark.parametrize(("pictures", "k"), PICTURES)
def test_few_reads_of_pictures_leave_little_unsaid(pictures, k, reads):
    X = pictures()
    certificate = streamed(X, k, max_passes=reads, tol=0).certificate
    truth, captured = leading_variances(pictures, k), certificate.captured_variance
    deficit, estimate, bounds = truth.sum() - captured, certificate.estimated_deficit, certificate.deficit_bounds
    lower, upper = certificate.explained_variance_bounds[:, -1] / truth[-1]
    print(f"\n{X.shape}, {reads} reads; in units of lambda_1: missed {deficit / truth[0]:.2g}, ", end="")
    print(f"estimate {estimate / truth[0]:.2g}, bounds {bounds[0] / truth[0]:.2g} {bounds[1] / truth[0]:.2g}; ", end="")
    print(f"lambda_k: {lower:.6f} to {upper:.6f} of the truth")
    if deficit > np.finfo(np.float32).eps * truth[0]:  # what products in float32 can tell
        assert deficit <= estimate <= 5 * deficit
    assert estimate <= 1e-3 * truth[0]
    assert 0.9 <= lower <= 1 <= upper <= 2.5


@cache
def leading_variances(pictures, k):
    X = pictures()
    flat = X.reshape(len(X), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    return np.linalg.eigvalsh(flat @ flat.T)[: -k - 1 : -1] / (len(X) - 1)


# what a single look cannot see


@cache
def planted(strong):
    """Twelve groups of images, each with 80 directions of its own over one that all have; and it.

    A summary of up to 62 directions of a group holds nothing of the common one, which leads the whole stack but for a
    direction that is `strong` times as long.
    """
    rng = np.random.default_rng(0)
    groups, size, own, p = 12, 186, 80, 800
    ones = np.ones((size, 1))
    times = np.linalg.qr(np.hstack([ones, rng.standard_normal((size, own + 2))]))[0][:, 1:] * np.sqrt(size)
    X = np.zeros((groups, size, p))
    X[:, :, 0], X[:, :, 1] = 0.7 * times[:, 0], strong * times[:, 1]
    for group in X:
        group[:, 2:] = times[:, 2:] @ np.linalg.qr(rng.standard_normal((p - 2, own)))[0].T
    turn = np.linalg.qr(rng.standard_normal((p, p)))[0]
    return X.reshape(groups * size, p) @ turn, turn[0]


@pytest.mark.parametrize("strong", [0, pytest.param(100, marks=pytest.mark.slow), 1e5])
def test_a_direction_below_every_cut_is_found(strong):
    X, common = planted(strong)
    seen = {}
    for reads in (1, 2, 4, 6, 9):
        found = streamed(X, 5, chunks=186, max_passes=reads)
        seen[reads] = np.linalg.norm(found.components @ common)
        assert seen[reads] >= 0.999 or not found.certificate.converged
    assert seen[1] <= 0.01
    assert seen[6] >= 0.999  # the default number of reads
    assert found.certificate.converged


@pytest.mark.parametrize("reads", [2, 3])
def test_images_that_changed_between_reads_are_noticed(reads):
    """They are other ones at read number `reads`, and never the same again."""
    X = np.random.default_rng(0).integers(0, 256, (900, 15, 15), dtype=np.uint8)
    n_read, lock = 0, Lock()

    def make(start, stop):
        nonlocal n_read
        with lock:
            n_read += stop - start
            current = -(-n_read // len(X))
        if current < reads:
            return X[start:stop]
        return np.random.default_rng(current).integers(0, 256, (stop - start, 15, 15), dtype=np.uint8)

    with pytest.raises(ImagesChangedError):
        streamed((make, X.shape, X.dtype), 5, chunks=300, tol=0)
