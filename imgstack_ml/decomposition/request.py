"""What a solver is asked for, and what it returns."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from .certificate import Certificate

__all__ = ["Factors", "FitRequest", "component_count"]


class FitRequest(NamedTuple):
    """What a solver is asked for. The exact solvers use `n_components` only.

    Attributes
    ----------
    n_components : int, float or None
        Number of components, or the share of the variance that they explain, or None for all.
    tol : float
        Largest estimated relative error of an explained variance, and of the variance missed.
    max_passes : int
        Reads of the stack.
    seed : int
        Seed of the random sums of images.
    """

    n_components: int | float | None
    tol: float = 1e-4
    max_passes: int = 6
    seed: int = 0

    @classmethod
    def of(cls, n_components: Any, tol: float, max_passes: int, random_state: Any) -> FitRequest:
        """Make a request from parameters of `ImagePCA`; draws a seed."""
        seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
        return cls(n_components, float(tol), int(max_passes), int(seed))

    @property
    def share(self) -> float | None:
        """The share of the variance asked for, if one was."""
        asked = self.n_components
        return float(asked) if isinstance(asked, Real) and not isinstance(asked, Integral) else None


class Factors(NamedTuple):
    """Leading singular triplets of the centred stack.

    Attributes
    ----------
    mean : ndarray of shape (p,), float64
    components : ndarray of shape (k, p), float32 or float64
        Orthonormal rows; their signs are arbitrary.
    singular_values : ndarray of shape (k,), float64
        Descending; exactly 0 beyond the numerical rank.
    total : float
        Sum of squares of the centred stack.
    rank : int
        Numerical rank, or `k` if it is at least that.
    scores : ndarray of shape (n, k), or None
        Projections of the images, if the solver has them without another read.
    n_iter : int
        Products of the covariance with a block; 0 for an exact solver.
    certificate : Certificate, or None
        Error bounds and estimates of approximate factors; None for exact ones.
    """

    mean: np.ndarray
    components: np.ndarray
    singular_values: np.ndarray
    total: float
    rank: int
    scores: np.ndarray | None
    n_iter: int = 0
    certificate: Certificate | None = None


def component_count(values: np.ndarray, total: float, most: int, request: FitRequest) -> int:
    """Return the number of components: `most`, or as many as explain more than the share of the variance asked for."""
    if request.share is None:
        return most
    explained = np.cumsum(values) / (total or 1.0)
    return min(most, int(np.searchsorted(explained, request.share, side="right")) + 1)
