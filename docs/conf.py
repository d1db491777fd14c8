"""The site: ``make docs``.

Sphinx builds it, since the docstrings hold reStructuredText formulas, which Sphinx renders, and
MyST-NB runs the notebooks of ``examples/`` in the same build. Warnings are errors.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import sparse_lightning

HERE = Path(__file__).parent

project = "sparse_lightning"
author = copyright = "the sparse_lightning developers"
release = version = sparse_lightning.__version__
html_title = f"sparse_lightning {release}"

extensions = [
    "myst_nb",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "make_*.py", "conf.py"]

# Pages are Markdown.
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

# Notebooks are scripts in the percent format. They are run where a build is made.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = os.environ.get("DOCS_NOTEBOOKS", "cache")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
# Warnings of other libraries name files of the machine that builds.
nb_output_stderr = "remove"

# The reference follows from the docstrings.
apidoc_modules = [
    {
        "path": "../sparse_lightning",
        "destination": "api",
        "exclude_patterns": ["../sparse_lightning/figures", "../sparse_lightning/paper"],
        "separate_modules": True,
        "max_depth": 3,  # modules, without what is in them
        "module_first": True,
        "automodule_options": {"members", "show-inheritance"},
    }
]
default_role = "py:obj"
autodoc_mock_imports = ["wandb_workspaces", "trackio"]
# A name has one place, that of its module, and Lightning's docstrings stay with Lightning.
autodoc_default_options = {"ignore-module-all": True}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "separated"
napoleon_use_ivar = True
add_module_names = False

html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]


def bring_notebooks(app: object) -> None:
    """Copy ``examples/`` beside the pages, since Sphinx reads one folder."""
    target = HERE / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in sorted((HERE.parent / "examples").glob("*.py")):
        shutil.copy2(path, target)


def setup(app: object) -> None:
    bring_notebooks(app)
