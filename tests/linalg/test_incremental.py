"""Kernels of the streaming solver: summaries that merge, products from one decode, the care of a Krylov basis."""

from functools import partial, reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from imgstack_ml.base.validation import Images
from imgstack_ml.decomposition.krylov_basis import Centre, KrylovBasis
from imgstack_ml.linalg import krylov
from imgstack_ml.linalg.incremental import merge_summaries, random_weights, summarise
from imgstack_ml.passes.runner import PassRunner
from tests.lib.stacks import photographs, stack_of_spectrum

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
steady = settings(max_examples=60, deadline=None, derandomize=True)


def centred(X):
    X = X.reshape(len(X), -1).astype(np.float64)
    X = X - X.mean(axis=0)
    return X - X.mean(axis=0)


def cut(X, *edges):
    return [X[a:b] for a, b in zip((0, *edges), (*edges, len(X)), strict=True)]


def summary_of(X, size=8, start=0, dtype=DOUBLE, n_draws=3, blocks=None):
    return summarise([X] if blocks is None else blocks, start, size, n_draws, 5, dtype)


def assert_between(summary, A):
    """B'B <= A'A <= B'B + lost I, to 64 eps of the largest eigenvalue."""
    B = summary.rows.astype(np.float64)
    gap = A.T @ A - B.T @ B
    values = np.linalg.eigvalsh(gap)
    pad = 64 * summary.eps * np.linalg.norm(A, 2) ** 2
    assert values[0] >= -pad
    assert values[-1] <= summary.lost + pad


