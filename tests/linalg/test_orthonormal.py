"""Orthonormal rows: right against plain NumPy, for any rows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from imgstack_ml.linalg import orthonormal as lin

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


@pytest.mark.parametrize("work", [SINGLE, DOUBLE], ids=str)
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


@pytest.mark.parametrize("work", [SINGLE, DOUBLE], ids=str)
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


@pytest.mark.parametrize("work", [SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize("kind", ["equal", "zeros", "graded", "one pixel", "random"])
def test_any_rows_become_orthonormal(kind, work):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20, 300))
    if kind == "equal":
        rows[:] = rows[0]
    elif kind == "zeros":
        rows[5:] = 0
    elif kind == "graded":
        rows = np.linalg.qr(rows.T)[0].T * np.logspace(0, -30, 20)[:, None] + rows[0]
    elif kind == "one pixel":
        rows = np.zeros((20, 300))
        rows[:, 7] = rng.standard_normal(20)
    rows = rows.astype(work)
    first = rows[0] / np.linalg.norm(rows[0].astype(float))
    lin.orthonormalise_rows(rows)
    assert_allclose(rows @ rows.T, np.eye(20), atol=20 * np.finfo(work).eps)
    assert_allclose(rows[0], first, atol=1e-6)
