"""Logistic regression on many rows, for the command ``classify``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

__all__ = ["fit_logistic"]

_PART_BYTES = 2**22  # of rows: read from memory once, and used twice while they are in the processor's cache


class _Problem(NamedTuple):
    """Rows (n, p), the number of each row's class and its weight (the weights add up to 1), outputs, penalty."""

    rows: np.ndarray
    classes: np.ndarray
    weights: np.ndarray
    n_outputs: int
    penalty: float

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        step = max(1, _PART_BYTES // self.rows[:1].nbytes)
        for first in range(0, len(self.rows), step):
            part = slice(first, first + step)
            yield self.rows[part], self.classes[part], self.weights[part]


def fit_logistic(model: LogisticRegression, rows: np.ndarray, labels: np.ndarray) -> None:
    """Fit scikit-learn's model with an L2 penalty: the same minimum, in far fewer steps.

    Features of images are correlated: `model.fit` takes hundreds of steps on them, often without an end. Here L-BFGS
    sees coefficients in which the loss is about as steep in all directions: ``u = Lᵀ coef``, where ``L Lᵀ`` is the
    Hessian at zero. A step costs the same, and one to five dozen are enough.

    Parameters
    ----------
    model : LogisticRegression
        Not fitted; with `C`, `class_weight`, `tol` and `max_iter`.
    rows : ndarray of shape (n_samples, n_features), float32 or float64
        Of mean 0 and standard deviation 1.
    labels : ndarray of shape (n_samples,)
    """
    import numpy as np
    from scipy.linalg import solve_triangular
    from scipy.optimize import minimize
    from sklearn.exceptions import ConvergenceWarning

    problem, names = _problem(model, rows, labels)
    p, k = rows.shape[1], problem.n_outputs
    factor = _factor_of_hessian(problem, 1 / len(names) * (1 - 1 / len(names)))

    def coefficients(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = u.reshape(k, p + 1)
        return solve_triangular(factor, u[:, :p].T, lower=True, trans="T").T, u[:, p]

    def loss_and_gradient(u: np.ndarray) -> tuple[float, np.ndarray]:
        loss, by_coef, by_intercept = _loss_and_gradient(problem, *coefficients(u))
        by_u = solve_triangular(factor, by_coef.T, lower=True).T
        return loss, np.column_stack([by_u, by_intercept]).ravel()

    # A gain below the rounding of the loss is none.
    options: Any = {"maxiter": model.max_iter, "gtol": model.tol, "ftol": np.finfo(rows.dtype).eps, "maxls": 50}
    found = minimize(loss_and_gradient, np.zeros(k * (p + 1)), jac=True, method="L-BFGS-B", options=options)
    if found.nit >= model.max_iter:
        warnings.warn(f"the classifier has not converged in {found.nit:,} steps", ConvergenceWarning, stacklevel=2)
    model.coef_, model.intercept_ = coefficients(found.x)
    model.classes_, model.n_features_in_ = names, p
    model.n_iter_ = np.array([found.nit], dtype=np.int32)


def _problem(model: LogisticRegression, rows: np.ndarray, labels: np.ndarray) -> tuple[_Problem, np.ndarray]:
    import numpy as np
    from sklearn.utils.class_weight import compute_sample_weight

    names, classes = np.unique(labels, return_inverse=True)
    weights = compute_sample_weight(model.class_weight, labels)
    n_outputs = len(names) if len(names) > 2 else 1
    return _Problem(rows, classes, weights / weights.sum(), n_outputs, 1 / (model.C * weights.sum())), names


def _factor_of_hessian(problem: _Problem, curvature: float) -> np.ndarray:
    """Factor the Hessian at coefficients of zero, for one output: lower triangle (p, p), float64."""
    import numpy as np
    from scipy.linalg import cholesky

    hessian = np.diag(np.full(problem.rows.shape[1], problem.penalty))
    for rows, _, weights in problem.parts():
        weighted = rows * np.sqrt(curvature * weights)[:, None].astype(rows.dtype)
        hessian += weighted.T @ weighted
    return cholesky(hessian, lower=True, overwrite_a=True, check_finite=False)


def _loss_and_gradient(
    problem: _Problem, coef: np.ndarray, intercept: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, penalty included, and its gradients (n_outputs, p) and (n_outputs,); products in the dtype of the rows."""
    import numpy as np

    loss, by_coef, by_intercept = 0.0, np.zeros_like(coef), np.zeros_like(intercept)
    rounded = coef.T.astype(problem.rows.dtype, order="C")
    for rows, classes, weights in problem.parts():
        losses, slopes = _losses_and_slopes(rows @ rounded + intercept, classes)
        slopes *= weights[:, None]
        loss += weights @ losses
        by_intercept += slopes.sum(axis=0)
        by_coef += slopes.T.astype(rows.dtype) @ rows
    loss += 0.5 * problem.penalty * (coef**2).sum()
    return loss, by_coef + problem.penalty * coef, by_intercept


def _losses_and_slopes(decision: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihood of each row, (n,), and its gradient by the decision, (n, n_outputs)."""
    import numpy as np
    from scipy.special import expit, logsumexp

    if decision.shape[1] == 1:
        z = decision[:, 0]
        return np.logaddexp(0, z) - classes * z, (expit(z) - classes)[:, None]
    own, total = (np.arange(len(classes)), classes), logsumexp(decision, axis=1, keepdims=True)
    slopes = np.exp(decision - total)
    slopes[own] -= 1
    return total[:, 0] - decision[own], slopes
