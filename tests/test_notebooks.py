"""The notebooks as text: their Python compiles, what they import is there, and no output is kept in them.

They run when the pages are built: ``python docs/build.py PAGES``, or ``pytest -n0 -m slow tests/test_docs.py``.
"""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = [path for path in sorted(FOLDER.glob("*.md")) if path.stem != "index"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_python_that_imports_what_there_is(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("---\nfile_format: mystnb\nkernelspec:\n")
    assert f"\n{path.stem}\n" in path.with_name("index.md").read_text(encoding="utf-8")
    assert "data:image" not in text
    cells = re.findall(r"^```\{code-cell\} ipython3\n(?::[^\n]*\n)*(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(cells) > 8
    for code in cells:
        for node in ast.walk(ast.parse(re.sub(r"^(?:!|%%).*\n", "\n", code, flags=re.MULTILINE))):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "imgstack_ml":
                module = import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), code
