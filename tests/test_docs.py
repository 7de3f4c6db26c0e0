"""What the pages say can be typed: their Python runs, links lead somewhere, and Sphinx has nothing to complain of."""

import importlib.util
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import dask
import distributed
import pytest
from matplotlib import pyplot

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if not {"_build", "_api"} & set(path.parts))
# The page about clusters is a program, since it starts processes.
NEEDED = {"interoperability": ["xarray", "pandas", "polars"]}


def blocks(page, language="python"):
    """Snippets that run, one after the other; those marked ``py`` are only shown."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


ALWAYS = {"start", "guide/open", "interoperability"}  # the build of the pages runs all
RUN = [
    pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.slow])
    for name in (path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES if blocks(path))
]


@pytest.mark.parametrize("name", RUN)
@pytest.mark.filterwarnings("ignore:.* left out:UserWarning")  # a page shows that warning
def test_the_python_of_a_page_runs(name, tmp_path, monkeypatch):
    for package in NEEDED.get(name, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in blocks(DOCS / f"{name}.md"):
        exec(compile(block, f"{name}.md", "exec"), names)
    pyplot.close("all")
    if name == "interoperability":
        images, eigenimages = names["images"], names["red"]
        assert images[1:] == ({"name": "cells", "rgb": True}, "image")
        assert not isinstance(images[0], type(eigenimages))  # still lazy
        assert names["first"].dims == ("y", "x", "channel")
        assert names["table"].shape == (24, 12)
        assert names["scores"].shape == (24, 3)


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_program_on_the_cluster_page_runs(processes, tmp_path, monkeypatch, capsys):
    program = blocks(DOCS / "guide" / "deploy.md", "py")[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(distributed, "LocalCluster", partial(distributed.LocalCluster, processes=processes))
    with dask.config.set({"distributed.worker.daemon": False}):  # as in conftest
        exec(compile(program, "deploy.md", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr()
    address, shape = printed.out.split(" ", 1)
    n_images = len(list((tmp_path / "photos").rglob("*.*")))
    assert (address[:7], shape.strip()) == ("http://", f"({n_images}, 5)")
    assert "read 1: " in printed.err


def test_napari_takes_the_layers(tmp_path, monkeypatch):
    """As it is, without a window; too large a package for the extra of the tests."""
    layers = pytest.importorskip("napari.layers")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in blocks(DOCS / "interoperability.md"):
        exec(compile(block, "interoperability.md", "exec"), names)
        if "contrast_limits" in block:
            break
    images, eigenimages = (layers.Layer.create(*names[name]) for name in ("images", "eigenimages"))
    assert images.rgb
    assert dask.is_dask_collection(images.data)
    assert not eigenimages.rgb


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_snippets_compile(page):
    for block in blocks(page, "py(?:thon)?"):
        compile(block, str(page), "exec")


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("sphinx", "numpydoc", "myst_nb", "pydata_sphinx_theme")),
    reason="needs pip install '.[docs]'",
)
def test_sphinx_builds_the_pages_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=1800)  # runs pages and notebooks
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "_api" / "imgstack_ml.ImagePCA.html").exists()


def test_tests_and_files_that_pages_name_are_there():
    pages = [*PAGES, *map(DOCS.parent.joinpath, ("README.md", "CONTRIBUTING.md", "benchmarks/README.md"))]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    root = DOCS.parent
    sources = "".join(path.read_text(encoding="utf-8") for path in (root / "tests").rglob("test_*.py"))
    for name in set(re.findall(r"`(test_\w+)", text)):
        assert f"def {name}" in sources, name


def test_files_and_names_that_pages_give_are_there():
    """`file.py` and `file.py: name`; the page about the design names files of the package from its folder on."""
    root = DOCS.parent
    known = [
        path for folder in ("imgstack_ml", "tests", "docs", "benchmarks") for path in (root / folder).rglob("*.py*")
    ]
    for page in [*PAGES, *map(root.joinpath, ("README.md", "CONTRIBUTING.md", "benchmarks/README.md"))]:
        for file, name in re.findall(r"`([\w./]*\w\.pyi?)(?:: ([\w.]+))?`", page.read_text(encoding="utf-8")):
            found = [path for path in known if path.as_posix().endswith(f"/{file}")]
            assert found or "/" not in file or "NAME" in file, f"{page.name}: {file}"
            word = re.compile(rf"\b{name.rpartition('.')[2]}\b")
            assert not name or any(word.search(path.read_text(encoding="utf-8")) for path in found), f"{file}: {name}"
