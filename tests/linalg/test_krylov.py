"""Kernels of block Lanczos: products from one read, upkeep of a basis; and the basis that is made of them."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from imgstack_ml.base.validation import Images
from imgstack_ml.decomposition.krylov_basis import Centre, KrylovBasis
from imgstack_ml.linalg import krylov
from imgstack_ml.passes.runner import PassRunner
from tests.lib.blocks import DOUBLE, SINGLE, centred, cut
from tests.lib.stacks import photographs, stack_of_spectrum

# products with a basis


def basis_and_stack(seed=0, n=70, p=45, m=6, raw="uint8"):
    rng = np.random.default_rng(seed)
    X = photographs(n, (p,), raw, seed)
    V = np.linalg.qr(rng.standard_normal((p, m)))[0].T
    shift = np.rint(X.mean(axis=0, dtype=np.float64))
    return X, V, shift


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize("n", [1, 70, 1_100])
def test_one_decode_makes_both_products(n, dtype):
    X, V, shift = basis_and_stack(n=n)
    V = V.astype(dtype)
    drift = X.mean(axis=0, dtype=np.float64) - shift
    blocks = cut(X, *range(40, n, 40))
    step = partial(krylov.both_products, V=V, shift=shift, along=V @ drift, dtype=dtype)
    half = len(blocks) // 2
    found = step(blocks, 0)
    if half:
        merged = krylov.merge_both_products(step(blocks[:half], 0), step(blocks[half:], 40 * half))
        scale = np.abs(found.products).max()
        assert_allclose(merged.products, found.products, rtol=0, atol=64 * np.finfo(dtype).eps * scale)
        assert_array_equal(np.concatenate(merged.scores), np.concatenate(found.scores))
    A = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    Y = A @ V.T.astype(np.float64)
    eps, largest = np.finfo(dtype).eps, np.abs(Y).max() + 1
    assert_allclose(np.concatenate(found.scores), Y, rtol=0, atol=64 * eps * largest)
    products = Y.T @ (X.astype(np.float64) - shift)
    assert_allclose(found.products, products, rtol=0, atol=64 * eps * n * largest**2)


@pytest.mark.parametrize("edges", [(), (20,), (1, 2, 44)])
def test_pixel_ranges_add_up(edges):
    X, V, shift = basis_and_stack()
    blocks, ranges = cut(X, 30, 31), list(zip((0, *edges), (*edges, 45), strict=True))
    plain = X.astype(np.float64) - shift
    scores = sum(krylov.project(blocks, lo, hi, V, shift, DOUBLE) for lo, hi in ranges)
    assert_allclose(scores, plain @ V.T, rtol=0, atol=1e-11)
    out = np.ones((6, 45))
    for lo, hi in ranges:
        krylov.add_products(blocks, lo, hi, scores, shift, DOUBLE, out)
    assert_allclose(out, 1 + scores.T @ plain, rtol=1e-12, atol=1e-8)


# care of a basis


@pytest.mark.parametrize("stored", [SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize("p", [50, 5_000])
def test_a_sweep_orthogonalises_in_place_and_returns_inner_products(p, stored):
    rng = np.random.default_rng(0)
    n_old, n_new, room = 4, 3, 9
    buffer = rng.standard_normal((room, p)).astype(stored)
    buffer[:n_old] = np.linalg.qr(buffer[:n_old].T)[0].T
    before = buffer.astype(np.float64)
    W, F, mean = before[:n_old], before[n_old : n_old + n_new], rng.standard_normal(p)
    sums, turn = rng.standard_normal(n_new), rng.standard_normal((2, n_new))
    along = (F - np.outer(sums, mean)) @ W.T
    expected = turn @ (F - np.outer(sums, mean) - along @ W)
    step = partial(
        krylov.orthogonalise_rows,
        n_old=n_old,
        n_new=n_new,
        along=along,
        turn=turn,
        offset=(sums, mean),
        dtype=DOUBLE,
    )
    inner = step([buffer], 0, p // 3) + step([buffer], p // 3, p)
    now, eps = buffer.astype(np.float64), np.finfo(stored).eps
    assert_allclose(now[n_old : n_old + 2], expected, rtol=0, atol=10 * eps * np.abs(expected).max())
    assert_array_equal(now[:n_old], W)
    assert_array_equal(now[n_old + n_new :], before[n_old + n_new :])
    exact = now[: n_old + 2] @ now[n_old : n_old + 2].T
    assert_allclose(inner, exact, rtol=0, atol=1e-14 * np.abs(exact).max())
    assert np.abs(inner[:n_old]).max() <= 10 * eps * np.sqrt(np.abs(exact).max())


def test_combining_writes_over_its_own_rows():
    rng = np.random.default_rng(0)
    buffer, weights = rng.standard_normal((7, 3_000)), rng.standard_normal((3, 5))
    expected, rest = weights @ buffer[:5], buffer[3:].copy()
    krylov.combine_rows([buffer], 0, 1_000, weights, DOUBLE, buffer)
    krylov.combine_rows([buffer], 1_000, 3_000, weights, DOUBLE, buffer)
    assert_allclose(buffer[:3], expected, rtol=0, atol=1e-13)
    assert_array_equal(buffer[3:], rest)


def test_independent_rows_are_made_orthonormal():
    F = np.random.default_rng(0).standard_normal((6, 40)) * np.geomspace(1, 1e-6, 6)[:, None]
    turn = krylov.orthonormalising_weights(F @ F.T, np.ones(6), 1e-16)
    assert_allclose(turn @ F @ F.T @ turn.T, np.eye(6), rtol=0, atol=1e-9)


def test_dependent_rows_and_rounding_go():
    rng = np.random.default_rng(0)
    F = rng.standard_normal((6, 40))
    F[2] = F[0] - 3 * F[1]
    F[4] *= 1e-8
    turn = krylov.orthonormalising_weights(F @ F.T, np.ones(6), 1e-7)
    basis = turn @ F
    assert basis.shape == (4, 40)
    assert_allclose(basis @ basis.T, np.eye(4), rtol=0, atol=1e-9)
    for row in F[[0, 1, 2, 3, 5]]:
        assert np.linalg.norm(row - (row @ basis.T) @ basis) <= 1e-4 * np.linalg.norm(row)


def test_rows_that_differ_by_rounding_are_one_row():
    """Both are well above their rounding, and what is between them is not."""
    rng = np.random.default_rng(0)
    F = np.array([rng.standard_normal(40)] * 2) * 1e-3
    F[1] += 1e-6 * rng.standard_normal(40)
    assert len(krylov.orthonormalising_weights(F @ F.T, np.full(2, 6.0), 1e-7)) == 1
    assert len(krylov.orthonormalising_weights(F @ F.T, np.full(2, 6.0), 1e-9)) == 2


@pytest.mark.parametrize("seed", range(20))
def test_inner_products_need_not_be_symmetric_to_the_last_digit(seed):
    """Sums of float32 are not, and the Cholesky decomposition of what pivots had put in order failed."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((20, 61))
    rows = np.vstack([rows, rng.standard_normal((12, 20)) @ rows])
    inner = rows @ rows.T * (1 + 1e-7 * rng.standard_normal((32, 32)))
    turn = krylov.orthonormalising_weights(inner, np.zeros(32), 1e-7)
    assert len(turn) >= 20
    np.testing.assert_allclose(turn @ (inner + inner.T) @ turn.T / 2, np.eye(len(turn)), atol=1e-5)


