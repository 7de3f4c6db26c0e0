"""The house rules that a reader relies on: who imports whom, how large things grow, and what an import costs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import imgstack_ml

PACKAGE = Path(imgstack_ml.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# A room is a folder, or a module at the root. Each imports from the floors below its own, and from nothing beside it.
FLOORS = [
    {"errors"},
    {"files", "linalg"},
    {"base"},
    {"passes"},
    {"io.locations"},
    {"io.formats"},
    {"io"},
    {"io.write"},
    {"datasets", "preprocessing", "features", "decomposition"},
    {"persistence", "inspection"},
    {"report"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FACADES = {"io"}  # rooms whose __init__ shows names of the rooms within

MODULE_LINES, CLASS_LINES, FUNCTION_LINES = 450, 250, 60
# Larger than that, and why.
EXCEPTIONS: dict[str, str] = {}


def name_of(path):
    """Dotted name of a module below the package, such as ``io.stack``; a package's own is that of its folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


NAMES = {name_of(path): path for path in MODULES}


def room_of(name):
    """Room in which a module lies: the longest name of a floor that its own begins with."""
    parts = name.split(".")
    rooms = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((room for room in rooms if room in FLOOR_OF), "__init__")


def modules_imported(path):
    """Modules of the package that a module imports: at its top, late, or named in a string such as "package:name"."""
    package = list(path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found = []
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1] if node.level <= len(package) + 1 else []
            elif (node.module or "").split(".")[0] == PACKAGE.name:
                base = []
            else:
                continue
            module = (node.module or "").split(".") if node.module else []
            module = module if node.level else module[1:]
            found = [[*base, *module, alias.name] for alias in node.names if alias.name != "__version__"]
        elif isinstance(node, ast.Import):
            found = [alias.name.split(".")[1:] for alias in node.names if alias.name.split(".")[0] == PACKAGE.name]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if not re.fullmatch(rf"{PACKAGE.name}(\.\w+)+(:\w+)?", node.value):
                continue
            parts = node.value.partition(":")[0].split(".")[1:]
            found = [parts] if parts[0] in NAMES else []  # or the name of a group of entry points
        for parts in found:
            while parts and ".".join(parts) not in NAMES:
                parts = parts[:-1]
            yield ".".join(parts) or "__init__"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_only_from_floors_below(path):
    own, room = name_of(path), room_of(name_of(path))
    assert room in FLOOR_OF, f"{room} has no floor yet: give it one"
    for other in set(modules_imported(path)):
        there = room_of(other)
        if there == room or (own in FACADES and there.startswith(f"{own}.")):
            continue
        if room == "cli" and other == "__init__":
            continue  # the command line is a user: public names only
        assert FLOOR_OF[there] < FLOOR_OF[room], f"{own} must not import {other}"


def test_no_circles_of_modules():
    imports = {name: set(modules_imported(path)) - {name, "__init__"} for name, path in NAMES.items()}
    imports = {name: found for name, found in imports.items() if name != "__init__"}
    while free := [name for name, found in imports.items() if not found & imports.keys()]:
        for name in free:
            del imports[name]
    assert not imports, f"these import each other in a circle: {sorted(imports)}"


def test_no_private_modules_at_the_root():
    assert [path.name for path in PACKAGE.glob("_*.py") if not path.name.startswith("__")] == []


def lines_without_docstrings(node):
    lines = node.end_lineno - node.lineno + 1
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(inner):
            lines -= inner.body[0].end_lineno - inner.body[0].lineno + 1
    return lines


def too_large():
    for name, path in NAMES.items():
        source = path.read_text(encoding="utf-8")
        if source.count("\n") > MODULE_LINES:
            yield name
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef) and lines_without_docstrings(node) > CLASS_LINES:
                yield f"{name}:{node.name}"
            if isinstance(node, ast.FunctionDef) and lines_without_docstrings(node) > FUNCTION_LINES:
                yield f"{name}:{node.name}"


def test_sizes():
    assert sorted(too_large()) == sorted(EXCEPTIONS)


def test_no_pickle_anywhere():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not {"pickle", "joblib", "cloudpickle", "shelve"} & set(names), path


def modules_after(*statements):
    """Names of the modules that are imported after each of some statements."""
    lines = "; ".join(f"{statement}; print(*sorted(set(sys.modules) - before))" for statement in statements)
    code = f"import sys; before = set(sys.modules); {lines}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def test_importing_the_package_is_cheap():
    (loaded,) = modules_after("import imgstack_ml")
    assert {name.split(".")[0] for name in loaded} - sys.stdlib_module_names == {"imgstack_ml", "lazy_loader"}
    assert len(loaded) < 80


def test_heavy_guests_are_left_out():
    """Distributed takes 15 MB, and Dask imports it to look for a client."""
    imported, worked = modules_after(
        "from imgstack_ml import ImagePCA, ScreeDisplay, generate_report, open_stack",
        "import dask.array as da, numpy as np, tempfile; from imgstack_ml import StackCenterer, save_stack;"
        "X = np.arange(7200.0).reshape(20, 18, 20) % 255; lazy = da.from_array(X, chunks=(5, 18, 20));"
        "[ImagePCA(2).fit(StackCenterer().fit_transform(stack)) for stack in (X, lazy)];"
        "save_stack(lazy, tempfile.mkdtemp() + '/stack.zarr')",
    )
    assert "sklearn" in imported
    assert not {"matplotlib", "dask_ml", "distributed", "skimage"} & {name.split(".")[0] for name in imported}
    assert "imgstack_ml.decomposition.solvers" in worked
    assert "distributed" not in worked


_MEMORY_OF_FITS = """
import re
import dask.array, sklearn.decomposition, numpy as np
def memory():
    return int(re.search(r"Anonymous:\\s+(\\d+)", open("/proc/self/smaps_rollup").read())[1]) / 1024
images = [np.random.default_rng(0).integers(0, 256, (n, 96, 96), dtype=np.uint8) for n in (100, 500)]
before = memory()
from imgstack_ml import ImagePCA
for few in images:
    ImagePCA(5).fit(few)
print(memory() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_takes_little_more_memory_for_fits_in_memory():
    """Kernels for products of bytes included, which the second fit has."""
    done = subprocess.run([sys.executable, "-c", _MEMORY_OF_FITS], capture_output=True, text=True)
    assert float(done.stdout) < 25, done.stderr


def test_every_public_name_can_be_imported():
    for name in imgstack_ml.__all__:
        assert getattr(imgstack_ml, name).__doc__
