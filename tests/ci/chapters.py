"""Small notebooks with and without faults, for the tests of the checks."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from benchmarks.freshness import cells_hash

COMMAND = "python -m benchmarks.run 03 --preset full --data scenes --seed 3"
PARAMETERS = 'preset = "quick"\ndata = "scenes"\nseed = 3'


def stored(source, text=None, **kwargs):
    """A code cell that has been run and printed `text`."""
    outputs = [new_output("stream", name="stdout", text=text)] if text else []
    return new_code_cell(source, outputs=outputs, execution_count=1, **kwargs)


def chapter(*cells, parameters=PARAMETERS):
    """A notebook without faults but for `cells`; texts become Markdown cells."""
    cells = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    return new_notebook(cells=[stored(parameters, metadata={"tags": ["parameters"]}), *cells])


def write_chapter(folder, *cells, name="03_pose.ipynb", **made_by):
    """Write `chapter(*cells)` to `name` in `folder`, with outputs of a run; returns its path."""
    book = chapter(*cells)
    nbformat.write(book, folder / name)
    made_by = {"preset": "full", "commit": "abc", "cells": cells_hash(folder / name)} | made_by
    book.metadata["cvlib"] = made_by
    nbformat.write(book, folder / name)
    return folder / name
