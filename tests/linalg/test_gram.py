"""Gram and scatter matrices, their eigenvectors, and orthonormal rows: right against plain NumPy."""

from functools import partial, reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from imgstack_ml.linalg import gram as lin
from imgstack_ml.linalg.tiles import heaviest_image
from tests.lib.blocks import DOUBLE, DTYPES, SINGLE, centred, cut, cut_stacks, flat, images, steady


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("work", [SINGLE, DOUBLE], ids=str)
def test_centred_gram(dtype, work):
    X = images(9, dtype=dtype)
    pixels = np.empty((2, 60))
    gram = sum(lin.centred_gram(cut(X, 4), lo, hi, work, pixels=pixels) for lo, hi in [(0, 11), (11, 12), (12, 60)])
    eps = np.finfo(work).eps
    assert_allclose(gram, centred(X) @ centred(X).T, rtol=0, atol=50 * eps * np.trace(gram))
    mean, squares = pixels
    assert_allclose(mean, flat(X).mean(axis=0), rtol=1e-6)
    assert_allclose(squares, (centred(X) ** 2).sum(axis=0), rtol=20 * eps)


@steady(40)
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


@pytest.mark.parametrize("work", [SINGLE, DOUBLE], ids=str)
def test_strips_make_the_gram_matrix(work):
    X = images(9)
    shift = heaviest_image([X])
    strips = reduce(lin.merge_strips, [lin.cross_gram([b], 0, cut(X[:4], 1), shift, work) for b in cut(X, 3, 5)])
    found = np.hstack(strips)
    expected = (flat(X[:4]) - shift) @ (flat(X) - shift).T
    assert_allclose(found, expected, rtol=0, atol=50 * np.finfo(work).eps * np.abs(expected).max())


def test_double_centred_is_the_gram_matrix_of_centred_images():
    X = images(8)
    gram = lin.double_centred((flat(X) - 7) @ (flat(X) - 7).T)
    assert_allclose(gram, centred(X) @ centred(X).T, rtol=0, atol=1e-13 * np.trace(gram) * 50)


@steady(40)
@given(cut_stacks(), st.integers(1, 4))
def test_weighted_sums_merge_in_any_grouping(blocks, k):
    X = np.concatenate(blocks)
    starts = np.cumsum([0, *(len(block) for block in blocks)])
    weights = np.random.default_rng(k).standard_normal((k, len(X)))
    shift = heaviest_image(blocks)
    step = partial(lin.weighted_sums, weights=weights, shift=shift, dtype=DOUBLE)
    a, b, c = (step([block], int(start)) for block, start in zip(blocks, starts, strict=False))
    for sums, total, squares in (
        step(blocks, 0),
        lin.merge_sums(lin.merge_sums(a, b), c),
        lin.merge_sums(a, lin.merge_sums(b, c)),
    ):
        assert_allclose(sums, weights @ (flat(X) - shift), rtol=1e-9, atol=1e-6)
        assert_allclose(total, (flat(X) - shift).sum(axis=0), rtol=1e-9, atol=1e-6)
        assert_allclose(squares, ((flat(X) - shift) ** 2).sum(axis=0), rtol=1e-9, atol=1e-6)


def test_merges_leave_their_arguments_alone():
    X = images(8, (6,))
    a, b = lin.scatter([X[:3]], 0, DOUBLE), lin.scatter([X[3:]], 0, DOUBLE)
    before = a.matrix.copy(), b.matrix.copy(), a.mean.copy()
    lin.merge_scatter(a, b)
    assert_array_equal(a.matrix, before[0])
    assert_array_equal(b.matrix, before[1])
    assert_array_equal(a.mean, before[2])


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


def test_no_eigenvalue_of_many_equal_ones_is_lost():
    """LAPACK's solver for a subset returned 6 of 8 here."""
    X = np.eye(86)[np.arange(90) % 86] * (2.0**32 - 1)
    A = X - X.mean(axis=0)
    values, vectors = lin.eigh_descending(A.T @ A, 8)
    assert_allclose(values, np.linalg.eigvalsh(A.T @ A)[::-1][:8], rtol=1e-12)
    assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-12)
