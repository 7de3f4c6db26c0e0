"""Summaries of images: right against NumPy, mergeable in any grouping, true to their bounds."""

from functools import partial, reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from imgstack_ml.linalg.incremental import merge_summaries, random_weights, summarise
from tests.lib.blocks import DOUBLE, SINGLE, centred, cut, steady
from tests.lib.stacks import photographs, stack_of_spectrum


def summary_of(X, size=8, start=0, dtype=DOUBLE, n_draws=3, blocks=None):
    return summarise([X] if blocks is None else blocks, start, size=size, n_draws=n_draws, seed=5, dtype=dtype)


def assert_between(summary, A):
    """B'B <= A'A <= B'B + lost I, to 64 eps of the largest eigenvalue."""
    B = summary.rows.astype(np.float64)
    gap = A.T @ A - B.T @ B
    values = np.linalg.eigvalsh(gap)
    pad = 64 * summary.eps * np.linalg.norm(A, 2) ** 2
    assert values[0] >= -pad
    assert values[-1] <= summary.lost + pad


# one summary


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
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
    assert_allclose(found.squares, (A**2).sum(axis=0), rtol=20 * eps)
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
    assert_allclose(found.squares, (A**2).sum(axis=0), rtol=1e-12)
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
    return merge_summaries(as_tree(parts[:half], size), as_tree(parts[half:], size), size=size)


GROUPINGS = {
    "from the left": folded,
    "at once": lambda parts, size: merge_summaries(*parts, size=size),
    "from the right": lambda parts, size: reduce(lambda a, b: merge_summaries(b, a, size=size), parts[::-1]),
    "as a tree": as_tree,
    "backwards": lambda parts, size: folded(parts[::-1], size),
}


@pytest.mark.parametrize("grouping", GROUPINGS.values(), ids=GROUPINGS.keys())
@steady(30)
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
@steady(30)
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


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
def test_inputs_are_read_only_and_stay_as_they_are(dtype):
    X = photographs(20, (5, 4), "uint8")
    X.flags.writeable = False
    a, b = summaries(X, [11], 4, dtype)
    for summary in (a, b):
        for value in summary:
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
    before = [np.copy(value) for value in (*a, *b)]
    merge_summaries(a, b, size=4)
    for value, old in zip((*a, *b), before, strict=True):
        assert_array_equal(value, old)


@pytest.mark.parametrize("work", [SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize("power", [-80, -20, 33, 97])
def test_summaries_are_the_same_in_any_units(work, power):
    X = np.random.default_rng(0).standard_normal((40, 6, 5)).astype(np.float32)
    X[:15] *= 2.0**-30  # and batches of units of their own merge
    usual, scaled = (
        reduce(partial(merge_summaries, size=4), [summary_of(part, dtype=work, size=4) for part in cut(x, 15, 30)])
        for x in (X, np.ldexp(X, power))
    )
    scaled = scaled._replace(exponent=scaled.exponent - power, mean=np.ldexp(scaled.mean, -power))
    for name, value in scaled.in_units(usual.exponent)._asdict().items():
        if name != "rest":
            assert_array_equal(value, getattr(usual, name), err_msg=name)


def test_a_merge_has_the_rounding_of_the_coarser_part():
    X = photographs(30, (6, 5), "float32")
    parts = [summary_of(X[:15], dtype=DOUBLE), summary_of(X[15:], dtype=SINGLE)]
    for a, b in (parts, parts[::-1]):
        assert merge_summaries(a, b, size=8).eps == np.finfo(SINGLE).eps
