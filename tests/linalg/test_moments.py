"""Moments: right against NumPy, the same in any grouping, careful with digits."""

from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

from imgstack_ml.linalg.moments import add_moments, merge_moments, moments
from tests.lib.blocks import centred, cut, cut_stacks, flat, images, steady


@steady(40)
@given(cut_stacks())
def test_moments_equal_numpys_in_any_grouping(blocks):
    X = np.concatenate(blocks)
    a, b, c = (moments([block], with_norms=True) for block in blocks)
    for found in (
        moments(blocks, with_norms=True),
        merge_moments(merge_moments(a, b), c),
        merge_moments(a, merge_moments(b, c)),
    ):
        assert found.n == len(X)
        assert_allclose(found.mean, flat(X).mean(axis=0), rtol=1e-14, atol=1e-12)
        assert_allclose(found.norms**2, (centred(X) ** 2).sum(axis=0), rtol=1e-9, atol=1e-9)


def test_moments_of_a_constant_pixel_are_exact():
    X = np.full((9, 4), 0.1)
    found = reduce(merge_moments, [moments([block], with_norms=True) for block in cut(X, 2, 3)])
    assert_array_equal(found.mean, X[0])
    assert_array_equal(found.norms, 0)


def test_moments_keep_digits_of_small_changes_on_a_large_offset():
    X = 1e8 + np.random.default_rng(0).standard_normal((500, 20))
    found = reduce(merge_moments, [moments([block], with_norms=True) for block in cut(X, 7, 10, 400)])
    assert_allclose(found.norms**2, 500 * (X - 1e8).var(axis=0), rtol=1e-9)


def test_moments_without_norms_have_none():
    X = images(5)
    assert merge_moments(moments([X[:2]]), moments([X[2:]])).norms is None


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "bool"])
def test_means_of_integers_are_exact(dtype):
    ends = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    stack = np.random.default_rng(0).choice(ends, (9000, 3, 5)).astype(dtype)  # the largest steps from the first image
    found = moments([stack[:4000], stack[4000:]])
    assert_allclose(found.mean, flat(stack).mean(axis=0), rtol=1e-14, atol=1e-10)


@steady(40)
@given(cut_stacks())
def test_images_added_to_a_total_have_the_same_moments(blocks):
    X = np.concatenate(blocks)
    total = None
    for block in blocks:
        total = add_moments(total, [block], len(X), with_norms=True)
    assert total.n == len(X)
    assert_allclose(total.means(), flat(X).mean(axis=0), rtol=1e-14, atol=1e-12)
    assert_allclose(total.deviations() ** 2, (centred(X) ** 2).sum(axis=0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "bool"])
@pytest.mark.parametrize("p", [7, 3000])
def test_sums_of_integers_are_exact(dtype, p):
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    stack = np.full((300, p), high).astype(dtype)
    stack[0] = high - 1 if dtype != "bool" else 0  # a deviation that squares in float64 would lose
    stack[1, 0] = low
    total = add_moments(add_moments(None, [stack[:120]], 300, True), [stack[120:121], stack[121:]], 300, True)
    exact = [[int(value) for value in pixel] for pixel in stack.T[:2]]
    for j, values in enumerate(exact):
        mean = Fraction(sum(values), 300)
        assert total.means()[j] == float(mean)
        assert_allclose(total.deviations()[j] ** 2, float(sum((x - mean) ** 2 for x in values)), rtol=1e-14)


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
@pytest.mark.parametrize("p", [7, 3000])
def test_means_of_float32_keep_ten_digits(p, scale):
    """Against sums of fractions; in any grouping, and of values whose exponents are far apart."""
    rng = np.random.default_rng(0)
    X = (scale * (1000 + rng.standard_normal((200, p)) * 10.0 ** rng.integers(-5, 3, (200, p)))).astype(np.float32)
    total = reduce(lambda total, block: add_moments(total, [block], len(X)), cut(X, 1, 2, 90), None)
    for j in (0, 3, p - 1):
        expected = float(sum(map(Fraction, X[:, j].tolist())) / len(X))
        assert abs(total.means()[j] - expected) <= 1e-13 * abs(expected)
    constant = add_moments(None, [np.full((9, p), np.float32(0.1 * scale))], 9)
    assert_array_equal(constant.means(), np.full(p, np.float32(0.1 * scale), np.float64))


@pytest.mark.parametrize("with_norms", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "uint32", "float32", "float64"])
def test_images_that_come_one_by_one_are_the_same(dtype, with_norms):
    """Large ones too, of which a part is merged at a time."""
    X = images(6, (3, 25_000), dtype=dtype)
    total = reduce(lambda total, image: add_moments(total, [image[None]], len(X), with_norms), X, None)
    parts = [moments([image[None]], with_norms=with_norms) for image in X]
    assert_allclose(total.means(), flat(X).mean(axis=0), rtol=1e-14, atol=1e-12)
    assert_allclose(reduce(merge_moments, parts).mean, flat(X).mean(axis=0), rtol=1e-14, atol=1e-12)
    if with_norms:
        for found in (total, reduce(merge_moments, parts)):
            assert_allclose(found.deviations() ** 2, (centred(X) ** 2).sum(axis=0), rtol=1e-9, atol=1e-9)
