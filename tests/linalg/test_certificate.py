"""The certificate of the streaming solver: rigorous figures contain NumPy's truth, and say something."""

import warnings
from functools import cache, partial
from threading import Lock
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from skimage.data import lfw_subset
from sklearn.exceptions import ConvergenceWarning

from imgstack_ml.base.validation import Images
from imgstack_ml.datasets import make_cells
from imgstack_ml.decomposition import streaming
from imgstack_ml.decomposition.records import FitRequest, FitSize
from imgstack_ml.decomposition.solvers import SOLVERS
from imgstack_ml.decomposition.streaming_plan import streaming_cost
from imgstack_ml.errors import ImagesChangedError
from imgstack_ml.linalg.certificate import Residuals, estimated_errors, nystrom_values, trusted, upper_bounds
from imgstack_ml.passes.runner import PassRunner
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
            patch.setattr(streaming, "FEW_PRODUCTS", 0)
        return SOLVERS["randomized"](runner, need, problem, FitRequest(k, tol, max_passes, seed))


# stacks of all kinds


def of_values(values):
    """A kind of stack: singular vectors at random, `values(m)` the m singular values."""

    def make(rng, n, p):
        m = min(n - 1, p)
        return stack_of_spectrum(n, (p,), values(m), seed=int(rng.integers(2**31))) if m else np.zeros((n, p))

    return make


def repeated(m):
    return np.where(np.arange(m) < 12, 10.0, 1.0)


def low_rank(rng, n, p):
    r = int(rng.integers(1, 6))
    return rng.standard_normal((n, r)) @ rng.standard_normal((r, p))


def duplicates(rng, n, p):
    return rng.standard_normal((7, p))[rng.integers(0, 7, n)]


def sorted_by_class(rng, n, p):
    return 3 * rng.standard_normal((5, p))[np.arange(n) * 5 // n] + rng.standard_normal((n, p))


def drifting(rng, n, p):
    time = np.linspace(0, 1, n)[:, None]
    return 20 * time * rng.standard_normal(p) + np.cos(9 * time) * rng.standard_normal(p) + rng.standard_normal((n, p))


def one_outlier(rng, n, p):
    X = rng.standard_normal((n, p))
    X[rng.integers(n)] *= 1000
    return X


def constant(rng, n, p):
    return np.full((n, p), 0.7)


def local(rng, n, p):
    """Directions that few images have each, over one that all have."""
    X = np.outer(rng.standard_normal(n), rng.standard_normal(p))
    return X + 4 * rng.standard_normal((1 + n // 4, p))[np.arange(n) // 4]


KINDS = {
    "decaying": of_values(lambda m: 0.8 ** np.arange(m)),
    "fast": of_values(lambda m: 0.3 ** np.arange(m)),
    "power law": of_values(lambda m: 1 / np.arange(1, m + 1)),
    "slow": of_values(lambda m: np.arange(1, m + 1) ** -0.5),
    "noise": lambda rng, n, p: rng.standard_normal((n, p)),
    "repeated": of_values(repeated),
    "graded": of_values(lambda m: 10.0 ** -np.linspace(0, 12, m)),
    "clusters": of_values(lambda m: 0.1 ** (np.arange(m) // 4)),
    "flat floor": of_values(lambda m: np.where(np.arange(m) < 5, 1, 1e-3)),
    "low floor": of_values(lambda m: np.where(np.arange(m) < 3, 1, 2e-7)),
    "low rank": low_rank,
    "duplicates": duplicates,
    "sorted by class": sorted_by_class,
    "drifting": drifting,
    "one outlier": one_outlier,
    "local": local,
    "constant": constant,
}


def as_pixels(X, dtype, offset):
    """Values of an image dtype, over most of its range; float ones at a distance from zero."""
    X = (X - X.min()) / (np.ptp(X) or 1.0)
    if np.dtype(dtype).kind == "f":
        return (offset + X).astype(dtype)
    return np.rint(X * np.iinfo(dtype).max).astype(dtype)


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


@settings(max_examples=100, deadline=None, derandomize=True)
@given(cases())
def test_rigorous_figures_contain_the_truth(case):
    X = case.images
    found = streamed(X, case.k, **case.options)
    certificate, ref, degrees = found.certificate, reference(X), case.n - 1
    truth = ref.explained_variance(case.k)
    lower, upper = certificate.explained_variance_bounds
    assert np.all(lower <= truth)
    assert np.all(truth <= upper)
    low, high = certificate.deficit_bounds
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
@given(bases(), st.booleans())
def test_bounds_contain_the_eigenvalues(basis, with_lost):
    residuals, total, r = basis.residuals, basis.values.sum(), len(basis.W)
    theta, truth, pad = residuals.values, basis.values[:r], 1e-9 * basis.values[0]
    vectors = residuals.coefficients.T @ basis.W
    norms = np.linalg.norm(vectors @ basis.C - theta[:, None] * vectors, axis=1)
    np.testing.assert_allclose(residuals.norms, norms, atol=1e-7 * basis.values[0])
    nystrom = nystrom_values(residuals, trusted(residuals, 1e-9 * basis.values[0], total))
    assert np.all(theta <= nystrom)
    assert np.all(nystrom <= truth + pad)
    upper = upper_bounds(residuals, nystrom, r, total, basis.lost if with_lost else None)
    assert np.all(truth <= upper + pad)
    known = min(basis.n_known, r)
    if with_lost and basis.n_known == r:  # the basis holds all that is asked for, and nothing else is as large
        np.testing.assert_allclose(upper[:known], np.maximum(truth[:known], basis.lost), atol=pad)


def test_estimates_are_sums_of_geometric_series():
    theta, nystrom = np.array([8.0, 4.0, 2.0, 0.0]), np.array([8.5, 4.5, 3.0, 0.0])
    np.testing.assert_allclose(estimated_errors(theta, nystrom, 2, 3), [0.5 / (1 - 1 / 4), 0.5 / (1 - 1 / 2)])
    np.testing.assert_allclose(estimated_errors(theta, nystrom, 2, 1), [0.5 / 0.1, 0.5 / 0.1])  # a ratio of 0.9 at most
    np.testing.assert_allclose(estimated_errors(theta[:2], nystrom[:2], 2, 2), [0.5, 0.5])  # nothing is left outside


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
