import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from benchmarks import grid as grid_module
from benchmarks.freshness import ROOT
from benchmarks.grid import cells, progress
from cvlib.records import load_records

CELL = """
import pathlib, time
from cvlib.records import record
with open({ran!r}, "a") as file:
    file.write(f"{{seed}} ")
record("constant box", {{"box_iou": 0.5}}, data, "test", per_image={{"box_iou": [0.5] * 20000}})
time.sleep(0.5)
record("Localizer", {{"box_iou": 0.75 + seed / 100}}, data, "test")
"""


@pytest.fixture
def grid(tmp_path, notebook):
    notebook(CELL.format(ran=str(tmp_path / "ran")))
    suite = tmp_path / "suite.yaml"
    suite.write_text('quick: [{chapter: "02", data: ["scenes"], seeds: [0, 1, 2]}]')
    command = [sys.executable, "-m", "benchmarks.grid", "--out", tmp_path / "out"]
    command += ["--suite", suite, "--course", tmp_path / "course"]

    started = []

    def start():
        started.append(
            subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
        )
        return started[-1]

    yield start
    for process in started:  # What a failing test leaves behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_killed_grid_goes_on_and_loses_nothing(tmp_path, grid):
    out, ran = tmp_path / "out", tmp_path / "ran"
    first = grid()
    deadline = time.monotonic() + 300
    while not (list(out.glob("cells/02*")) and list(out.glob("cells/.un*/records/*.json"))):
        assert first.poll() is None and time.monotonic() < deadline, first.stdout.read()
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    finished = {path: path.stat().st_ino for path in out.glob("cells/02*")}
    assert 1 <= len(finished) <= 2
    assert all(len(load_records(path / "records")) == 2 for path in finished)

    second = grid()
    printed = second.communicate(timeout=300)[0]
    assert second.returncode == 0
    assert printed.startswith(f"{len(finished)} of 3 done") and "3 of 3 done" in printed
    assert " left" in printed
    now = {path: path.stat().st_ino for path in out.glob("cells/02*")}
    assert finished.items() <= now.items() and len(now) == 3
    assert all(len(load_records(path / "records")) == 2 for path in now)
    assert not list(out.glob("cells/.un*"))
    runs = ran.read_text().split()
    seeds = {path.name.split("-")[3] for path in finished}
    assert sorted(set(runs)) == ["0", "1", "2"] and len(runs) == 4
    assert all(runs.count(seed) == 1 for seed in seeds)
    table = (out / "tables" / "localization.md").read_text()
    assert "0.7600 [0.7352, 0.7848]" in table


