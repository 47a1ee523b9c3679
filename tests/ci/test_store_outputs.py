import base64
import io
import json

import nbformat
import numpy as np
import pytest
from chapters import COMMAND, stored, write_chapter
from PIL import Image

from benchmarks import run as running
from benchmarks.run import run
from ci.check_notebooks import OUTPUT_BYTES, check_freshness, check_outputs
from ci.nbval import compare, smoke_copy
from ci.store_outputs import store_outputs, tidy
from cvlib.records import load_records

LOGGING = "import sys\nprint('log', file=sys.stderr)\npreset"
EXACT = "# NBVAL_CHECK_OUTPUT\nprint(len(data))\nobject()"
RECORD = "from cvlib.records import record\nrecord('mean pose', {'pcp': 0.5}, data)"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    # A run sets these for its kernel; other tests must not see them.
    for name in ("CVLIB_RECORDS", "CVLIB_CHAPTER", "CVLIB_COMMAND"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(running, "checkout", lambda: ("abc", False))


@pytest.fixture
def finished(tmp_path):
    """`finished(**made_by)`: a chapter, and the folder of a run as if it had been made so."""
    path = write_chapter(tmp_path, "# Pose", stored("1"))

    def make(**made_by):
        folder = tmp_path / "runs" / "03_pose-full"
        folder.mkdir(parents=True)
        made_by = {"data": "scenes", "seed": 3, "dirty": False} | made_by
        write_chapter(folder, "# Old prose", stored("1", "printed\n"), **made_by)
        return path, folder

    return make


def test_outputs_and_records_of_a_run_are_stored(tmp_path, capfd):
    path = write_chapter(tmp_path, "# Pose", stored(LOGGING), stored(EXACT), stored(RECORD))
    folder = run(path, "full", "scenes", 3, tmp_path / "runs")
    path.write_text(path.read_text().replace("# Pose", "# A pose"))
    assert store_outputs(folder, tmp_path, tmp_path / "records") == path
    content = path.read_bytes()
    book = nbformat.read(path, as_version=4)
    assert [cell.get("execution_count") for cell in book.cells] == [1, None, 2, 3, 4]
    assert book.cells[1].source == "# A pose"
    assert [output.data["text/plain"] for output in book.cells[2].outputs] == ["'full'"]
    assert book.cells[3].outputs[0].text == "6\n"
    assert book.metadata.keys() == {"kernelspec", "language_info", "cvlib"}
    assert book.metadata.cvlib.keys() == {"preset", "commit", "cells"}
    assert book.cells[0].metadata == {"tags": ["parameters"]}
    (found,) = load_records(tmp_path / "records")
    assert found["preset"] == "full" and found["command"] == COMMAND
    assert not [*check_outputs(book), *check_freshness(book, path, [found | {"commit": "abc"}])]

    good = smoke_copy(path, tmp_path / "good")
    wrong = smoke_copy(path, tmp_path / "wrong").rename(tmp_path / "good" / "04_wrong.ipynb")
    assert path.read_bytes() == content
    book = nbformat.read(wrong, as_version=4)
    book.cells[-2].outputs[0].text = "7\n"
    nbformat.write(book, wrong)
    assert compare([good, wrong]) == 1
    assert "1 failed, 9 passed" in capfd.readouterr().out


def test_the_set_up_stays_folded(tmp_path, finished):
    path, folder = finished()
    book = nbformat.read(path, as_version=4)
    book.cells[2].metadata["jupyter"] = {"source_hidden": True}
    nbformat.write(book, path)
    store_outputs(folder, tmp_path)
    (cell,) = nbformat.read(path, as_version=4).cells[2:]
    assert cell.metadata == {"jupyter": {"source_hidden": True}}
    assert cell.outputs[0].text == "printed\n"


@pytest.mark.parametrize(
    "made_by, fault",
    [
        ({"preset": "smoke"}, "the run's preset is 'smoke', not 'full'"),
        ({"data": "scenes:three"}, "the run's data is 'scenes:three', not 'scenes'"),
        ({"seed": 1}, "the run's seed is 1, not 3"),
        ({"dirty": True}, "code was that of no commit"),
        ({"dirty": None}, "code was that of no commit"),
        ({"cells": "of others"}, "03_pose.ipynb are not those that ran"),
    ],
)
def test_other_runs_are_refused(tmp_path, finished, made_by, fault):
    path, folder = finished(**made_by)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=fault):
        store_outputs(folder, tmp_path, tmp_path / "records")
    assert path.read_bytes() == before and not (tmp_path / "records").exists()


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no finished run"):
        store_outputs(tmp_path, tmp_path)


@pytest.mark.parametrize("side, kept", [(100, True), (800, False)])
def test_a_large_picture_is_stored_with_less_quality(side, kept):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), "uint8"))
    file = io.BytesIO()
    noise.save(file, "JPEG", quality=80)
    data = {"image/jpeg": base64.b64encode(file.getvalue()).decode()}
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", dict(data))])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    tidy(notebook)
    (output,) = notebook.cells[0].outputs
    assert len(json.dumps(output)) <= OUTPUT_BYTES
    assert (output.data == data) == kept
    assert Image.open(io.BytesIO(base64.b64decode(output.data["image/jpeg"]))).size == (side, side)
