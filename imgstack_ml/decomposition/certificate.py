"""The certificate of a streaming fit: how accurate its result is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..base.notebook import table

__all__ = ["Certificate", "in_units"]


@dataclass(frozen=True, eq=False)
class Certificate:
    """Accuracy of components from few reads: exact, estimated and rigorous figures. Fitted by `ImagePCA`.

    With C the centred stack's scatter matrix over (n_images - 1), lambda_j its true eigenvalues, theta_j the
    ``explained_variance_`` found and T the total variance, all in squared intensity units:

    Attributes
    ----------
    captured_variance : float
        Sum of the variances along the components, sum_j theta_j. Exact up to rounding if `is_exact`; a rigorous lower
        bound after a single read.
    total_variance : float
        T, the trace of C; exact up to rounding.
    estimated_deficit : float or None
        Estimate of the variance that the best k components would capture beyond `captured_variance`. It is not a bound.
        None after a single read.
    deficit_bounds : (float, float)
        Rigorous lower and upper bounds of the same.
    explained_variance_bounds : ndarray of shape (2, n_components)
        Rigorous lower and upper bounds of lambda_1 ... lambda_k.
    estimated_errors : ndarray of shape (n_components,), or None
        Estimated relative errors of `explained_variance_`, at least as large as those that rounding can cause.
    residual_norms : ndarray of shape (n_components,), or None
        ||C v_j - theta_j v_j||: some eigenvalue, not necessarily the j-th, is within this distance of theta_j.
    is_exact : bool
        Whether `captured_variance` was measured on all images with the final components: True after two reads.
    converged : bool
        Whether estimated errors and estimated_deficit / (T - captured_variance) were within ``tol``. False if rounding
        alone can cause larger errors, e.g. for ``tol=0``.

    Notes
    -----
    W is the basis of all blocks, Theta its Ritz values, R the residuals of its Ritz vectors. Every rigorous bound is
    widened by 64 eps lambda_1 for rounding. Bounds that use residuals are widened by the squared rounding of residuals
    over theta_j, and by that of rows that were too small to be stored. T is widened by 64 eps T, and what the first
    read cut off by 4 eps times the largest eigenvalue of the images so far, for each cut: errors of merging add up.

    Lower bounds: theta_j <= nystrom_j <= lambda_j, where nystrom_j are the eigenvalues of the Nystrom approximation
    C W (W'CW)^-1 W'C, that is of Theta + Theta^-1/2 R'R Theta^-1/2 (Tropp & Webber 2023, "Randomized algorithms for
    low-rank matrix approximation"). Hence the lower bound of the deficit, sum_j (nystrom_j - theta_j).

    Upper bounds of lambda_j, of which the least is taken: s_j^2 + lost, from the first read's factor B, which obeys
    B'B <= C <= B'B + lost I; Weyl's nystrom_j + min(T - sum nystrom, kappa); and the j-th eigenvalue of
    [Theta, R'; R, kappa I], kappa being a bound of C outside of W: the lesser of T - sum Theta and lost + the largest
    s_j^2 whose row of B is not in W, and the largest Ritz values dropped to save memory. If `partial_fit` goes on from
    components alone, all bounds are widened by the norm of their residuals.

    Estimated errors: (nystrom_j - theta_j) / (1 - min(theta_m / theta_j, 0.9)), over theta_j, m being the size of one
    block: the gains continue as a geometric series would. Estimated deficit: the sum of these errors (times theta_j),
    or 2 g if that is more, g = sum_j (nystrom_j - theta_j).

    Examples
    --------
    >>> from imgstack_ml import ImagePCA
    >>> from imgstack_ml.datasets import load_faces
    >>> certificate = ImagePCA(5, svd_solver="randomized").fit(load_faces()[0]).certificate_
    >>> certificate.is_exact, bool(certificate.estimated_errors.max() < 0.01)
    (True, True)
    """

    captured_variance: float
    total_variance: float
    estimated_deficit: float | None
    deficit_bounds: tuple[float, float]
    explained_variance_bounds: np.ndarray
    estimated_errors: np.ndarray | None
    residual_norms: np.ndarray | None
    is_exact: bool
    converged: bool

    def __post_init__(self) -> None:
        for name in ("explained_variance_bounds", "estimated_errors", "residual_norms"):
            value = getattr(self, name)
            if value is not None:  # a saved model gives a list
                object.__setattr__(self, name, np.asarray(value, dtype=np.float64))

    def __repr__(self) -> str:
        total = self.total_variance or 1.0
        low, high = self.deficit_bounds
        sign = "" if self.is_exact else "at least "
        lines = [
            f"Certificate: {'within' if self.converged else 'not known to be within'} tol",
            f"  captured variance   {sign}{self.captured_variance / total:.6%} of the total",
            f"  missed (certain)    {low / total:.2g} to {high / total:.2g} of the total",
        ]
        if self.estimated_deficit is not None:
            lines.insert(2, f"  missed (estimate)   {self.estimated_deficit / total:.2g} of the total")
            lines.append(f"  largest relative error of an explained variance (estimate)  {self.largest_error:.2g}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        total = self.total_variance or 1.0
        low, high = (f"{100 * bound / total:.2g} %" for bound in self.deficit_bounds)
        captured = f"{100 * self.captured_variance / total:.4f} % of the total"
        unknown = "not estimated: the images were read once"
        missed = (
            unknown if self.estimated_deficit is None else f"{100 * self.estimated_deficit / total:.2g} % of the total"
        )
        error = unknown if self.estimated_errors is None else f"{100 * self.largest_error:.2g} % of it at most"
        rows = [
            ("result", "within tol" if self.converged else "not known to be within tol"),
            ("captured variance", f"{captured}, exact" if self.is_exact else f"at least {captured}"),
            ("missed, by estimate", missed),
            ("missed, for certain", f"{low} to {high} of the total"),
            ("error of an explained variance, by estimate", error),
        ]
        return table(rows, caption="Certificate")

    @property
    def largest_error(self) -> float:
        """Largest of `estimated_errors`; infinite if there is no estimate."""
        return float("inf") if self.estimated_errors is None else float(np.max(self.estimated_errors, initial=0.0))


def in_units(certificate: Certificate, exponent: int) -> Certificate:
    """Return the certificate for images in units of 2^exponent: its variances change by 4^-exponent."""
    squared = (
        *("captured_variance", "total_variance", "estimated_deficit", "deficit_bounds"),
        *("explained_variance_bounds", "residual_norms"),
    )
    values = {name: getattr(certificate, name) for name in squared}
    scaled: dict[str, Any] = {
        name: np.ldexp(value, -2 * exponent) for name, value in values.items() if value is not None
    }
    for name, value in scaled.items():
        if value.ndim == 0:
            scaled[name] = float(value)
    scaled["deficit_bounds"] = tuple(map(float, scaled["deficit_bounds"]))
    return replace(certificate, **scaled)