def test_nothing_is_independent_of_nothing():
    assert krylov.orthonormalising_weights(np.zeros((3, 3)), np.ones(3), 1e-7).shape == (0, 3)


def test_orthogonal_rows_keep_their_order():
    F = np.diag([3.0, 2.0, 1.0, 0.5])
    assert_allclose(krylov.orthonormalising_weights(F @ F.T, np.ones(4), 1e-16) @ F, np.eye(4), rtol=0, atol=1e-12)


def test_ritz_values_need_no_orthonormal_basis():
    rng = np.random.default_rng(0)
    W, A = rng.standard_normal((5, 30)), rng.standard_normal((40, 30))
    C = A.T @ A
    found = krylov.ritz_pairs(W @ W.T, W @ C @ W.T)
    Q = np.linalg.qr(W.T)[0]
    assert_allclose(found.values, np.linalg.eigvalsh(Q.T @ C @ Q)[::-1], rtol=1e-10)
    vectors = found.coefficients.T @ W
    assert_allclose(vectors @ vectors.T, np.eye(5), rtol=0, atol=1e-10)
    assert_allclose(vectors @ C @ vectors.T, np.diag(found.values), rtol=0, atol=1e-10 * found.values[0])


# a basis that grows


def krylov_basis(X, m, room, keep, stored=DOUBLE):
    images = Images(X, None)
    runner = PassRunner(images)
    if keep:
        runner.keep()
    rows = (np.random.default_rng(1).standard_normal((m, len(X))) @ centred(X)).astype(stored)
    centre = Centre.of(centred_mean(X), X.dtype.kind == "u", DOUBLE)
    return KrylovBasis(runner, rows, np.linalg.norm(rows, axis=1), room, centre)


