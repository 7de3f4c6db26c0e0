"""A fit that fails leaves the estimator as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sklearn.base import BaseEstimator

__all__ = ["unchanged_if_it_fails"]


@contextmanager
def unchanged_if_it_fails(*estimators: Any) -> Iterator[None]:
    """Give estimators, and those that they consist of, their attributes back if the block raises, whatever it raises.

    A fit replaces what an earlier one has learned, and never writes into its arrays. So they need not be copied.
    """
    states = [(one, vars(one).copy()) for one in _with_members(estimators)]
    try:
        yield
    except BaseException:
        for estimator, state in states:
            estimator.__dict__ = state
        raise


def _with_members(estimators: Any) -> Iterator[Any]:
    for estimator in estimators:
        if hasattr(estimator, "__dict__") and not isinstance(estimator, type):  # others are refused by what fits them
            yield estimator
            params = estimator.get_params(deep=True) if hasattr(estimator, "get_params") else {}
            yield from (value for value in params.values() if isinstance(value, BaseEstimator))
