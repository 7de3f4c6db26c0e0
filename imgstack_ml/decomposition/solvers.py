"""The table of solvers: plain functions of a pass runner, with one signature and one result record."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..linalg.integers import prepare
from ..passes.runner import PassRunner
from .exact import solve_covariance, solve_gram
from .records import Factors, FitRequest, FitSize, SolverCost
from .streaming import solve_randomized
from .tsqr import solve_tsqr

__all__ = ["SOLVERS", "solve"]

logger = logging.getLogger("imgstack_ml")

SOLVERS: dict[str, Callable[[PassRunner, SolverCost, FitSize, FitRequest], Factors | None]] = {
    "gram": solve_gram,
    "covariance_eigh": solve_covariance,
    "tsqr": solve_tsqr,
    "randomized": solve_randomized,
}


def solve(runner: PassRunner, cost: SolverCost, size: FitSize, request: FitRequest) -> tuple[str, Factors]:
    """Run a solver, and another one where the plan has one and the first gives up; return the name of the last."""
    if size.in_bytes and not size.few_products(min(size.n, size.p)):
        prepare()
    while (factors := SOLVERS[cost.solver](runner, cost, size, request)) is None:
        assert cost.instead is not None
        logger.info("%s has not converged, %s goes on", cost.solver, cost.instead.solver)
        cost = cost.instead
    return cost.solver, factors
