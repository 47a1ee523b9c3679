"""Sphinx's settings: `make site` builds the site from stored outputs, tables and docstrings."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import pages  # noqa: E402

import cvlib  # noqa: E402
from ci import chapters, terms  # noqa: E402

project = "cvlib"
author = "the cvlib authors"
copyright = f"2026, {author}"
version = release = cvlib.__version__

extensions = ["myst_nb"]
extensions += [f"sphinx.ext.{name}" for name in ("autodoc", "autosummary", "napoleon")]
extensions += ["sphinx.ext.githubpages"]  # Files that begin with _ are part of the site.
templates_path = ["_templates"]
exclude_patterns = ["results/records", "**/.ipynb_checkpoints"]

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

autosummary_ignore_module_all = False
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Call arguments", "params_style")]

html_theme = "furo"
html_title = f"cvlib {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False

# GitHub sets it where it builds; without it nobody knows where the chapters could be opened.
REPOSITORY = os.environ.get("GITHUB_REPOSITORY")
html_theme_options = {"top_of_page_buttons": []}
if REPOSITORY:
    source = {"name": "GitHub", "url": f"https://github.com/{REPOSITORY}", "html": "GitHub"}
    html_theme_options["footer_icons"] = [source | {"class": ""}]


def setup(app):
    app.connect("source-read", read_source)
    app.connect("autodoc-process-docstring", read_docstring, priority=400)  # before napoleon
    app.connect("build-finished", publish_notebooks)


def read_source(app, name, source):
    if name.startswith("course/"):
        source[0] = pages.page(source[0], Path(name).name, REPOSITORY)
    elif name == "terms":
        source[0] += pages.terms_table(terms.glossary(chapters()))


def read_docstring(app, what, name, thing, options, lines):
    lines[:] = pages.restructured(lines)


def publish_notebooks(app, error):
    """The chapters as Colab opens them, beside their pages."""
    if REPOSITORY and not error:
        for path in sorted((HERE / "course").glob("*.ipynb")):
            notebook = pages.stamped(path.read_text("utf-8"), REPOSITORY)
            (Path(app.outdir) / "course" / path.name).write_text(notebook, "utf-8")