def centred_mean(X):
    return X.reshape(len(X), -1).mean(axis=0, dtype=np.float64)


def assert_explicit(basis, X, atol):
    """Ritz values, vectors, scores and residuals are those of C = A'A in NumPy; `atol` in units of the largest."""
    A = centred(X)
    C, k = A.T @ A, len(basis.values)
    largest = basis.values[0]
    V = basis.vectors(k).astype(np.float64)
    assert_allclose(V @ V.T, np.eye(k), rtol=0, atol=max(atol, 1e-12))
    assert_allclose(np.linalg.eigvalsh(V @ C @ V.T)[::-1], basis.values, rtol=0, atol=atol * largest)
    assert_allclose(basis.scores(k), A @ V.T, rtol=0, atol=atol * np.sqrt(largest))
    residuals = V @ C - basis.values[:, None] * V
    scale = largest**2
    factor = basis.residuals().factor
    assert_allclose(factor.T @ factor, residuals @ residuals.T, rtol=0, atol=atol * scale)
    assert_allclose(basis.residuals().norms, np.linalg.norm(residuals, axis=1), rtol=0, atol=atol * largest)


STACKS = {
    "flat": lambda: np.random.default_rng(0).integers(0, 256, (90, 70), dtype=np.uint8),
    "decaying": lambda: stack_of_spectrum(90, (70,), 0.9 ** np.arange(60), offset=3.0),
    "photographs": lambda: photographs(90, (7, 10), "uint16"),
}


@pytest.mark.parametrize(
    ("stack", "room", "keep"),
    [
        ("flat", 100, False),
        ("flat", 24, True),
        ("decaying", 100, True),
        ("decaying", 24, False),
        ("photographs", 100, False),
        ("photographs", 24, True),
    ],
)
def test_a_basis_knows_its_ritz_values_and_residuals(stack, room, keep):
    """Room for 24 rows makes it start again from the best of them with the fourth block of 6."""
    X, previous = STACKS[stack](), 0.0
    basis = krylov_basis(X, 6, room, keep)
    for _ in range(8):
        basis.multiply()
        assert_explicit(basis, X, 1e-8)
        assert basis.values[:3].sum() >= previous * (1 - 1e-12)
        previous = basis.values[:3].sum()
        if not basis.grow():
            break
    assert (basis.dropped > 0) == (room == 24)


@pytest.mark.parametrize("room", [100, 24])
def test_a_basis_stored_in_float32(room):
    X = STACKS["flat"]()
    basis = krylov_basis(X, 6, room, True, stored=SINGLE)
    for _ in range(6):
        basis.multiply()
        assert_explicit(basis, X, 1e-6)
        basis.grow()


def test_a_basis_that_is_full_stays_as_it_is():
    X = photographs(12, (5, 5), "float64")
    basis = krylov_basis(X, 11, 22, True)
    basis.multiply()
    assert not basis.grow()
    assert basis.size == 11
    assert_explicit(basis, X, 1e-10)
