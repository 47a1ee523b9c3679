import json

import pytest
from pages import page, restructured, stamped

from ci import chapters


def notebook(*cells):
    made = [{"cell_type": "code", "metadata": {}, "source": [], **cell} for cell in cells]
    return json.dumps({"cells": made})


def shown(*cells, **options):
    return json.loads(page(notebook(*cells), "01_tasks", **options))["cells"]


@pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)
def test_every_chapter_installs_from_where_it_is_published(path):
    book = stamped(path.read_text("utf-8"), "someone/vision")
    assert "OWNER" not in book
    (cell,) = (c for c in json.loads(book)["cells"] if "google.colab" in "".join(c["source"]))
    assert "https://github.com/someone/vision" in "".join(cell["source"])
    assert "%cd cvlib" not in book


def test_the_badge_stands_below_the_title_where_the_repository_is_known():
    title = {"cell_type": "markdown", "source": ["# Tasks\n", "\n", "Words."]}
    (cell,) = shown(title, repository="someone/vision")
    assert cell["source"].startswith("# Tasks\n\n[![Open in Colab]")
    assert "/github/someone/vision/blob/gh-pages/course/01_tasks.ipynb" in cell["source"]
    assert cell["source"].endswith("\n\nWords.")
    assert "".join(shown(title)[0]["source"]) == "# Tasks\n\nWords."


def test_set_up_is_folded_or_left_out():
    hidden = {"metadata": {"jupyter": {"source_hidden": True}}, "source": ["import keras"]}
    colab = {"source": ['if "google.colab" in sys.modules:\n', "    %pip install x"]}
    taught = {"source": ["# NBVAL_CHECK_OUTPUT\n", "print(1)"]}
    folded, removed, plain = shown(hidden, colab, taught)
    assert folded["metadata"]["tags"] == ["hide-input"]
    assert removed["metadata"]["tags"] == ["remove-cell"]
    assert plain["metadata"]["tags"] == [] and "".join(plain["source"]) == "print(1)"


@pytest.mark.parametrize(
    "markdown, expected",
    [
        ("many `box`es", r"many ``box``\ es"),
        ("`{'a': 1,\n    'b': 2}`, both", "``{'a': 1, 'b': 2}``, both"),
        ("x, **kwargs: as of Keras", r"x, \*\*kwargs: as of Keras"),
        ("So:\n\n    f(x)\n\nThen.", "So:\n\n::\n\n    f(x)\n\nThen."),
        ("Args:\n    x: a number.", "Args:\n    x: a number."),
        (
            "  | a | b |\n  |---|---|\n  | 1 | 2 |\n",
            "  .. list-table::\n     :header-rows: 1\n  \n"
            "     * - a\n       - b\n     * - 1\n       - 2\n",
        ),
    ],
)
def test_docstrings_become_what_sphinx_reads(markdown, expected):
    assert "\n".join(restructured(markdown.split("\n"))).strip("\n") == expected.strip("\n")
