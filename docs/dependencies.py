"""Print the figures of docs/dependencies.md, of what is installed: ``python docs/dependencies.py``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOR_DEVELOPERS = {"test", "bench", "peers", "dev", "docs"}


def name_of(requirement: str) -> str:
    """Return the normalised name of a requirement, such as ``"dask"`` of ``"dask[array]>=2025.5"``."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def dependencies() -> dict[str, list[str]]:
    """Return the names that each extra of users brings; those that are always installed under ``"always"``."""
    extras = {key: names for key, names in PROJECT["optional-dependencies"].items() if key not in FOR_DEVELOPERS}
    return {key: list(map(name_of, names)) for key, names in {"always": PROJECT["dependencies"], **extras}.items()}


def megabytes(found: Distribution) -> float:
    """Return the size of the installed files, without the byte code that Python makes of them."""
    files = (Path(str(file.locate())) for file in found.files or () if file.suffix != ".pyc")
    return sum(file.stat().st_size for file in files if file.exists()) / 1e6


def brought(name: str) -> set[str]:
    """Return what is installed because of a package: itself, what it requires, what that requires, and so on."""
    names, waiting = set(), [name]
    while waiting:
        name = waiting.pop()
        if name not in names:
            try:
                required = distribution(name).requires or []
            except PackageNotFoundError:  # required on other systems
                continue
            names.add(name)
            waiting += [name_of(text) for text in required if "extra ==" not in text]
    return names


def licence(found: Distribution) -> str:
    """Return the licence that the package declares."""
    said = found.metadata
    of_class = [text.rpartition(" :: ")[2] for text in said.get_all("Classifier", []) if text.startswith("License")]
    return str(
        said.get("License-Expression") or ", ".join(of_class) or (said.get("License") or "not declared").split("\n")[0]
    )


def memory_of(imports: str, *without: str) -> int:
    """Return the megabytes of a process that imports modules, where some of what these import cannot be."""
    hidden = f"import sys; sys.modules.update(dict.fromkeys({without!r}))"
    code = f"{hidden}; import {imports}; import psutil; print(psutil.Process().memory_info().rss)"
    return round(int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) / 1e6)


def measure() -> dict[str, Any]:
    """Return sizes and licences of each package, by extra, and the memory that imports take."""
    always, packages = dependencies()["always"], {}
    for names in dependencies().values():
        for name in names:
            others = set().union(*(brought(other) for other in {*always, *names} - {name}))
            alone = sum(megabytes(distribution(one)) for one in brought(name) - others)
            found = distribution(name)
            packages[name] = [found.version, round(megabytes(found), 1), round(alone, 1), licence(found)]
    installed = set().union(*map(brought, always))
    both, guests = "dask.array, sklearn.decomposition", {"pandas": ["pandas"], "numba and sparse": ["numba", "sparse"]}
    memory = {"both": memory_of(both)}
    memory |= {name: memory["both"] - memory_of(both, *hidden) for name, hidden in guests.items()}
    return {
        "packages": packages,
        "always": {"packages": len(installed), "MB": round(sum(megabytes(distribution(name)) for name in installed))},
        "memory": memory,
    }


def main() -> None:
    """Print the figures, or store them beside the page with ``--docs``. The page is then to be changed by hand."""
    text = json.dumps(measure(), indent=1)
    text = re.sub(r"\[\s+([^\]]*?)\s+\]", lambda row: f"[{' '.join(row[1].split())}]", text)  # a package a line
    print(text)
    if "--docs" in sys.argv:
        Path(__file__).with_suffix(".json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
