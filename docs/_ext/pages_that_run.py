"""Run the Python of a page while Sphinx reads it, and show what each snippet prints and draws below it.

All snippets of a page run one after the other, in an empty folder, which the page calls /data. A picture needs a
description for readers who do not see it: the comment that ends its snippet, which the page shows to them only.
Snippets marked ``py`` instead of ``python`` are shown only.
"""

import contextlib
import io
import os
import re
import tempfile
import warnings
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

SNIPPET = re.compile(r"^```python\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


def run_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put outputs and pictures into the text of a page."""
    if not SNIPPET.search(source[0]):
        return
    pictures = Path(app.doctreedir) / "pictures"  # not among the sources, and not committed
    pictures.mkdir(parents=True, exist_ok=True)
    page = Path(app.env.doc2path(docname))
    names: dict[str, object] = {"__name__": "page"}

    def with_results(snippet: re.Match[str]) -> str:
        printed = _run(snippet[1], page, names).replace(folder, "/data")
        shown = snippet[0]
        text = f"```{{code-block}} text\n:class: output\n\n{printed.rstrip()}\n```\n" if printed.strip() else ""
        for number in plt.get_fignums():
            description = _description(snippet[1], page)
            shown = shown.replace(f"  # {description}\n```", "\n```")
            path = pictures / f"{docname.replace('/', '-')}-{snippet.start()}-{number}.png"
            plt.figure(number).savefig(path)
            text += f"\n![{description}]({os.path.relpath(path, page.parent)})\n"
        plt.close("all")
        return f"{shown}\n{text}"

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), mpl.rc_context({"savefig.dpi": 110}):
        source[0] = SNIPPET.sub(with_results, source[0])


def _run(code: str, page: Path, names: dict[str, object]) -> str:
    """Run a snippet; return what it prints, and the warnings that a reader would see."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            exec(compile(code, str(page), "exec"), names)
    except Exception as error:
        raise ExtensionError(f"{page}: this snippet does not run:\n{code}", orig_exc=error) from error
    told = {f"{w.category.__name__}: {w.message}" for w in caught if issubclass(w.category, UserWarning)}
    return "\n".join([*sorted(told), printed.getvalue()])


def _description(code: str, page: Path) -> str:
    last = code.rstrip().rpartition("\n")[2]
    if "  # " not in last:
        raise ExtensionError(f"{page}: a comment at the end should describe the picture of\n{code}")
    return last.rpartition("  # ")[2]


def name_folder(app: Sphinx, pagename: str, templatename: str, context: dict[str, str], doctree: object) -> None:
    """Call the empty folder of a notebook /data, too, and leave out the file that Jupyter makes of a cell."""
    if pagename.startswith("notebooks/"):
        temporary = re.escape(tempfile.gettempdir())
        body = re.sub(rf"{temporary}/tmp\w+", "/data", context["body"])
        context["body"] = re.sub(rf"{temporary}/ipykernel_\d+/\d+\.py:\d+: ", "", body)


def setup(app: Sphinx) -> dict[str, bool]:
    """Be called by Sphinx. Pages change the working directory: they are read one after the other."""
    plt.switch_backend("Agg")
    app.connect("source-read", run_page)
    app.connect("html-page-context", name_folder)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
