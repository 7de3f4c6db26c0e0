"""Runs the asv benchmarks of a suite once, on their smallest data, without asv."""

import contextlib
import importlib
import inspect
import itertools
import pkgutil
from collections.abc import Iterator
from pathlib import Path
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


def run_suite(suite: type[Suite], folder: Path) -> Iterator[Outcome]:
    """Run the benchmarks of a suite in a folder that `setup_cache` filled, for each value of the first parameter.

    A ``peakmem_`` benchmark that does the same as a ``time_`` benchmark is left out.
    """
    with contextlib.chdir(folder):
        for params in _smallest_params(suite):
            instance = suite()
            instance.setup(*params)
            try:
                for name in benchmark_names(suite):
                    if not _repeats_a_timing(suite, name):
                        yield _run(instance, name, params)
            finally:
                instance.teardown(*params)


def _repeats_a_timing(suite: type[Suite], name: str) -> bool:
    timing = getattr(suite, name.replace("peakmem_", "time_"), None)
    if not name.startswith("peakmem_") or timing is None:
        return False
    own, other = getattr(suite, name).__code__, timing.__code__
    return (own.co_code, own.co_names, own.co_consts) == (other.co_code, other.co_names, other.co_consts)


def _smallest_params(suite: Any) -> list[tuple]:
    """Combine each value of the first parameter with the first values of the others that are not skipped."""
    first, *sizes = suite.params
    skipped = set(getattr(suite, "skip_params", ()))
    combinations = ([(value, *rest) for rest in itertools.product(*sizes)] for value in first)
    return [next(params for params in some if params not in skipped) for some in combinations]


def _run(instance: Suite, name: str, params: tuple) -> Outcome:
    start = default_timer()
    result = getattr(instance, name)(*params)
    value = result if name.startswith("track_") else default_timer() - start
    return Outcome(f"{type(instance).__name__}.{name}", params, value)
