"""Input of the tall-skinny QR factorisation, and what follows from R."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from imgstack_ml.linalg.tiles import heaviest_image
from imgstack_ml.linalg.tsqr import centred_columns, rows_after_ones, svd_of_r
from tests.lib.blocks import DTYPES, centred, cut, flat, images


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_r_of_rows_after_ones_belongs_to_the_centred_images(dtype):
    X = images(50, (2, 3), dtype=dtype)
    blocks = cut(X, 20, 21)
    rows = rows_after_ones(blocks, 0, heaviest_image(blocks))
    R = np.linalg.qr(rows, mode="r")
    assert_allclose(R[1:, 1:].T @ R[1:, 1:], centred(X).T @ centred(X), rtol=0, atol=1e-12 * (flat(X) ** 2).sum())
    assert_allclose(heaviest_image(blocks) + R[0, 1:] / R[0, 0], flat(X).mean(axis=0), rtol=1e-12)


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
