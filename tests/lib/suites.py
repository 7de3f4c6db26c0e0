"""Runs the asv benchmarks of a suite once, on their smallest data, without asv."""

import contextlib
import importlib
import inspect
import itertools
import pkgutil
import tempfile
from collections.abc import Iterator
from timeit import default_timer
from typing import Any, NamedTuple

import benchmarks.suites
from benchmarks.lib.suite import Suite

KINDS = ("time_", "track_", "peakmem_")


class Outcome(NamedTuple):
    """What one benchmark gave: its name, parameters, and a tracked value, or else seconds."""

    name: str
    params: tuple
    value: float


def suites() -> list[type[Suite]]:
    """List the classes that asv would find."""
    names = [module.name for module in pkgutil.iter_modules(benchmarks.suites.__path__, "benchmarks.suites.")]
    return [
        member
        for module in map(importlib.import_module, names)
        for name, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Suite) and member.__module__ == module.__name__ and not name.startswith("_")
    ]


def benchmark_names(suite: type[Suite]) -> list[str]:
    """List the methods of a suite that asv would run."""
    return [name for name in dir(suite) if name.startswith(KINDS)]


def run_suite(suite: type[Suite]) -> Iterator[Outcome]:
    """Run the benchmarks of a suite, for each value of the first parameter, on the smallest data."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        suite().setup_cache()  # type: ignore[attr-defined]
        for params in _smallest_params(suite):
            for name in benchmark_names(suite):
                yield _run(suite(), name, params)


def _smallest_params(suite: Any) -> list[tuple]:
    """Combine each value of the first parameter with the first values of the others that are not skipped."""
    first, *sizes = suite.params
    skipped = set(getattr(suite, "skip_params", ()))
    combinations = ([(value, *rest) for rest in itertools.product(*sizes)] for value in first)
    return [next(params for params in some if params not in skipped) for some in combinations]


def _run(suite: Suite, name: str, params: tuple) -> Outcome:
    suite.setup(*params)
    try:
        start = default_timer()
        result = getattr(suite, name)(*params)
        seconds = default_timer() - start
    finally:
        suite.teardown(*params)
    return Outcome(f"{type(suite).__name__}.{name}", params, result if name.startswith("track_") else seconds)
