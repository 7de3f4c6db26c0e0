"""Weighted sums of bytes against NumPy in float64."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from imgstack_ml.linalg import integers, krylov
from imgstack_ml.linalg.weighted import weighted_sums_of_bytes
from tests.lib.blocks import SINGLE, cut
from tests.linalg.test_integers import DTYPES, arithmetic, random_bytes, rows  # noqa: F401 (a fixture)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "p", "m"), [(1, 1, 1), (5, 40, 3), (9, 40, 0), (130, 900, 10), (70, 5000, 40)])
def test_closer_than_float32(n, p, m, dtype, arithmetic):  # noqa: F811
    X = random_bytes((n, p), dtype)
    weights = np.asfortranarray(np.random.default_rng(1).standard_normal((m, n)))
    weights[:1], weights[-1:] = 0, 1e-30 * weights[-1:]
    shift, lo, hi = rows(X).mean(axis=0), p // 7, p - p // 5
    centred = rows(X)[:, lo:hi] - shift[lo:hi]
    out = np.ones((m, hi - lo))
    weighted_sums_of_bytes(cut(X, *range(3, n, 31)), lo, hi, weights, shift[lo:hi], out)
    # What is rounded is a weight, by 2^-23 of the largest of its row.
    largest = np.abs(weights).max(axis=1) * np.abs(centred).sum(axis=0).max()
    wrong = np.abs(out - 1 - weights @ centred).max(axis=1)
    assert (wrong <= 2.0**-23 * largest + 1e-12).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_many_images(dtype, monkeypatch):
    """More images than a sum of 32 bits holds, added up in groups, and the same without the kernels."""
    X = random_bytes((70_000, 5), dtype)
    scores, shift = np.random.default_rng(0).standard_normal((len(X), 32)), np.full(5, 3.0)
    expected = scores.T @ (rows(X) - shift)
    for compiled in (integers._compiled(), None):
        monkeypatch.setattr(integers, "_compiled", lambda compiled=compiled: compiled)
        out = np.zeros((32, 5))
        krylov.add_products(cut(X, 10, 66_000), 0, 5, scores, shift, SINGLE, out)
        assert_allclose(out, expected, rtol=0, atol=1e-6 * np.abs(rows(X) - shift).max() * 70_000)
