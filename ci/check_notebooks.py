"""Checks what every chapter promises: `python -m ci.check_notebooks` prints each fault, exits 1."""

import ast
import json
import re
import subprocess
import sys

import nbformat

from benchmarks.freshness import cells_hash
from benchmarks.run import command
from ci import ROOT, TABLES, chapters, texts
from ci.prose import bare_numbers, embed_tables, stored_papers, stored_records, wrong_numbers
from ci.terms import glossary, key_terms, two_translations

PARAMETERS = {"preset", "data", "seed"}
PICTURES_BYTES = 1_500_000
OUTPUT_BYTES = 500_000
REPOSITORY_BYTES = 40_000_000

_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/>])/(?:[\w.-]+/)+[\w.-]+")


def parameters(notebook):
    """Names and values that the one cell tagged `parameters` sets.

    Raises:
        ValueError: there is not one such cell, or it holds more than `name = constant`.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{len(cells)} cells are tagged `parameters`, not one.")
    try:
        return {
            statement.targets[0].id: ast.literal_eval(statement.value)
            for statement in ast.parse(cells[0].source).body
        }
    except (AttributeError, SyntaxError, ValueError):
        message = "The parameters cell holds something else than `name = constant`."
        raise ValueError(message) from None


def check_parameters(notebook):
    """Faults of the parameters: not exactly `PARAMETERS`, or not `quick`, for who opens it."""
    try:
        values = parameters(notebook)
    except ValueError as error:
        yield str(error)
        return
    if values.keys() != PARAMETERS:
        yield f"The parameters are {', '.join(values)}, not {', '.join(sorted(PARAMETERS))}."
    elif values["preset"] != "quick":
        yield f"The preset is {values['preset']!r}, not 'quick', which takes a minute."


def check_outputs(notebook):
    """Faults of the stored outputs: missing, errors, too large, or naming a path of a machine."""
    code = [(n, cell) for n, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    # nbval compares nothing in a cell without a count.
    unrun = [str(n) for n, cell in code if cell.execution_count is None and cell.source.strip()]
    if unrun:
        yield f"These cells have not been run: {', '.join(unrun)}."
    for number, cell in code:
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"Cell {number} stores the error {output.ename}."
            if (size := len(json.dumps(output))) > OUTPUT_BYTES:
                yield f"Cell {number} stores an output of {size} bytes, over {OUTPUT_BYTES}."
            data = output.get("data", {})
            texts = [output.get("text", ""), *(data[key] for key in data if key[:5] == "text/")]
            if path := _ABSOLUTE_PATH.search("\n".join(texts)):
                yield f"Cell {number} stores the path {path[0]} of one machine."


def check_pictures(notebook):
    """Faults of the size of the pictures, stored or attached."""
    bundles = [o.get("data", {}) for c in notebook.cells for o in c.get("outputs", [])]
    bundles += [b for cell in notebook.cells for b in cell.get("attachments", {}).values()]
    pictures = [(k, data) for bundle in bundles for k, data in bundle.items() if k[:6] == "image/"]
    # All but SVG are in base64, four letters for three bytes.
    size = sum(len(data) if "svg" in kind else len(data) * 3 // 4 for kind, data in pictures)
    if size > PICTURES_BYTES:
        yield f"The pictures have {size} bytes, over {PICTURES_BYTES}."


def check_freshness(notebook, path, records):
    """Faults where the stored outputs are not those of the cells and of the run recorded."""
    stored = {"preset": None, "commit": None, "cells": None} | notebook.metadata.get("cvlib", {})
    repair = "run it with `full`, and `python -m ci.store_outputs` its folder"
    try:
        cells = cells_hash(path)
    except ValueError as error:
        yield str(error)
        return
    if stored["cells"] != cells:
        yield f"The code cells are not those whose outputs are stored; {repair}."
    elif stored["preset"] != "full":
        yield f"The stored outputs are of the preset {stored['preset']!r}; {repair}."
    else:
        values = parameters(notebook) | {"preset": "full"}
        repeat = command(path, **values)
        commits = {}  # of each machine that has made the run
        for record in records:
            if record["command"] == repeat:
                commits.setdefault(record["device"], set()).add(record["commit"])
        if commits and {stored["commit"]} not in commits.values():
            named = ", ".join(sorted(set.union(*commits.values())))
            yield f"The run's records are of commit {named}, the outputs of {stored['commit']}."


def check_prose(text, records, papers, tables):
    """Faults of the numbers and tables in `text`, see `ci/README.md`."""
    yield from wrong_numbers(text, records, papers)
    yield from bare_numbers(text)
    try:
        if embed_tables(text, tables) != text:
            yield "An embedded table is old; run `python -m ci.embed_tables`."
    except ValueError as error:
        yield str(error)


def check_notebook(path, records, papers, tables):
    """All faults of the chapter at `path`."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception:  # Of many kinds: whatever nbformat meets first.
        yield "The file is not a notebook."
        return
    if faults := list(check_parameters(notebook)):
        yield from faults
    else:
        yield from check_freshness(notebook, path, records)
    yield from check_outputs(notebook)
    yield from check_pictures(notebook)
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    yield from check_prose(prose, records, papers, tables)
    try:
        key_terms(prose)
    except ValueError as error:
        yield str(error)


def check_repository(root):
    """Faults of the size of all files that git tracks or would track under `root`."""
    listing = ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\0")
    paths = {root / name for name in names if name}
    size = sum(path.stat().st_size for path in paths if path.is_file())
    if size > REPOSITORY_BYTES:
        yield f"The repository has {size} bytes, over {REPOSITORY_BYTES}."


def main():
    sources = stored_records(), stored_papers(), TABLES
    faults = [
        f"{path.name}: {fault}" for path in chapters() for fault in check_notebook(path, *sources)
    ]
    if not faults:
        faults += two_translations(glossary(chapters()))
    for path in texts():
        prose = path.read_text("utf-8")
        faults += [f"{path.relative_to(ROOT)}: {fault}" for fault in check_prose(prose, *sources)]
    # A downloaded archive is not a git checkout.
    if (ROOT / ".git").exists():
        faults += check_repository(ROOT)
    print(*faults, f"{len(chapters())} chapters checked, {len(faults)} faults.", sep="\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
