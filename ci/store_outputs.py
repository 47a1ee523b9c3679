"""Runs chapters with the `quick` preset and stores their outputs in the notebooks themselves.

    python -m ci.store_outputs course/02_localization.ipynb ...

Data and seed are those of the notebook's `parameters` cell. A chapter that fails is left as it was.
The run itself, with its records, stays in `build/stored/`.
"""

import sys
from pathlib import Path

import nbformat

from benchmarks.freshness import ROOT, source_hash
from benchmarks.run import run
from ci.check_notebooks import parameters
from cvlib.records import write_atomically


def store_outputs(path, out=ROOT / "build" / "stored"):
    """Run the notebook at `path` and store its outputs and the hash of the source in it.

    Args:
        path: the .ipynb file.
        out: folder that gets the run's folder, see `benchmarks.run.run`.

    Raises:
        ValueError: a cell fails, or the notebook was edited while it ran.
    """
    path = Path(path)
    before, digest = path.read_text("utf-8"), source_hash(path)
    values = parameters(nbformat.reads(before, as_version=4)) | {"preset": "quick"}
    executed = nbformat.read(run(path, **values, out=out) / path.name, as_version=4)
    if path.read_text("utf-8") != before:
        raise ValueError(f"{path}: the notebook was edited while it ran; nothing is stored.")
    notebook = tidy(executed)
    notebook.metadata["cvlib"] = {"preset": "quick", "source_hash": digest}
    write_atomically(path, nbformat.writes(notebook) + "\n")


def tidy(notebook):
    """`notebook` without injected cells, and without what differs from run to run."""
    injected = "injected-parameters"
    notebook.cells = [c for c in notebook.cells if injected not in c.metadata.get("tags", [])]
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        cell.execution_count = count
        # Logs of the backends, with times and the machine's drivers.
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": kernel, "language_info": {"name": "python"}}
    )
    return notebook


def main():
    if not sys.argv[1:]:
        sys.exit("usage: python -m ci.store_outputs NOTEBOOK...")
    for path in sys.argv[1:]:
        try:
            store_outputs(path)
        except (OSError, ValueError) as error:
            sys.exit(str(error))
        print(f"{path}: outputs stored.")


if __name__ == "__main__":
    main()
