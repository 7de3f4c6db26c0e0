"""Sphinx's settings: ``sphinx-build -W docs docs/_build`` makes the pages, without a warning and without a network."""

import os
import re
import sys
from pathlib import Path

import imgstack_ml

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "imgstack_ml"
author = "the imgstack_ml developers"
version = release = imgstack_ml.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "numpydoc",
    "myst_nb",
    "pages_that_run",
]
exclude_patterns = ["_build", "_ext", "examples"]
root_doc = "index"
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "navbar_align": "left",
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": [],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {page: [] for page in ("index", "start", "gallery")}  # no neighbours to list
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_title = project
html_copy_source = False  # the source has no outputs and pictures
html_show_sphinx = False
html_show_copyright = False

# Links into the pages of other projects. Their lists of names are on the network. A list that cannot be fetched is a
# warning, which -W makes an error. Builds without a network should succeed, so that the lists are asked for only with
# ``sphinx-build -W -t online docs docs/_build``. Otherwise these names are plain text.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "numpy": ("https://numpy.org/doc/stable", None),
    "dask": ("https://docs.dask.org/en/stable", None),
    "sklearn": ("https://scikit-learn.org/stable", None),
    "skimage": ("https://scikit-image.org/docs/stable", None),
    "xarray": ("https://docs.xarray.dev/en/stable", None),
}
if not tags.has("online"):  # noqa: F821 - Sphinx defines it
    intersphinx_mapping = {}

# The notebooks run in an empty folder, with the packages of the environment that builds; not with
# ``-D nb_execution_mode=off``.
nb_execution_mode = "force"
os.environ.pop("MPLBACKEND", None)  # Agg, which tests set, would draw no picture into a notebook
nb_execution_in_temp = True
nb_execution_timeout = 300  # seconds a cell; on a busy machine
nb_execution_raise_on_error = True
nb_kernel_rgx_aliases = {".*": "python3"}
nb_merge_streams = True
suppress_warnings = ["myst-nb.lexer"]  # notebooks that are not run do not know their language
nb_output_stderr = "error"  # what is printed there is a warning that a reader would see, too; a cell may allow it

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autosummary_generate = True
toc_object_entries_show_parents = "hide"  # fit(), not ImagePCA.fit(): long names are cut off
autodoc_typehints = "none"  # the docstrings have them, with shapes
numpydoc_show_class_members = False  # listed by the template, without what scikit-learn's bases bring along
templates_path = ["_templates"]

# In the docstrings n_components_ and *image_shape_ are names; reST would take them for references and emphasis.
_NAMES = re.compile(r"(?<=\w)_(?!\w)|\*(?=\w+[),])")


def escape_names(app, what, name, obj, options, lines):
    """Escape names where they stand neither in backticks nor in code."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(`+[^`]*`+)", line)
            parts[::2] = [_NAMES.sub(r"\\\g<0>", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def setup(app):
    """Be called by Sphinx; after numpydoc, whose priority is 500 and which brings docstrings of properties in."""
    app.connect("autodoc-process-docstring", escape_names, priority=600)
