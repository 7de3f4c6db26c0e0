"""The table of solvers: plain functions of a pass runner, with one signature and one result record."""

from __future__ import annotations

from collections.abc import Callable

from ..passes.runner import PassRunner
from .exact import solve_covariance, solve_gram
from .records import Factors, FitRequest, FitSize, SolverCost
from .streaming import solve_randomized
from .tsqr import solve_tsqr

__all__ = ["SOLVERS"]

SOLVERS: dict[str, Callable[[PassRunner, SolverCost, FitSize, FitRequest], Factors]] = {
    "gram": solve_gram,
    "covariance_eigh": solve_covariance,
    "tsqr": solve_tsqr,
    "randomized": solve_randomized,
}
