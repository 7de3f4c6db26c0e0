"""The kernels, on NumPy blocks: right against plain NumPy, mergeable in any grouping, careful with digits."""

import tracemalloc
from functools import partial, reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from imgstack_ml.linalg import gram as lin
from imgstack_ml.linalg.moments import merge_moments, moments
from imgstack_ml.linalg.signs import component_signs
from imgstack_ml.linalg.tiles import TILE_BYTES, n_rows, row_tiles, tiles
from imgstack_ml.linalg.tsqr import centred_columns, rows_after_ones, svd_of_r

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
DTYPES = ["uint8", "uint16", "int16", "bool", "float32", "float64", ">u2", ">f4"]
steady = settings(max_examples=40, deadline=None, derandomize=True)


def images(n, shape=(5, 4, 3), dtype="uint8", seed=0):
    values = np.random.default_rng(seed).integers(0, 200, (n, *shape))
    return (values > 100) if dtype == "bool" else values.astype(dtype)


def cut(X, *edges):
    """Blocks of X between the edges."""
    return [X[a:b] for a, b in zip((0, *edges), (*edges, len(X)), strict=True)]


def flat(X):
    return X.reshape(len(X), -1).astype(np.float64)


def centred(X):
    return flat(X) - flat(X).mean(axis=0)


@st.composite
def cut_stacks(draw, n_blocks=3):
    """Some blocks of one stack: any dtype, any sizes, a large offset now and then."""
    p = draw(st.integers(1, 5))
    sizes = draw(st.lists(st.integers(1, 5), min_size=n_blocks, max_size=n_blocks))
    dtype = np.dtype(draw(st.sampled_from(["uint8", "uint16", "float32", "float64"])))
    if dtype.kind == "u":
        values = hnp.arrays(dtype, (sum(sizes), p))
    else:
        offset = draw(st.sampled_from([0.0, 1e6, -30_000.0]))
        elements = st.integers(-1000, 1000).map(lambda i: offset + i / 4)
        values = hnp.arrays(dtype, (sum(sizes), p), elements=elements)
    return cut(draw(values), *np.cumsum(sizes)[:-1])


# tiles


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("work", [SINGLE, DOUBLE])
def test_tiles_hold_every_value_less_the_shift_exactly(dtype, work):
    X = images(7, dtype=dtype)
    shift = lin.first_image([X])
    seen = np.concatenate([tile.copy() for _, _, tile in tiles(cut(X, 2, 3), shift, work, width=13)], axis=1)
    assert seen.dtype == work
    assert_array_equal(seen, flat(X) - shift)


@pytest.mark.parametrize(("lo", "hi", "width"), [(0, 60, 60), (0, 60, 7), (3, 59, 10), (10, 11, 4), (0, 60, 1000)])
def test_tiles_cover_their_range_once_and_in_order(lo, hi, width):
    X = images(4)
    edges = [(a, b) for a, b, _ in tiles([X], np.zeros(60), DOUBLE, lo, hi, width)]
    assert [a for a, _ in edges] == [lo, *(b for _, b in edges[:-1])]
    assert edges[-1][1] == hi
    assert all(b - a <= width for a, b in edges)


def test_tiles_are_scratch_and_the_images_are_not_touched():
    X = images(6)
    X.setflags(write=False)
    for _, _, tile in tiles([X], np.zeros(60), SINGLE, width=7):
        tile[...] = -1
    assert_array_equal(X, images(6))


def test_tiles_take_strided_blocks():
    X = images(6, (5, 4, 3)).transpose(0, 3, 1, 2)[:, :, ::-1]
    seen = np.concatenate([tile.copy() for _, _, tile in tiles([X], np.zeros(60), SINGLE, width=9)], axis=1)
    assert_array_equal(seen, flat(X))


@pytest.mark.parametrize("step", [moments, partial(lin.scatter, start=0, dtype=SINGLE)])
def test_many_small_images_need_no_large_buffer(step):
    X = np.zeros((200_000, 24), np.uint8)
    tracemalloc.start()
    try:
        step([X])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * TILE_BYTES


def test_row_tiles_give_every_image_once():
    X = images(1200, (3,))
    seen = np.concatenate([tile.copy() for tile in row_tiles(cut(X, 5, 700), np.full(3, 2.0), SINGLE)])
    assert_array_equal(seen, flat(X) - 2)


# moments


@steady
@given(cut_stacks())
def test_moments_equal_numpys_in_any_grouping(blocks):
    X = np.concatenate(blocks)
    a, b, c = (moments([block], with_squares=True) for block in blocks)
    for found in (
        moments(blocks, with_squares=True),
        merge_moments(merge_moments(a, b), c),
        merge_moments(a, merge_moments(b, c)),
    ):
        assert found.n == len(X)
        assert_allclose(found.mean, flat(X).mean(axis=0), rtol=1e-14, atol=1e-12)
        assert_allclose(found.squares, (centred(X) ** 2).sum(axis=0), rtol=1e-9, atol=1e-9)


