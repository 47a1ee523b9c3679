"""Small notebooks with and without faults, for the tests of the checks."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

PARAMETERS = 'preset = "quick"\ndata = "scenes"\nseed = 3'


def stored(source, text=None, **kwargs):
    """A code cell that has been run and printed `text`."""
    outputs = [new_output("stream", name="stdout", text=text)] if text else []
    return new_code_cell(source, outputs=outputs, execution_count=1, **kwargs)


def chapter(*cells, parameters=PARAMETERS):
    """A notebook without faults but for `cells`; texts become Markdown cells."""
    cells = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    return new_notebook(cells=[stored(parameters, metadata={"tags": ["parameters"]}), *cells])


def write_chapter(folder, *cells):
    """Write `chapter(*cells)` to 03_pose.ipynb in `folder`; returns its path."""
    nbformat.write(chapter(*cells), folder / "03_pose.ipynb")
    return folder / "03_pose.ipynb"