# one summary


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize("raw", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_a_summary_is_the_truncated_svd(raw, size, dtype):
    X = photographs(30, (9, 7), raw)
    found, A = summary_of(X, size, dtype=dtype, blocks=cut(X, 7, 8, 25)), centred(X)
    s, Vt = np.linalg.svd(A, full_matrices=False)[1:]
    kept, eps = min(size, 30), np.finfo(dtype).eps
    assert found.n == 30
    assert found.rows.dtype == found.draws.dtype == dtype
    mean = X.reshape(30, -1).mean(axis=0, dtype=np.float64)
    assert_allclose(found.mean, mean, rtol=1e-13, atol=eps * np.ptp(X) if raw[0] == "f" else 0)
    assert_allclose(found.total, s @ s, rtol=10 * eps)
    assert_allclose(found.singular_values**2, s[:kept] ** 2, rtol=0, atol=20 * eps * s[0] ** 2)
    assert_allclose(found.rows.T @ found.rows, (Vt[:kept].T * s[:kept] ** 2) @ Vt[:kept], atol=20 * eps * s[0] ** 2)
    assert_allclose(found.lost, np.append(s, 0)[size] ** 2 if size < 30 else 0, rtol=0, atol=20 * eps * s[0] ** 2)
    assert_allclose(found.draws, random_weights(5, 3, 0, 30) @ A, rtol=0, atol=50 * eps * s[0])
    assert_allclose(found.weights, random_weights(5, 3, 0, 30).sum(axis=1))


def test_many_images_are_taken_group_by_group():
    """More than 128 at a time are merged within one call."""
    X = stack_of_spectrum(700, (40,), np.arange(40, 0, -1.0), offset=7.0)
    found, A = summary_of(X, 10), centred(X)
    assert_allclose(found.total, (A**2).sum(), rtol=1e-12)
    assert found.lost > 0
    assert_between(found, A)
    assert_allclose(found.draws, random_weights(5, 3, 0, 700) @ A, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("offset", "spread", "raw", "dtype"),
    [
        (30_000, 10, "uint16", SINGLE),
        (30_000, 10, "uint16", DOUBLE),
        (-4e3, 1, "float32", SINGLE),
        (-4e3, 1, "float32", DOUBLE),
        (1e6, 10, "float64", DOUBLE),
    ],
)
def test_large_offsets_cost_no_digits(offset, spread, raw, dtype):
    rng = np.random.default_rng(0)
    X = offset + spread * rng.standard_normal((400, 50)) @ np.diag(0.9 ** np.arange(50))
    X = np.rint(X).astype(raw) if raw == "uint16" else X.astype(raw)
    parts = [summary_of(X[i : i + 100], 60, i, dtype) for i in range(0, 400, 100)]
    found, A = reduce(partial(merge_summaries, size=60), parts), centred(X)
    s = np.linalg.svd(A, compute_uv=False)
    exact = X.astype(np.longdouble).mean(axis=0)
    assert np.abs(found.mean - exact).max() <= 1e-15 * abs(offset) + 1e-2 * np.finfo(dtype).eps * abs(offset)
    assert_allclose(found.total, s @ s, rtol=1e-6 if dtype == SINGLE else 1e-12)
    padded = np.pad(s, (0, len(found.rows) - len(s)))  # more rows are kept than there are dimensions
    assert_allclose(found.singular_values, padded, rtol=0, atol=s[0] * (1e-5 if dtype == SINGLE else 1e-12))


@pytest.mark.parametrize("offset", [1e4, 1e8])
def test_steps_between_means_far_from_zero_keep_their_digits(offset):
    """What all images have in common is exact here, so that an oracle knows what is left of them to the last digit."""
    X = np.rint(np.random.default_rng(0).standard_normal((150, 30)) * 2**20) / 2**20
    near, far = (
        reduce(partial(merge_summaries, size=5), [summary_of(Y[i : i + 3], 5, i, DOUBLE) for i in range(0, 150, 3)])
        for Y in (X, X + offset)
    )
    assert_allclose(near.total, (centred(X.astype(np.longdouble)) ** 2).sum().astype(float), rtol=1e-14)
    assert_allclose(far.total, near.total, rtol=1e-14)
    assert_allclose(far.singular_values, near.singular_values, rtol=1e-13)


@pytest.mark.parametrize("shape", [(1, 6), (2, 1), (1, 1), (5, 1)])
def test_tiny_stacks(shape):
    X = np.random.default_rng(0).integers(0, 9, shape).astype(np.uint8)
    found, A = summary_of(X, 3), centred(X)
    assert_allclose(found.rows.T @ found.rows, A.T @ A, atol=1e-12)
    assert_allclose(found.total, (A**2).sum(), atol=1e-12)
    assert found.lost <= 1e-12


# merging


@st.composite
def pieces_of_stacks(draw):
    """A stack and where to cut it."""
    n, p = draw(st.integers(2, 40)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    scales = draw(st.sampled_from([np.ones(p), 0.7 ** np.arange(p), 1 / np.arange(1, p + 1)]))
    X = 50 * rng.standard_normal((n, p)) * scales + draw(st.sampled_from([0.0, 1e3]))
    X += draw(st.sampled_from([0.0, 30.0])) * np.arange(n)[:, None]
    dtype = draw(st.sampled_from(["float32", "float64"]))
    edges = draw(st.lists(st.integers(1, n - 1), unique=True, max_size=min(5, n - 1)).map(sorted))
    # float32 would round the values of float64 images themselves: the solver takes float64 for them
    products = draw(st.sampled_from([SINGLE, DOUBLE])) if dtype == "float32" else DOUBLE
    return X.astype(dtype), edges, draw(st.integers(1, 12)), products


def summaries(X, edges, size, dtype):
    starts = (0, *edges)
    return [summary_of(piece, size, start, dtype) for start, piece in zip(starts, cut(X, *edges), strict=True)]


def folded(parts, size):
    return reduce(partial(merge_summaries, size=size), parts)


def as_tree(parts, size):
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return merge_summaries(as_tree(parts[:half], size), as_tree(parts[half:], size), size)


GROUPINGS = {
    "from the left": folded,
    "from the right": lambda parts, size: reduce(lambda a, b: merge_summaries(b, a, size), parts[::-1]),
    "as a tree": as_tree,
    "backwards": lambda parts, size: folded(parts[::-1], size),
}


@pytest.mark.parametrize("grouping", GROUPINGS.values(), ids=GROUPINGS.keys())
@steady
@given(pieces_of_stacks())
def test_any_cut_and_grouping_keeps_the_bounds(grouping, drawn):
    X, edges, size, dtype = drawn
    found, A = grouping(summaries(X, edges, size, dtype), size), centred(X)
    eps, largest = np.finfo(dtype).eps, np.linalg.norm(A, 2)
    assert found.n == len(X)
    assert_between(found, A)
    assert_allclose(found.total, (A**2).sum(), rtol=64 * eps)
    assert_allclose(found.mean, X.mean(axis=0, dtype=np.float64), rtol=1e-12, atol=64 * eps * np.abs(A).max())
    assert_allclose(found.draws, random_weights(5, 3, 0, len(X)) @ A, rtol=0, atol=64 * eps * np.sqrt(len(X)) * largest)


@pytest.mark.parametrize("grouping", GROUPINGS.values(), ids=GROUPINGS.keys())
@steady
@given(pieces_of_stacks())
def test_merging_is_exact_where_nothing_is_cut_off(grouping, drawn):
    X, edges, _, dtype = drawn
    size = min(X.shape) + 2
    found, A = grouping(summaries(X, edges, size, dtype), size), centred(X)
    largest, eps = np.linalg.norm(A, 2), np.finfo(dtype).eps
    assert_allclose(found.rows.T @ found.rows, A.T @ A, rtol=0, atol=64 * eps * largest**2)
    assert found.lost <= 64 * eps * largest**2


def test_leaving_out_any_cut_would_break_the_bound():
    """A direction cut off in both halves, and again when they merge: all three cuts add up."""
    X = np.vstack([np.diag([9.0, 8, 7, 1]), -np.diag([9.0, 8, 7, 1])])
    X = np.vstack([X, X[:, [3, 0, 1, 2]]])
    parts = summaries(X, [8], 1, DOUBLE)
    found = folded(parts, 1)
    assert found.lost > parts[0].lost + parts[1].lost
    assert_between(found, centred(X))


# the random sums


@pytest.mark.parametrize(("start", "n"), [(0, 5), (1020, 10), (1023, 1), (1024, 1), (500, 2_000), (5_000, 3)])
def test_test_rows_depend_on_the_position_alone(start, n):
    whole = random_weights(3, 4, 0, 6_000)
    assert_array_equal(random_weights(3, 4, start, n), whole[:, start : start + n])
    assert not np.array_equal(random_weights(4, 4, start, n), whole[:, start : start + n])
    assert abs(whole.mean()) < 0.03
    assert abs(whole.std() - 1) < 0.03


@pytest.mark.parametrize("chunk", [1, 7, 64, 300])
def test_random_sums_are_the_same_in_every_chunking(chunk):
    X = photographs(300, (6, 6), "float64") + np.linspace(0, 5_000, 300)[:, None, None]
    found = folded(summaries(X, list(range(chunk, 300, chunk)), 5, DOUBLE), 5)
    A = centred(X)
    expected = random_weights(5, 3, 0, 300) @ A
    assert_allclose(found.draws, expected, rtol=0, atol=1e-11 * np.linalg.norm(A))


# inputs


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_inputs_are_read_only_and_stay_as_they_are(dtype):
    X = photographs(20, (5, 4), "uint8")
    X.flags.writeable = False
    a, b = summaries(X, [11], 4, dtype)
    for summary in (a, b):
        for value in summary:
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
    before = [np.copy(value) for value in (*a, *b)]
    merge_summaries(a, b, 4)
    for value, old in zip((*a, *b), before, strict=True):
        assert_array_equal(value, old)


def test_squares_that_float32_cannot_hold_are_seen_in_the_total():
    X = 1e25 * np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32)
    assert not np.isfinite(summary_of(X, dtype=SINGLE).total)
    assert np.isfinite(summary_of(X, dtype=DOUBLE).total)


# products with a basis


def basis_and_stack(seed=0, n=70, p=45, m=6, raw="uint8"):
    rng = np.random.default_rng(seed)
    X = photographs(n, (p,), raw, seed)
    V = np.linalg.qr(rng.standard_normal((p, m)))[0].T
    shift = np.rint(X.mean(axis=0, dtype=np.float64))
    return X, V, shift


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
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


@pytest.mark.parametrize("stored", [SINGLE, DOUBLE])
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
    assert_allclose(basis.residuals().products, residuals @ residuals.T, rtol=0, atol=atol * scale)
    assert_allclose(basis.residuals().norms, np.linalg.norm(residuals, axis=1), rtol=0, atol=atol * largest)


STACKS = {
    "flat": lambda: np.random.default_rng(0).integers(0, 256, (90, 70), dtype=np.uint8),
    "decaying": lambda: stack_of_spectrum(90, (70,), 0.9 ** np.arange(60), offset=3.0),
    "photographs": lambda: photographs(90, (7, 10), "uint16"),
}


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS.keys())
@pytest.mark.parametrize("room", [100, 24])
def test_a_basis_knows_its_ritz_values_and_residuals(stack, room, keep):
    """Room for 24 rows makes it start again from the best of them with the fourth block of 6."""
    X, previous = stack(), 0.0
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