def test_moments_of_a_constant_pixel_are_exact():
    X = np.full((9, 4), 0.1)
    found = reduce(merge_moments, [moments([block], with_squares=True) for block in cut(X, 2, 3)])
    assert_array_equal(found.mean, X[0])
    assert_array_equal(found.squares, 0)


def test_moments_keep_digits_of_small_changes_on_a_large_offset():
    X = 1e8 + np.random.default_rng(0).standard_normal((500, 20))
    found = reduce(merge_moments, [moments([block], with_squares=True) for block in cut(X, 7, 10, 400)])
    assert_allclose(found.squares, 500 * (X - 1e8).var(axis=0), rtol=1e-9)


def test_moments_without_squares_have_none():
    X = images(5)
    assert merge_moments(moments([X[:2]]), moments([X[2:]])).squares is None


# Gram and scatter matrices


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("work", [SINGLE, DOUBLE])
def test_centred_gram(dtype, work):
    X = images(9, dtype=dtype)
    parts = [lin.centred_gram(cut(X, 4), lo, hi, work) for lo, hi in [(0, 11), (11, 12), (12, 60)]]
    gram, mean = reduce(lin.merge_gram, parts)
    eps = np.finfo(work).eps
    assert_allclose(gram, centred(X) @ centred(X).T, rtol=0, atol=50 * eps * np.trace(gram))
    assert_allclose(np.concatenate(mean), flat(X).mean(axis=0), rtol=1e-6)


