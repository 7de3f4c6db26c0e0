"""Tables for pages of the documentation, and the machine on which figures were measured."""

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import date
from importlib.metadata import distributions, version
from pathlib import Path

import psutil

__all__ = ["PAGE", "machine_and_versions", "markdown_table", "replace_between_markers"]

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
PACKAGES = ("numpy", "scipy", "dask", "zarr", "scikit-learn", "pillow", "simplejpeg", "llvmlite")
OTHERS = ("dask-ml", "xeofs", "hyperspy", "fbpca", "faiss-cpu", "scikit-learn-intelex", "statsmodels")


def replace_between_markers(page: Path, name: str, text: str) -> None:
    """Replace the text between the lines ``<!-- name -->`` and ``<!-- end of name -->`` of a page."""
    old = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    if begin not in old or end not in old:
        raise SystemExit(f"{page} needs the lines {begin.strip()!r} and {end!r}; add them where the text goes")
    head, rest = old.split(begin, 1)
    page.write_text(f"{head}{begin}\n{text.strip()}\n\n{end}{rest.split(end, 1)[1]}", encoding="utf-8")


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine_and_versions() -> str:
    """Return a line with the date, cores, processor, memory and versions of packages, others where installed."""
    models = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    memory = psutil.virtual_memory().total / 2**30
    names = [*PACKAGES, *(name for name in OTHERS if any(distributions(name=name)))]
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"{date.today():%Y-%m-%d}, {len(os.sched_getaffinity(0))} cores of {model}, {memory:.0f} GiB, "
        f"Python {platform.python_version()}, {packages}"
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