def test_a_cell_that_fails_is_named_and_the_others_go_on(tmp_path, notebook):
    path = notebook(
        "from cvlib.records import record\nassert seed\nrecord('x', {'box_iou': 1}, data)"
    )
    suite = tmp_path / "suite.yaml"
    suite.write_text('quick: [{chapter: "02", data: ["scenes"], seeds: [0, 1]}]')
    command = [sys.executable, "-m", "benchmarks.grid", "--out", tmp_path / "out"]
    command += ["--suite", suite, "--course", path.parent, "--results", tmp_path / "results"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    reason, last = done.stderr.strip().splitlines()
    assert reason.startswith("02_boxes-quick-scenes-0-")
    assert "raised AssertionError" in reason
    assert last.startswith("1 of 2 cells have no result")
    assert [r["seed"] for r in load_records(tmp_path / "results" / "records")] == [1]


@pytest.mark.parametrize("jobs", [1, 2])
def test_cells_share_the_threads_of_the_machine(tmp_path, notebook, jobs):
    path = notebook(
        "import os\nfrom cvlib.records import record\n"
        "names = 'OMP_NUM_THREADS', 'TF_NUM_INTRAOP_THREADS', 'TF_NUM_INTEROP_THREADS'\n"
        "record('x', {name: float(os.environ[name]) for name in names}, data, 'test')"
    )
    suite = tmp_path / "suite.yaml"
    suite.write_text('quick: [{chapter: "02", data: ["scenes"], seeds: [0]}]')
    command = [sys.executable, "-m", "benchmarks.grid", "--out", tmp_path / "out"]
    command += ["--suite", suite, "--course", path.parent, "--jobs", str(jobs)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300)
    (found,) = (tmp_path / "out" / "cells").glob("02*/records")
    (run,) = load_records(found)
    assert set(run["metrics"].values()) == {max(1, os.cpu_count() // jobs)}


def test_the_grid_is_chapters_by_data_by_seeds(tmp_path, notebook):
    path = notebook("x = 1")
    suite = tmp_path / "suite.yaml"
    suite.write_text('full: [{chapter: "02", data: ["scenes", "voc:$X/y"], seeds: [0, 1, 2]}]')
    found = cells("full", suite, path.parent)
    assert [cell[:4] for cell in found] == [
        ("02", "full", data, seed) for data in ("scenes", "voc:$X/y") for seed in (0, 1, 2)
    ]
    assert len({cell.name for cell in found}) == 6
    with pytest.raises(ValueError, match="there is no preset 'quick'"):
        cells("quick", suite, path.parent)


def test_a_row_may_name_another_preset_of_the_notebooks(tmp_path, notebook):
    path = notebook("x = 1")
    suite = tmp_path / "suite.yaml"
    suite.write_text('gpu: [{chapter: "02", preset: full, data: ["scenes"], seeds: [0]}]')
    (cell,) = cells("gpu", suite, path.parent)
    assert cell.preset == "full" and cell.name.startswith("02_boxes-full-scenes-0-")


@pytest.mark.parametrize(
    "text",
    [
        'quick: [{chapter: "02", data: scenes, seeds: [0]}]',
        'quick: [{chapter: "02", data: ["scenes"], seeds: "12"}]',
        'quick: [{chapter: "02", data: ["scenes"], seeds: ["1", "2"]}]',
        'quick: [{chapter: "02", data: ["scenes"], seeds: [true]}]',
        'quick: [{chapter: "02", data: ["scenes"], seeds: []}]',
        'quick: [{chapter: 2, data: ["scenes"], seeds: [0]}]',
        'quick: [{chapter: "02", data: [1], seeds: [0]}]',
        'quick: [{chapter: "02", seeds: [0]}]',
        'quick: [{chapter: "02", data: ["scenes"], seeds: [0], sed: 1}]',
        'quick: {chapter: "02", data: ["scenes"], seeds: [0]',
        "quick: scenes",
        "- quick",
        "quick:",
    ],
)
def test_what_is_no_suite_is_named_in_one_sentence(tmp_path, notebook, text):
    path = notebook("x = 1")
    suite = tmp_path / "suite.yaml"
    suite.write_text(text)
    with pytest.raises(ValueError, match="suite.yaml: ") as error:
        cells("quick", suite, path.parent)
    assert "\n" not in str(error.value)


def test_without_snakemake_the_cells_run_one_after_the_other(
    tmp_path, notebook, monkeypatch, capsys
):
    path = notebook(
        "from cvlib.records import record\nassert seed\nrecord('x', {'accuracy': 1}, data)"
    )
    suite = tmp_path / "suite.yaml"
    suite.write_text('gpu: [{chapter: "02", preset: smoke, data: ["scenes"], seeds: [0, 1]}]')
    arguments = ["grid", "--preset", "gpu", "--out", tmp_path / "out", "--suite", suite]
    monkeypatch.setattr("sys.argv", [*map(str, arguments), "--course", str(path.parent)])
    monkeypatch.setattr(grid_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="1 of 2 cells have no result"):
        grid_module.main()
    shown = capsys.readouterr()
    assert "0 of 2 done\n1 of 2 done" in shown.out and "raised AssertionError" in shown.err
    assert "| smoke | x |" in (tmp_path / "out" / "tables" / "localization.md").read_text()


def test_several_at_once_are_not_kept(tmp_path, monkeypatch):
    arguments = ["grid", "--jobs", "2", "--results", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit, match="--results keeps times too"):
        grid_module.main()


def test_the_time_left_follows_the_pace_of_this_run():
    assert progress(0, 0, 8, 0.1) == "0 of 8 done"
    assert progress(5, 3, 8, 60) == "5 of 8 done, about 90 s left"
    assert progress(2, 0, 8, 120) == "2 of 8 done, about 6 min left"
    assert progress(8, 0, 8, 480) == "8 of 8 done"
