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
