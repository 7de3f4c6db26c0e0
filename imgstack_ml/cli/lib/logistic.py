"""Logistic regression on many rows, for the command ``classify``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

__all__ = ["fit_logistic"]

_PART_BYTES = 2**23  # of rows that are multiplied at a time


class _Problem(NamedTuple):
    """Rows (n, p), the number of each row's class and its weight (the weights add up to 1), outputs, penalty."""

    rows: np.ndarray
    classes: np.ndarray
    weights: np.ndarray
    n_outputs: int
    penalty: float

    def shares(self, n: int) -> Iterator[_Problem]:
        """Divide the rows among `n` threads."""
        step = -(-len(self.rows) // n)
        for first in range(0, len(self.rows), step):
            part = slice(first, first + step)
            yield self._replace(rows=self.rows[part], classes=self.classes[part], weights=self.weights[part])

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
    from scipy.optimize import minimize
    from sklearn.exceptions import ConvergenceWarning

    from ...passes.blas import one_blas_thread

    problem, names = _problem(model, rows, labels)
    p, k = rows.shape[1], problem.n_outputs
    inverse = _inverse_factor(problem, 1 / len(names) * (1 - 1 / len(names)))

    def coefficients(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = u.reshape(k, p + 1)
        return u[:, :p] @ inverse, u[:, p]

    def loss_and_gradient(u: np.ndarray, pool: Executor) -> tuple[float, np.ndarray]:
        loss, by_coef, by_intercept = _loss_and_gradient(problem, *coefficients(u), pool)
        return loss, np.column_stack([by_coef @ inverse.T, by_intercept]).ravel()

    # A gain below the rounding of the loss is none.
    options: Any = {"maxiter": model.max_iter, "gtol": model.tol, "ftol": np.finfo(rows.dtype).eps, "maxls": 50}
    # One thread in BLAS: L-BFGS has that of SciPy, whose threads and those of NumPy's would wait for each other.
    with one_blas_thread(), ThreadPoolExecutor() as pool:
        start = np.zeros(k * (p + 1))
        found = minimize(loss_and_gradient, start, (pool,), jac=True, method="L-BFGS-B", options=options)
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


def _inverse_factor(problem: _Problem, curvature: float) -> np.ndarray:
    """Return ``L⁻¹``, where ``L Lᵀ`` is the Hessian at coefficients of zero, for one output: (p, p), float64."""
    import numpy as np
    from scipy.linalg import cholesky, lapack

    hessian = np.diag(np.full(problem.rows.shape[1], problem.penalty))
    for rows, _, weights in problem.parts():
        weighted = rows * np.sqrt(curvature * weights)[:, None].astype(rows.dtype)
        hessian += weighted.T @ weighted
    factor = cholesky(hessian.T, lower=True, overwrite_a=True, check_finite=False)  # in place, and so its inverse
    inverse: np.ndarray = lapack.dtrtri(factor, lower=1, overwrite_c=1)[0]
    return inverse


def _loss_and_gradient(
    problem: _Problem, coef: np.ndarray, intercept: np.ndarray, pool: Executor
) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, penalty included, and its gradients (n_outputs, p) and (n_outputs,); products in the dtype of the rows."""
    import numpy as np
    from dask.system import CPU_COUNT

    rounded = coef.T.astype(problem.rows.dtype, order="C")
    loss, by_coef, by_intercept = (
        0.5 * problem.penalty * (coef**2).sum(),
        problem.penalty * coef,
        np.zeros_like(intercept),
    )
    for of_share in pool.map(lambda share: _sums(share, rounded, intercept), problem.shares(CPU_COUNT)):
        loss += of_share[0]
        by_coef += of_share[1]
        by_intercept += of_share[2]
    return loss, by_coef, by_intercept


def _sums(problem: _Problem, coef: np.ndarray, intercept: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Sum loss and gradients over rows; `coef` is of shape (p, n_outputs)."""
    import numpy as np

    loss, by_coef, by_intercept = 0.0, np.zeros(coef.T.shape), np.zeros(len(intercept))
    for rows, classes, weights in problem.parts():
        losses, slopes = _losses_and_slopes(rows @ coef + intercept, classes)
        slopes *= weights[:, None]
        loss += weights @ losses
        by_intercept += slopes.sum(axis=0)
        by_coef += slopes.T.astype(rows.dtype) @ rows
    return loss, by_coef, by_intercept


def _losses_and_slopes(decision: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihood of each row, (n,), and its gradient by the decision, (n, n_outputs), which is used up."""
    import numpy as np
    from scipy.special import expit

    if decision.shape[1] == 1:
        z = decision[:, 0]
        return np.logaddexp(0, z) - classes * z, (expit(z) - classes)[:, None]
    own = np.arange(len(classes)), classes
    decision -= decision.max(axis=1, keepdims=True)
    shares = np.exp(decision)
    total = shares.sum(axis=1, keepdims=True)
    shares /= total
    losses = np.log(total[:, 0]) - decision[own]
    shares[own] -= 1
    return losses, shares
