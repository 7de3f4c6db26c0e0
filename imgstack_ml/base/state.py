"""A fit that fails leaves the estimator as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

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


def _with_members(estimators: Iterable[Any]) -> Iterator[Any]:
    for one in estimators:
        if isinstance(one, list | tuple):
            yield from _with_members(one)
        elif hasattr(one, "fit") and hasattr(one, "__dict__") and not isinstance(one, type):
            yield one
            yield from _with_members(one.get_params(deep=False).values() if hasattr(one, "get_params") else ())
