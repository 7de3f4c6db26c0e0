"""Print the sizes and licences in docs/dependencies.md, of what is installed: ``python docs/dependencies.py``."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

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
        said["License-Expression"] or ", ".join(of_class) or (said.get("License") or "not declared").split("\n")[0]
    )


def main() -> None:
    """Print a row for each package: extra, name, version, size, size of what nothing else brings, and licence."""
    always = dependencies()["always"]
    for extra, names in dependencies().items():
        for name in names:
            try:
                found = distribution(name)
            except PackageNotFoundError:
                print(f"| {extra} | {name} | not installed |")
                continue
            others = set().union(*(brought(other) for other in {*always, *names} - {name}))
            alone = sum(megabytes(distribution(one)) for one in brought(name) - others)
            print(f"| {extra} | {name} {found.version} | {megabytes(found):.1f} | {alone:.1f} | {licence(found)} |")
    installed = set().union(*map(brought, always))
    print(f"always installed, with all that they require: {len(installed)} packages, ", end="")
    print(f"{sum(megabytes(distribution(name)) for name in installed):.0f} MB")


if __name__ == "__main__":
    main()
