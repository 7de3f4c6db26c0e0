"""Bounds and estimates of the eigenvalues of C from a basis: how much variance an analysis can have missed.

theta_1 >= ... are the Ritz values of C in an orthonormal basis W, w_j the Ritz vectors, and r_j = C w_j - theta_j w_j
their residuals. R has the residuals as columns. All theta_j <= lambda_j.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

__all__ = ["Residuals", "estimated_errors", "nystrom_values", "upper_bounds"]


class Residuals(NamedTuple):
    """Ritz values and residuals of the Ritz vectors.

    Attributes
    ----------
    values : ndarray of shape (r,)
        Ritz values, descending.
    coefficients : ndarray of shape (m, r)
        Of the Ritz vectors in the last block of the basis. The residuals are these, transposed, times the m rows that
        C times the last block has outside of the basis. Other blocks have no residual.
    inner : ndarray of shape (m, m)
        Inner products of those rows.
    """

    values: np.ndarray
    coefficients: np.ndarray
    inner: np.ndarray

    @property
    def norms(self) -> np.ndarray:
        """||r_j|| (r,): some eigenvalue of C, not necessarily the j-th, is at most this far from theta_j."""
        squares = np.einsum("ij,ik,kj->j", self.coefficients, self.inner, self.coefficients, optimize=True)
        norms: np.ndarray = np.sqrt(np.maximum(squares, 0))
        return norms

    @property
    def products(self) -> np.ndarray:
        """R'R (r, r): inner products of the residuals."""
        products: np.ndarray = self.coefficients.T @ self.inner @ self.coefficients
        return products


def nystrom_values(residuals: Residuals, floor: float, total: float) -> np.ndarray:
    """Eigenvalues (r,) of the Nystrom approximation of C, which lie between theta_j and lambda_j.

    The approximation is CW'(WCW')^-1 WC (Tropp & Webber 2023, "Randomized algorithms for low-rank matrix
    approximation", sec. 3). In the basis of Ritz vectors it is diag(theta) + DR'RD with D = diag(theta)^-1/2.

    Parameters
    ----------
    floor : float
        Ritz vectors with values up to this are left out. theta_j <= value_j <= lambda_j stays true.
    total : float
        T. Ritz vectors are also left out if their residual can only be rounding: a positive matrix of trace T has
        ||r_j||^2 <= theta_j (T - sum(theta)).
    """
    theta = residuals.values
    use = (theta > floor) & (residuals.norms**2 <= 2 * theta * max(total - theta.sum(), 0.0))
    nystrom = theta.copy()
    if use.any():
        root = np.sqrt(theta[use])
        gain = residuals.products[np.ix_(use, use)] / np.multiply.outer(root, root)
        values = np.linalg.eigvalsh(np.diag(theta[use]) + gain)[::-1]
        nystrom[: len(values)] = np.maximum(values, theta[: len(values)])
    return nystrom


def estimated_errors(theta: np.ndarray, nystrom: np.ndarray, k: int, block: int) -> np.ndarray:
    """Estimates (k,) of lambda_j - theta_j. They are not bounds.

    nystrom_j - theta_j is taken as the first term of a geometric series of ratio theta_b / theta_j, at most 0.9, where
    b is the number of rows in the first `block`. The estimate is the sum of the series.
    """
    gain = nystrom[:k] - theta[:k]
    last = theta[min(block, len(theta)) - 1] if len(theta) > k else 0.0
    ratio = np.minimum(np.divide(last, theta[:k], out=np.zeros(len(gain)), where=theta[:k] > 0), 0.9)
    errors: np.ndarray = gain / (1 - ratio)
    return errors


def upper_bounds(residuals: Residuals, nystrom: np.ndarray, k: int, total: float, lost: float | None) -> np.ndarray:
    """Rigorous upper bounds (k,) of lambda_1 ... lambda_k: the smaller of two kinds, true up to rounding.

    Parameters
    ----------
    total : float
        T.
    lost : float, optional
        Satisfies ``A'A <= B'B + lost I`` for a matrix B whose rows lie in the span of W.

    Notes
    -----
    Weyl's inequality: C less its Nystrom approximation is positive with trace T - sum(nystrom). It is also at most
    `lost`. So lambda_j is at most nystrom_j plus the smaller of both.

    Inertia: outside of W, C is at most kappa = min(lost, T - sum(theta)). So C is at most the block matrix
    [diag(theta), R'; R, kappa I]. For x > kappa, it has as many eigenvalues above x as diag(theta) + R'R / (x - kappa)
    has (Sylvester's law of inertia, by the Schur complement). If fewer than j are above x, then lambda_j <= x. The
    bound is the smallest x of this kind.
    """
    theta = residuals.values
    rest, outside = max(total - nystrom.sum(), 0.0), max(total - theta.sum(), 0.0)
    if lost is not None:
        rest, outside = min(rest, lost), min(outside, lost)
    weyl = nystrom[:k] + rest
    products = residuals.products
    return np.array([_inertia_bound(theta, products, outside, j, weyl[j]) for j in range(k)])


def _inertia_bound(theta: np.ndarray, products: np.ndarray, outside: float, j: int, ceiling: float) -> float:
    """Smallest x up to `ceiling` for which diag(theta) + R'R/(x - outside) has at most j eigenvalues above x.

    By bisection of log(x - low), low being the smallest x that is possible: x - low is found to 1 %, from above.
    """
    low = max(outside, theta[j])
    nearest, farthest = np.spacing(max(low, ceiling)), ceiling - low
    if farthest <= nearest or not _at_most_j_above(theta, products, outside, j, ceiling):
        return ceiling
    while farthest > 1.01 * nearest:
        middle = np.sqrt(nearest * farthest)
        if _at_most_j_above(theta, products, outside, j, low + middle):
            farthest = middle
        else:
            nearest = middle
    return float(low + farthest)


def _at_most_j_above(theta: np.ndarray, products: np.ndarray, outside: float, j: int, x: float) -> bool:
    """Whether diag(theta) + R'R/(x - outside) has at most j eigenvalues above x.

    They are counted as the positive eigenvalues of D in a factorisation LDL', in a tenth of an eigensolver's time.
    """
    matrix = products / (x - outside)
    matrix.flat[:: len(theta) + 1] += theta - x
    factors, pivots, _ = scipy.linalg.lapack.dsytrf(matrix, lower=1)
    single = pivots > 0  # LAPACK marks blocks of 2 x 2 by negative pivots; each has one eigenvalue of either sign
    above = np.count_nonzero(np.diag(factors)[single] > 0) + np.count_nonzero(~single) // 2
    return bool(above <= j)
