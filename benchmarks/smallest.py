"""Run every benchmark once at its smallest size, without asv: ``python -m benchmarks.smallest``.

Prints name, parameters and a value: seconds, or what a ``track_`` benchmark tracks in its own unit. A benchmark that
raises ends the run with its traceback and a non-zero exit status. The figures say that the benchmarks work; for
figures to compare, use asv.
"""

import contextlib
import inspect
import itertools
import tempfile
from collections.abc import Iterator
from timeit import default_timer
from typing import Any, NamedTuple

from . import features, lazy, preprocessing, reader, solvers, storing
from ._common import Suite

__all__ = ["Outcome", "benchmark_names", "run_suite", "suites"]

_KINDS = ("time_", "track_", "peakmem_")


class Outcome(NamedTuple):
    """What one benchmark gave: its name, parameters, a value and the unit of it."""

    name: str
    params: tuple
    value: float
    unit: str


def suites() -> list[type[Suite]]:
    """List the classes that asv would find in the suites."""
    return [
        member
        for module in (reader, preprocessing, features, lazy, solvers, storing)
        for name, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Suite) and member.__module__ == module.__name__ and not name.startswith("_")
    ]


def benchmark_names(suite: type[Suite]) -> list[str]:
    """List the methods of a suite that asv would run."""
    return [name for name in dir(suite) if name.startswith(_KINDS)]


def run_suite(suite: type[Suite]) -> Iterator[Outcome]:
    """Run the benchmarks of a suite, for each method under comparison, on its smallest data.

    Parameters
    ----------
    suite : class
        One of `suites`.

    Yields
    ------
    Outcome
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        suite().setup_cache()  # type: ignore[attr-defined]
        for params in _smallest_params(suite):
            for name in benchmark_names(suite):
                yield _run(suite(), name, params)


def _smallest_params(suite: Any) -> list[tuple]:
    """Combine every value of the first parameter with the first values of the others that are not skipped."""
    methods, *sizes = suite.params
    skipped = set(getattr(suite, "skip_params", ()))
    combinations = ([(method, *rest) for rest in itertools.product(*sizes)] for method in methods)
    return [next(params for params in some if params not in skipped) for some in combinations]


def _run(suite: Suite, name: str, params: tuple) -> Outcome:
    benchmark = getattr(suite, name)
    suite.setup(*params)
    try:
        start = default_timer()
        result = benchmark(*params)
        seconds = default_timer() - start
    finally:
        suite.teardown(*params)
    full_name = f"{type(suite).__name__}.{name}"
    if name.startswith("track_"):
        return Outcome(full_name, params, result, getattr(benchmark, "unit", ""))
    return Outcome(full_name, params, seconds, "s")


def main() -> None:
    """Run all suites and print a line a benchmark."""
    for suite in suites():
        for outcome in run_suite(suite):
            params = ", ".join(map(str, outcome.params))
            print(f"{outcome.name:<40} {params:<32} {outcome.value:>10.4g} {outcome.unit}", flush=True)


if __name__ == "__main__":
    main()
