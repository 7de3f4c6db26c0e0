"""Bounds and estimates of the eigenvalues of C from a basis: how much variance an analysis can have missed.

theta_1 >= ... are the Ritz values of C in an orthonormal basis W, w_j the Ritz vectors, and r_j = C w_j - theta_j w_j
their residuals. R has the residuals as columns. All theta_j <= lambda_j.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Residuals", "estimated_errors", "nystrom_values", "trusted", "upper_bounds"]

_LARGE = 800  # rows of a matrix whose eigenvalues take long enough to make it smaller first
_NEAR, _ROUNDS = 1.05, 8  # how near such a bound comes to the eigenvalue, and the most rounds that this takes


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
    def known(self) -> bool:
        """Whether the inner products are numbers. If they are beyond float64, LAPACK could hang."""
        return bool(np.isfinite(self.inner).all())

    @property
    def norms(self) -> np.ndarray:
        """||r_j|| (r,): some eigenvalue of C, not necessarily the j-th, is at most this far from theta_j."""
        if not self.known:
            return np.full(len(self.values), np.inf)
        squares = np.einsum("ij,ik,kj->j", self.coefficients, self.inner, self.coefficients, optimize=True)
        norms: np.ndarray = np.sqrt(np.maximum(squares, 0))
        return norms

    @property
    def factor(self) -> np.ndarray:
        """S (m, r) with S'S = R'R, the inner products of the residuals."""
        squares, vectors = np.linalg.eigh(self.inner)
        factor: np.ndarray = np.sqrt(np.maximum(squares, 0))[:, None] * (vectors.T @ self.coefficients)
        return factor


def trusted(residuals: Residuals, floor: float, total: float) -> np.ndarray:
    """Which Ritz vectors (r,) have values above `floor`, and residuals that cannot be rounding alone.

    A positive matrix of trace T = `total` has ||r_j||^2 <= theta_j (T - sum(theta)).
    """
    theta = residuals.values
    most = np.sqrt(np.maximum(theta, 0)) * np.sqrt(2 * max(total - theta.sum(), 0.0))
    return np.asarray((theta > floor) & (residuals.norms <= most))


def nystrom_values(residuals: Residuals, use: np.ndarray) -> np.ndarray:
    """Eigenvalues (r,) of the Nystrom approximation of C, which lie between theta_j and lambda_j.

    The approximation is CW'(WCW')^-1 WC (Tropp & Webber 2023, "Randomized algorithms for low-rank matrix
    approximation", sec. 3). In the basis of Ritz vectors it is diag(theta) + DR'RD with D = diag(theta)^-1/2.

    Parameters
    ----------
    use : ndarray of bool, shape (r,)
        Ritz vectors to use: those that are `trusted`. theta_j <= value_j <= lambda_j is true for any choice.
    """
    nystrom = residuals.values.copy()
    if use.any():
        theta = nystrom[use]
        factor = residuals.factor[:, use] / np.sqrt(theta)
        values = np.linalg.eigvalsh(np.diag(theta) + factor.T @ factor)[::-1]
        nystrom[: len(values)] = np.maximum(values, nystrom[: len(values)])
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
    """Rigorous upper bounds (k + 1,) of lambda_1 ... lambda_k, and of C outside of W, true up to rounding.

    The last one bounds lambda_(r + 1), too, if W has r rows. The others are the smaller of two kinds.

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

    Outside of W, C is at most kappa = min(lost, T - sum(theta)). So C is at most the block matrix
    [diag(theta), R'; R, kappa I], and lambda_j is at most its j-th eigenvalue. With S'S = R'R, this matrix has the
    eigenvalues of [diag(theta), S'; S, kappa I], and kappa.
    """
    theta = residuals.values
    rest, outside = max(total - nystrom.sum(), 0.0), max(total - theta.sum(), 0.0)
    if lost is not None:
        rest, outside = min(rest, lost), min(outside, lost)
    values = np.maximum(_block_values(residuals, outside, k, nystrom[k - 1]), outside)
    return np.append(np.minimum(nystrom[:k] + rest, values), outside)


def _block_values(residuals: Residuals, outside: float, k: int, least: float) -> np.ndarray:
    """Leading eigenvalues (k,) of K = [diag(theta), S'; S, outside I], or numbers a little above; all are >= `least`.

    If K is large, Ritz values up to least / 2 are eliminated first: for x >= least, K - x I has as many positive
    eigenvalues as its Schur complement of diag(small theta) - x I (Sylvester's law of inertia). In that complement the
    term of the small values decreases with x. So its k-th eigenvalue, for x in their term, is above that of K if x is
    below it, and below otherwise. Bisection brings both within 5 %. It begins with the k-th eigenvalue of K without
    the small values (Cauchy's interlacing), which is usually near enough, but not where eigenvalues are equal.
    """
    if not residuals.known:
        return np.full(k, np.inf)
    theta, factor = residuals.values, residuals.factor
    if len(theta) + len(factor) <= _LARGE or least <= 0:
        return _leading_values(theta, factor, outside, k)
    few = max(k, np.count_nonzero(theta > least / 2))
    large, small = factor[:, :few], factor[:, few:]

    def at(x: float) -> np.ndarray:
        corner = outside * np.eye(len(factor)) + (small / (x - theta[few:])) @ small.T
        return _leading_values(theta[:few], large, corner, k)

    least = max(least, _leading_values(theta[:few], large, outside, k)[-1])
    values = at(least)
    most = values[-1]
    for _ in range(_ROUNDS):
        if most <= _NEAR * least:
            break
        middle = least / 2 + most / 2
        found = at(middle)
        if found[-1] >= middle:
            values, least, most = found, middle, min(most, found[-1])
        else:
            least, most = max(least, found[-1]), middle
    values[-1] = most
    return values


def _leading_values(theta: np.ndarray, factor: np.ndarray, corner: np.ndarray | float, k: int) -> np.ndarray:
    """Leading eigenvalues (k,) of [diag(theta), S'; S, corner], where a number stands for a multiple of I."""
    r = len(theta)
    matrix = np.diag(np.append(theta, np.zeros(len(factor))))
    matrix[r:, :r], matrix[:r, r:] = factor, factor.T
    matrix[r:, r:] = corner if isinstance(corner, np.ndarray) else corner * np.eye(len(factor))
    return np.linalg.eigvalsh(matrix)[::-1][:k]
