"""The house rules that a reader relies on: who imports whom, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import imgstack_ml

PACKAGE = Path(imgstack_ml.__file__).parent
FLOORS = [
    {"_errors"},
    {"_cluster", "_files", "_memory"},
    {"_progress", "_tensors", "_validation", "linalg"},
    {"_blas", "_blocks", "_checkpoint", "_transformer"},
    {"_passes"},
    {"io", "_learning"},
    {"datasets", "preprocessing", "features", "decomposition"},
    {"persistence", "inspection"},
    {"report"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    """Name of the module or subpackage right below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_imported(path):
    package = [PACKAGE.name, *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module or "").split(".")] if node.module else base
            names = [[*module, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == PACKAGE.name and len(name) > 1 and name[1] != "__version__":
                yield name[1] if name[1] in FLOOR_OF else "__init__"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_only_from_floors_below(path):
    own = room(path)
    assert own in FLOOR_OF, f"{own} has no floor yet: give it one"
    for other in set(rooms_imported(path)) - {own}:
        if own == "cli" and other == "__init__":
            continue  # the command line is a user: public names only
        assert FLOOR_OF[other] < FLOOR_OF[own], f"{own} must not import {other}"


def test_no_pickle_anywhere():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not {"pickle", "joblib", "cloudpickle", "shelve"} & set(names), path


def modules_after(statement):
    code = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_is_cheap():
    loaded = modules_after("import imgstack_ml")
    heavy = {"numpy", "scipy", "dask", "sklearn", "skimage", "matplotlib", "pandas", "dask_ml", "distributed", "zarr"}
    assert not heavy & {name.split(".")[0] for name in loaded}
    assert len(loaded) < 80


def test_importing_the_estimators_leaves_heavy_guests_out():
    loaded = {name.split(".")[0] for name in modules_after("from imgstack_ml import ImagePCA, open_stack")}
    assert "sklearn" in loaded
    assert not {"matplotlib", "dask_ml", "distributed", "skimage"} & loaded


def test_every_public_name_can_be_imported():
    for name in imgstack_ml.__all__:
        assert getattr(imgstack_ml, name).__doc__
