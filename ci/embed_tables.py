"""Copies rows of the derived tables into the prose: `python -m ci.embed_tables`.

It fills the table blocks, described in `ci/README.md`, of README.md, of `results/*.md` and of the
chapters' Markdown cells.
"""

import nbformat

from ci import TABLES, chapters, texts
from ci.prose import embed_tables
from cvlib.records import write_atomically


def main():
    for path in texts():
        write_atomically(path, embed_tables(path.read_text("utf-8"), TABLES))
    for path in chapters():
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = embed_tables(cell.source, TABLES)
        write_atomically(path, nbformat.writes(notebook) + "\n")


if __name__ == "__main__":
    main()
