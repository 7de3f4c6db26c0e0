"""How good a principal component analysis from few reads is: what it captured, and what it can have missed.

C = A'A, A the centred images; its eigenvalues are lambda_1 >= lambda_2 >= ..., its trace T. W is an orthonormal
basis, theta_j the Ritz values in it and r_j = C w_j - theta_j w_j the residuals of its Ritz vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

__all__ = ["Residuals", "estimated_errors", "nystrom_values", "upper_bounds"]


class Residuals(NamedTuple):
    """Ritz values (r,), descending; and residuals of the Ritz vectors as ``coefficients' rows``.

    `coefficients` (m, r) belong to the last block of the basis, which alone has a residual; `inner` (m, m) holds the
    inner products of those rows.
    """

    values: np.ndarray
    coefficients: np.ndarray
    inner: np.ndarray

    @property
    def norms(self) -> np.ndarray:
        """||r_j||: some eigenvalue of C, not necessarily the j-th, lies as close to theta_j as this."""
        squares = np.einsum("ij,ik,kj->j", self.coefficients, self.inner, self.coefficients, optimize=True)
        return np.sqrt(np.maximum(squares, 0))

    @property
    def products(self) -> np.ndarray:
        """Inner products (r, r) of the residuals."""
        return self.coefficients.T @ self.inner @ self.coefficients


def nystrom_values(residuals: Residuals, floor: float, total: float) -> np.ndarray:
    """Eigenvalues (r,) of the Nystrom approximation C W (W'CW)^-1 W'C: theta_j <= value_j <= lambda_j.

    In the basis of Ritz vectors it is diag(theta) + D R'R D, D = diag(theta)^-1/2, R the residuals (for the
    approximation: Tropp & Webber 2023, "Randomized algorithms for low-rank matrix approximation", sec. 3). Ritz
    vectors with values up to `floor` are left out, which leaves the bounds true; and those with residuals that cannot
    be: C, positive and of trace `total`, has ||r_j||^2 <= theta_j (total - sum(theta)).
    """
    theta = residuals.values
    use = (theta > floor) & (residuals.norms**2 <= 2 * theta * max(total - theta.sum(), 0.0))
    found = theta.copy()
    if use.any():
        root = np.sqrt(theta[use])
        gain = residuals.products[np.ix_(use, use)] / np.multiply.outer(root, root)
        values = np.linalg.eigvalsh(np.diag(theta[use]) + gain)[::-1]
        found[: len(values)] = np.maximum(values, theta[: len(values)])
    return found


def estimated_errors(theta: np.ndarray, nystrom: np.ndarray, k: int, block: int) -> np.ndarray:
    """Estimates (k,) of lambda_j - theta_j, no bounds: what Nystrom gains, continued as a geometric series would."""
    gain = nystrom[:k] - theta[:k]
    last = theta[min(block, len(theta)) - 1] if len(theta) > k else 0.0
    ratio = np.minimum(np.divide(last, theta[:k], out=np.zeros(len(gain)), where=theta[:k] > 0), 0.9)
    return gain / (1 - ratio)


def upper_bounds(residuals: Residuals, nystrom: np.ndarray, k: int, total: float, lost: float | None) -> np.ndarray:
    """Rigorous upper bounds (k,) of lambda_1 ... lambda_k, the least of two kinds, up to rounding.

    Parameters
    ----------
    total : float
        T.
    lost : float, optional
        ``A'A <= B'B + lost I`` for a B whose rows W spans.

    Notes
    -----
    Weyl: C less its Nystrom approximation is positive with trace T - sum(nystrom), and, if W spans the rows of B, is at
    most `lost`; so lambda_j <= nystrom_j + min of both.
    Inertia: outside of W, C is at most kappa = min(lost, T - sum(theta)). With the residuals it is at most
    [diag(theta), R'; R, kappa I], which has as many eigenvalues above x > kappa as diag(theta) + R'R / (x - kappa)
    has (Sylvester, by the Schur complement); the least x such that the j-th is up to x bounds lambda_j.
    """
    theta = residuals.values
    rest, outside = max(total - nystrom.sum(), 0.0), max(total - theta.sum(), 0.0)
    if lost is not None:
        rest, outside = min(rest, lost), min(outside, lost)
    weyl = nystrom[:k] + rest
    products = residuals.products
    return np.array([_inertia_bound(theta, products, outside, j, weyl[j]) for j in range(k)])


def _inertia_bound(theta: np.ndarray, products: np.ndarray, outside: float, j: int, ceiling: float) -> float:
    """Bisect for the least x up to `ceiling` where diag(theta) + R'R/(x - outside) has at most j eigenvalues above x.

    In steps of ratio: the answer is to 1 % of its distance from where it can be at the least.
    """
    low = max(outside, theta[j])
    nearest, farthest = np.spacing(max(low, ceiling)), ceiling - low
    if farthest <= nearest or not _holds(theta, products, outside, j, ceiling):
        return ceiling
    while farthest > 1.01 * nearest:
        middle = np.sqrt(nearest * farthest)
        if _holds(theta, products, outside, j, low + middle):
            farthest = middle
        else:
            nearest = middle
    return float(low + farthest)


def _holds(theta: np.ndarray, products: np.ndarray, outside: float, j: int, x: float) -> bool:
    """Count eigenvalues above x by the inertia of a factorisation L D L', which costs a tenth of an eigensolver."""
    matrix = products / (x - outside)
    matrix.flat[:: len(theta) + 1] += theta - x
    factors, pivots, _ = scipy.linalg.lapack.dsytrf(matrix, lower=1)
    single = pivots > 0  # negative pivots mark the blocks of 2 x 2, which have one eigenvalue of either sign
    above = np.count_nonzero(np.diag(factors)[single] > 0) + np.count_nonzero(~single) // 2
    return bool(above <= j)
