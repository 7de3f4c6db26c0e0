"""Sphinx's settings: ``sphinx-build -W docs docs/_build`` makes the pages, without a warning."""

import re

import imgstack_ml

project = "imgstack_ml"
author = "the imgstack_ml developers"
version = release = imgstack_ml.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_nb"]
exclude_patterns = ["_build"]
root_doc = "index"
html_theme = "alabaster"
html_theme_options = {"description": "Image collections that do not fit in memory", "page_width": "68rem"}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
html_show_sphinx = False
html_show_copyright = False

# The notebooks run in an empty folder, with the packages of the environment that builds; not with
# ``-D nb_execution_mode=off``.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 300  # seconds a cell; on a busy machine
nb_execution_raise_on_error = True
nb_kernel_rgx_aliases = {".*": "python3"}
nb_merge_streams = True
nb_output_stderr = "error"  # what is printed there is a warning that a reader would see, too; a cell may allow it

myst_heading_anchors = 3
autosummary_generate = True
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
