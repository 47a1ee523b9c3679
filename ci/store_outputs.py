"""Stores in a chapter the outputs of a run, and the run's records in `results/records/`.

    python -m benchmarks.run 02 --preset full
    python -m ci.store_outputs build/run/02_localization-full-scenes-0-...

The outputs are thus those of the run that made the records. The chapter's prose stays as it is.
"""

import base64
import io
import json
import sys
from pathlib import Path

import nbformat
from PIL import Image

from benchmarks.freshness import ROOT, cells_hash
from benchmarks.run import COURSE
from ci.check_notebooks import OUTPUT_BYTES, parameters
from cvlib.records import write_atomically

RECORDS = ROOT / "results" / "records"


def store_outputs(folder, course=COURSE, records=RECORDS):
    """Store the outputs of the run in `folder` in its chapter, and its records in `records`.

    Args:
        folder: what `benchmarks.run.run` made.
        course: folder of the chapters.
        records: folder that gets the run's records.

    Returns:
        Path of the chapter.

    Raises:
        ValueError: the folder holds no run, the run is not one that is stored, its code was not
            that of a commit, or the chapter's cells have changed since.
    """
    try:
        (path,) = Path(folder).glob("*.ipynb")
        executed = nbformat.read(path, as_version=4)
        ran = executed.metadata["cvlib"]
    except (KeyError, ValueError):
        raise ValueError(f"{folder}: the folder holds no finished run.") from None
    chapter = Path(course) / path.name
    notebook = nbformat.read(chapter, as_version=4)
    values = parameters(notebook)
    if ran["preset"] != "full":
        raise ValueError(f"{folder}: the run's preset is {ran['preset']!r}, not 'full'.")
    for name in ("data", "seed"):
        if ran[name] != values[name]:
            raise ValueError(f"{folder}: the run's {name} is {ran[name]!r}, not {values[name]!r}.")
    if ran["dirty"] is not False:
        raise ValueError(f"{folder}: the run's code was that of no commit; commit, and run again.")
    if ran["cells"] != cells_hash(chapter):
        raise ValueError(f"{folder}: the code cells of {chapter} are not those that ran.")
    injected = "injected-parameters"
    done = [c for c in executed.cells if c.cell_type == "code"]
    done = [c for c in done if injected not in c.metadata.get("tags", [])]
    mine = [c for c in notebook.cells if c.cell_type == "code"]
    for cell, twin in zip(mine, done, strict=True):
        cell.outputs = twin.outputs
    tidy(notebook)
    notebook.metadata["cvlib"] = {key: ran[key] for key in ("preset", "commit", "cells")}
    write_atomically(chapter, nbformat.writes(notebook) + "\n")
    for path in Path(folder, "records").glob("*.json"):
        write_atomically(Path(records) / path.name, path.read_text("utf-8"))
    return chapter


def tidy(notebook):
    """Leave out of `notebook` what differs from run to run or from machine to machine."""
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in ("tags", "jupyter") if key in cell.metadata}
        cell.metadata = nbformat.from_dict(kept)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        cell.execution_count = count
        # Logs of the backends, with times and the machine's drivers.
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
            if "image/jpeg" in output.get("data", {}):
                _shrink(output)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": kernel, "language_info": {"name": "python"}}
    )


def _shrink(output):
    """Stores a JPEG that is larger than an output may be with less quality."""
    image = Image.open(io.BytesIO(base64.b64decode(output.data["image/jpeg"])))
    for quality in range(75, 35, -5):
        if len(json.dumps(output)) <= OUTPUT_BYTES:
            break
        smaller = io.BytesIO()
        image.save(smaller, "JPEG", quality=quality, dpi=image.info.get("dpi", (72, 72)))
        output.data["image/jpeg"] = base64.b64encode(smaller.getvalue()).decode()


def main():
    if not sys.argv[1:]:
        sys.exit("usage: python -m ci.store_outputs FOLDER...")
    for folder in sys.argv[1:]:
        try:
            print(f"{store_outputs(folder)}: outputs stored.")
        except (OSError, ValueError) as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
