"""Logistic regression of many rows, against scikit-learn's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from imgstack_ml.cli.lib.logistic import fit_logistic


def correlated_rows(n, dtype):
    """Rows of 40 columns, scaled, most of whose variance lies in a few directions, as in features of images."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, 40)) * np.logspace(0, -3, 40) @ rng.normal(size=(40, 40))
    rows = rows - rows.mean(axis=0)
    return np.ascontiguousarray(rows / rows.std(axis=0), dtype), rng


@pytest.mark.parametrize("weight", [None, "balanced"])
@pytest.mark.parametrize("classes", [["a", "b"], ["x", "y", "z", "zz"]])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-3), ("float64", 1e-5)])
@pytest.mark.parametrize("n", [25, 3000])
def test_coefficients_are_those_of_scikit_learn(n, dtype, tolerance, classes, weight, monkeypatch):
    monkeypatch.setattr("imgstack_ml.cli.lib.logistic._PART_BYTES", 2**14)
    rows, rng = correlated_rows(n, dtype)
    labels = np.array(classes)[np.minimum(rng.geometric(0.4, n) - 1, len(classes) - 1)]  # frequent and rare ones
    model, exact = (LogisticRegression(C=0.5, tol=tol, class_weight=weight) for tol in (1e-8, 1e-10))
    fit_logistic(model, rows, labels)
    exact.set_params(solver="newton-cholesky").fit(rows.astype("f8"), labels)
    assert model.coef_.dtype == exact.coef_.dtype
    np.testing.assert_allclose(model.coef_, exact.coef_, atol=tolerance)
    np.testing.assert_allclose(model.intercept_, exact.intercept_, atol=tolerance)
    assert (model.predict(rows) == exact.predict(rows)).mean() > 0.998


def test_correlated_features_take_few_steps():
    rows, rng = correlated_rows(3000, "f8")
    labels = rng.integers(0, 2, 3000)
    model = LogisticRegression()
    fit_logistic(model, rows, labels)
    assert model.n_iter_[0] <= 10
    with warnings.catch_warnings(action="ignore"):
        assert LogisticRegression().fit(rows, labels).n_iter_[0] > 5 * model.n_iter_[0]


def test_steps_that_end_too_early_are_told():
    rows, rng = correlated_rows(300, "f8")
    with pytest.warns(ConvergenceWarning, match="not converged in 2 steps"):
        fit_logistic(LogisticRegression(max_iter=2), rows, rng.integers(0, 3, 300))