@steady
@given(cut_stacks())
def test_merged_scatters_equal_the_whole_in_any_grouping(blocks):
    X = np.concatenate(blocks)
    a, b, c = (lin.scatter([block], 0, DOUBLE) for block in blocks)
    for found in (
        lin.scatter(blocks, 0, DOUBLE),
        lin.merge_scatter(lin.merge_scatter(a, b), c),
        lin.merge_scatter(a, lin.merge_scatter(b, c)),
    ):
        assert found.n == len(X)
        assert_allclose(found.mean, flat(X).mean(axis=0), rtol=1e-14, atol=1e-12)
        expected = centred(X).T @ centred(X)
        assert_allclose(found.matrix, expected, rtol=0, atol=1e-12 * np.trace(expected) + 1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scatter_in_float32_needs_no_small_mean(dtype):
    X = images(300, (6,), dtype=dtype)
    if np.dtype(dtype).itemsize > 1:
        X = (X + 30_000).astype(dtype)
    found = reduce(lin.merge_scatter, [lin.scatter([block], 0, SINGLE) for block in cut(X, 1, 80)])
    expected = centred(X).T @ centred(X)
    assert_allclose(found.matrix, expected, rtol=0, atol=2e-6 * np.trace(expected))


@pytest.mark.parametrize("work", [SINGLE, DOUBLE])
def test_strips_make_the_gram_matrix(work):
    X = images(9)
    shift = lin.first_image([X])
    strips = reduce(lin.merge_strips, [lin.cross_gram([b], 0, cut(X[:4], 1), shift, work) for b in cut(X, 3, 5)])
    found = np.hstack(strips)
    expected = (flat(X[:4]) - shift) @ (flat(X) - shift).T
    assert_allclose(found, expected, rtol=0, atol=50 * np.finfo(work).eps * np.abs(expected).max())


def test_double_centred_is_the_gram_matrix_of_centred_images():
    X = images(8)
    gram = lin.double_centred((flat(X) - 7) @ (flat(X) - 7).T)
    assert_allclose(gram, centred(X) @ centred(X).T, rtol=0, atol=1e-13 * np.trace(gram) * 50)


@steady
@given(cut_stacks(), st.integers(1, 4))
def test_weighted_sums_merge_in_any_grouping(blocks, k):
    X = np.concatenate(blocks)
    starts = np.cumsum([0, *(len(block) for block in blocks)])
    weights = np.random.default_rng(k).standard_normal((k, len(X)))
    shift = lin.first_image(blocks)
    step = partial(lin.weighted_sums, weights=weights, shift=shift, dtype=DOUBLE)
    a, b, c = (step([block], int(start)) for block, start in zip(blocks, starts, strict=False))
    for sums, total in (
        step(blocks, 0),
        lin.merge_sums(lin.merge_sums(a, b), c),
        lin.merge_sums(a, lin.merge_sums(b, c)),
    ):
        assert_allclose(sums, weights @ (flat(X) - shift), rtol=1e-9, atol=1e-6)
        assert_allclose(total, (flat(X) - shift).sum(axis=0), rtol=1e-9, atol=1e-6)


def test_merges_leave_their_arguments_alone():
    X = images(8, (6,))
    a, b = lin.scatter([X[:3]], 0, DOUBLE), lin.scatter([X[3:]], 0, DOUBLE)
    before = a.matrix.copy(), b.matrix.copy(), a.mean.copy()
    lin.merge_scatter(a, b)
    assert_array_equal(a.matrix, before[0])
    assert_array_equal(b.matrix, before[1])
    assert_array_equal(a.mean, before[2])


# eigenvectors and orthonormal rows


@pytest.mark.parametrize("k", [1, 3, 6])
def test_eigh_descending(k):
    rng = np.random.default_rng(0)
    half = rng.standard_normal((6, 4))
    matrix = half @ half.T
    values, vectors = lin.eigh_descending(matrix.copy(), k)
    assert values.shape == (k,)
    assert np.all(values >= 0)
    assert np.all(np.diff(values) <= 0)
    assert_allclose(matrix @ vectors, vectors * values, atol=1e-12)
    assert_allclose(values, np.linalg.eigvalsh(matrix)[::-1][:k], atol=1e-12)


@pytest.mark.parametrize("work", [SINGLE, DOUBLE])
def test_orthonormalise_rows(work):
    rng = np.random.default_rng(0)
    exact = np.linalg.qr(rng.standard_normal((5000, 8)))[0].T
    rows = (exact + 1e-3 * rng.standard_normal((8, 5000)) / np.sqrt(5000)).astype(work)
    before = rows.copy()
    lin.orthonormalise_rows(rows)
    assert_allclose(rows @ rows.T, np.eye(8), atol=20 * np.finfo(work).eps)
    assert_allclose(rows[0], before[0] / np.linalg.norm(before[0]), rtol=1e-5)  # earlier rows come first


def test_orthonormalise_takes_no_rows():
    rows = np.empty((0, 7))
    lin.orthonormalise_rows(rows)
    assert rows.shape == (0, 7)


@pytest.mark.parametrize("work", [SINGLE, DOUBLE])
@pytest.mark.parametrize(
    ("have", "want", "p"),
    [(0, 3, 5), (2, 5, 5), (3, 3, 9), (4, 9, 2000), (0, 150, 150), (149, 150, 150), (75, 150, 151)],
)
def test_completed_rows_are_orthonormal_and_repeat(have, want, p, work):
    rows = np.linalg.qr(np.random.default_rng(1).standard_normal((p, max(have, 1))))[0].T[:have].astype(work)
    full = lin.completed_rows(rows, want)
    assert full.shape == (want, p)
    assert full.dtype == work
    assert_array_equal(full[:have], rows)
    assert_allclose(full @ full.T, np.eye(want), atol=20 * np.finfo(work).eps)
    assert_array_equal(full, lin.completed_rows(rows, want))


# signs


def test_signs_make_the_largest_entry_positive():
    rows = np.array([[1.0, -2.0, 0.5], [3.0, 1.0, -2.0], [0.0, 0.0, -1e-300]])
    assert_array_equal(component_signs(rows), [-1, 1, -1])


@steady
@given(hnp.arrays(np.float64, (3, 6), elements=st.integers(-4, 4).map(float)), st.integers(0, 7))
def test_signs_depend_on_neither_sign_nor_rounding(rows, flips):
    signed = rows * component_signs(rows)[:, None]
    flip = np.array([-1.0 if flips >> j & 1 else 1.0 for j in range(3)])
    noisy = rows * flip[:, None] * (1 + 1e-7 * np.sin(np.arange(18)).reshape(3, 6))
    assert_allclose(noisy * component_signs(noisy)[:, None], signed, rtol=1e-6)


def test_signs_of_zeros_and_of_no_rows_are_harmless():
    assert_array_equal(component_signs(np.zeros((2, 3), np.float32)), [1, 1])
    assert component_signs(np.empty((0, 3))).shape == (0,)


# tall-skinny QR


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_r_of_rows_after_ones_belongs_to_the_centred_images(dtype):
    X = images(50, (2, 3), dtype=dtype)
    blocks = cut(X, 20, 21)
    rows = rows_after_ones(blocks, 0, lin.first_image(blocks))
    R = np.linalg.qr(rows, mode="r")
    assert_allclose(R[1:, 1:].T @ R[1:, 1:], centred(X).T @ centred(X), rtol=0, atol=1e-12 * (flat(X) ** 2).sum())
    assert_allclose(lin.first_image(blocks) + R[0, 1:] / R[0, 0], flat(X).mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_centred_columns(dtype):
    X = images(7, dtype=dtype)
    parts = [centred_columns(cut(X, 2), lo, hi) for lo, hi in [(0, 1), (1, 40), (40, 60)]]
    assert_allclose(np.concatenate(parts), centred(X).T, rtol=0, atol=1e-12)


def test_svd_of_r():
    R = np.triu(np.random.default_rng(0).standard_normal((5, 5)))
    s, Vt = svd_of_r(R)
    assert_allclose(s, np.linalg.svd(R, compute_uv=False))
    assert_allclose(np.linalg.norm(R @ Vt.T, axis=0), s)
    assert n_rows([R, R]) == 10


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "bool"])
def test_means_of_integers_are_exact(dtype):
    ends = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    stack = np.random.default_rng(0).choice(ends, (9000, 3, 5)).astype(dtype)  # the largest steps from the first image
    found = moments([stack[:4000], stack[4000:]])
    np.testing.assert_allclose(
        found.mean, stack.reshape(9000, -1).mean(axis=0, dtype=np.float64), rtol=1e-14, atol=1e-10
    )
