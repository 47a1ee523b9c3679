import json
import os
import subprocess
import sys

import pytest

from benchmarks.freshness import ROOT, cells_hash
from benchmarks.run import cell_name, find_notebook, parameter_names, run
from cvlib.records import load_records

RECORD = "from cvlib.records import record\nrecord('constant box', {'box_iou': 0.5}, data)"


def run_command(tmp_path, *arguments):
    command = [sys.executable, "-m", "benchmarks.run", "02", "--course", tmp_path / "course"]
    return subprocess.run(
        [*command, "--out", tmp_path / "out", *arguments],
        cwd=ROOT,
        env=os.environ | {"MY_DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
    )


def test_a_run_leaves_its_records_and_its_notebook(tmp_path, notebook):
    check = "import os, sys; assert seed == 3 and preset == 'quick' and os.path.isabs(data[4:])"
    path = notebook(
        check, "assert 'tensorflow' not in sys.modules", RECORD.replace("data", "'voc:x'")
    )
    done = run_command(tmp_path, "--data", "voc:$MY_DATA/x", "--seed", "3")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "out").iterdir()
    assert done.stdout.strip() == str(folder)
    (found,) = load_records(folder / "records")
    assert (found["chapter"], found["preset"], found["seed"]) == ("02", "quick", 3)
    assert found["command"] == (
        "python -m benchmarks.run 02 --preset quick --data 'voc:$MY_DATA/x' --seed 3"
    )
    assert str(tmp_path) not in next((folder / "records").iterdir()).read_text()
    executed = json.loads((folder / "02_boxes.ipynb").read_text())
    assert executed["cells"][1]["metadata"]["tags"] == ["injected-parameters"]
    made_by = executed["metadata"]["cvlib"]
    assert (made_by["preset"], made_by["data"], made_by["seed"]) == ("quick", "voc:$MY_DATA/x", 3)
    assert (made_by["commit"], made_by["dirty"]) == (found["commit"], found["dirty"])
    assert made_by["cells"] == cells_hash(path) == cells_hash(folder / "02_boxes.ipynb")


def test_runs_side_by_side_record_no_times(tmp_path, notebook):
    metrics = {"mAP@0.5": 0.5, "ms": 1, "ms p90@8": 1, "images/s@1": 1, "ms/heads": 1, "s/SVMs": 1}
    times = {"graph": [1.0, 2.0]}
    measured = f"record('x', {metrics}, 'scenes', milliseconds={times}, duration=3)"
    notebook(f"from cvlib.records import record\n{measured}")
    for options in ((), ("--shared",)):
        folder = run_command(tmp_path, *options).stdout.strip()
        (found,) = load_records(f"{folder}/records")
        assert list(found["metrics"]) == (["mAP@0.5"] if options else list(metrics))
        assert found["milliseconds"].keys() == (set() if options else {"graph"})
        assert found["duration"] == (None if options else 3)
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_an_error_is_one_sentence_and_its_records_do_not_count(tmp_path, notebook):
    notebook(RECORD, "x = 1\nraise RuntimeError('the first line\\nthe second')")
    done = run_command(tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith("02_boxes.ipynb: In [4] `x = 1` raised RuntimeError: the first line"), (
        done.stderr
    )
    assert all(p.name.startswith(".unfinished-") for p in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("parameters, count", [(None, 0), ("x = 1", 2)])
def test_a_notebook_without_one_parameters_cell_is_refused(notebook, parameters, count):
    path = notebook(parameters=parameters)
    if count:
        book = json.loads(path.read_text())
        path.write_text(json.dumps(book | {"cells": book["cells"] * 2}))
    with pytest.raises(ValueError, match=f"{count} cells have the tag `parameters`, not one"):
        parameter_names(path)


def test_an_unknown_parameter_is_refused(tmp_path, notebook):
    path = notebook(parameters='preset = "quick"\ndata = "scenes"')
    with pytest.raises(ValueError, match="the parameter 'seed' is unknown"):
        run(path, "quick", "scenes", 0, tmp_path)


def test_a_variable_that_is_not_set_is_named(tmp_path, notebook):
    with pytest.raises(ValueError, match=r"coco:\$NO_SUCH/x: the environment variable is not set"):
        run(notebook(), "quick", "coco:$NO_SUCH/x", 0, tmp_path)


def test_a_chapter_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ValueError, match="0 notebooks begin with '99', not one"):
        find_notebook("99", tmp_path)


def test_the_name_changes_with_everything_that_makes_the_result(notebook, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    path = notebook("x = 1")
    names = [cell_name(path, "quick", "scenes", 0)]
    names += [cell_name(path, "full", "scenes", 0), cell_name(path, "quick", "scenes:three", 0)]
    names += [cell_name(path, "quick", "scenes", 1)]
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    names += [cell_name(path, "quick", "scenes", 0)]
    names += [cell_name(notebook("x = 2"), "quick", "scenes", 0)]
    assert len({name.rpartition("-")[2] for name in names}) == len(names)


def test_a_folder_of_a_run_that_is_under_way_stays(tmp_path, notebook):
    notebook(RECORD)
    done = run_command(tmp_path).stdout.strip().rpartition("/")[2]
    folders = [tmp_path / "out" / f".unfinished-{done}-{pid}-x" for pid in (os.getpid(), 0x7FFFFFF)]
    for folder in folders:
        folder.mkdir()
    run_command(tmp_path)
    assert [folder.exists() for folder in folders] == [True, False]
