import subprocess

import nbformat
import pytest
from chapters import COMMAND, chapter, stored, write_chapter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from ci import check_notebooks
from ci.check_notebooks import (
    check_freshness,
    check_notebook,
    check_outputs,
    check_parameters,
    check_pictures,
    check_repository,
)


def test_a_chapter_without_faults(tmp_path):
    terms = "**Key terms**: pose (자세)."
    path = write_chapter(tmp_path, "# Pose", stored("print(1)", "1\n"), terms)
    assert list(check_notebook(path, [], [], tmp_path)) == []
    path = write_chapter(tmp_path, "# Pose", stored("print(1)", "1\n"))
    (fault,) = check_notebook(path, [], [], tmp_path)
    assert "Key terms" in fault


@pytest.mark.parametrize(
    "source, fault",
    [
        ('preset = "quick"\nseed = 0', "The parameters are preset, seed, not data, preset, seed."),
        ('preset, data, seed = "quick", "scenes", 0', "something else"),
        ('preset = "quick"\ndata = "scenes"\nseed = 1 + x', "something else"),
        ('preset = "full"\ndata = "scenes"\nseed = 0', "The preset is 'full'"),
    ],
)
def test_wrong_parameters(source, fault):
    (sentence,) = check_parameters(chapter(parameters=source))
    assert fault in sentence


def test_the_parameters_cell_is_one():
    book = chapter()
    book.cells *= 2
    assert list(check_parameters(book)) == ["2 cells are tagged `parameters`, not one."]


@pytest.mark.parametrize(
    "cell, fault",
    [
        (new_code_cell("print(1)"), "These cells have not been run: 1."),
        (stored("print(1)", "x" * 600_000), "over 500000"),
        (stored("print(p)", "saved to /srv/someone/model.keras\n"), "/srv/someone/model.keras"),
    ],
)
def test_wrong_outputs(cell, fault):
    (sentence,) = check_outputs(chapter(cell))
    assert fault in sentence


def test_a_stored_error_is_a_fault():
    cell = stored("1 / 0")
    cell.outputs = [new_output("error", ename="ZeroDivisionError", evalue="", traceback=[])]
    assert list(check_outputs(chapter(cell))) == ["Cell 1 stores the error ZeroDivisionError."]


def test_a_url_and_a_ratio_are_no_paths():
    assert not list(check_outputs(chapter(stored("x", "see https://a.org/b/c, 3/4/5, a /b\n"))))


NO_NOTEBOOKS = ["", "{}", "[]", "null", "[" * 100_000, '{"nbformat": 4, "cells": 3}']


@pytest.mark.parametrize("text", NO_NOTEBOOKS, ids=range(len(NO_NOTEBOOKS)))
def test_a_file_that_is_no_notebook_is_a_fault(tmp_path, text):
    path = tmp_path / "03_pose.ipynb"
    path.write_text(text)
    assert list(check_notebook(path, [], [], tmp_path)) == ["The file is not a notebook."]


def test_a_cell_that_does_not_parse_is_a_fault(tmp_path):
    path = write_chapter(tmp_path, stored("print(1)"))
    path.write_text(path.read_text().replace("print(1)", "print("))
    (sentence,) = freshness(path)
    assert "a code cell does not parse" in sentence


def freshness(path, *commits):
    """Faults with a run's records of `commits`, each of one machine, or of a (machine, commit)."""
    pairs = [c if isinstance(c, tuple) else ("CPU", c) for c in commits]
    records = [{"command": COMMAND, "device": d, "commit": commit} for d, commit in pairs]
    return list(check_freshness(nbformat.read(path, as_version=4), path, records))


def test_outputs_of_other_cells_are_a_fault(tmp_path):
    path = write_chapter(tmp_path, "# Pose", stored("print(1)", "1\n"))
    text = path.read_text()
    path.write_text(text.replace("# Pose", "# A pose").replace("print(1)", "print( 1 )  # one"))
    assert freshness(path) == []
    path.write_text(text.replace("print(1)", "print(2)"))
    (sentence,) = freshness(path)
    assert "The code cells are not those whose outputs are stored" in sentence


def test_outputs_and_records_of_one_run_name_one_commit(tmp_path):
    path = write_chapter(tmp_path)
    assert freshness(path, "abc", "abc") == freshness(path) == []
    other = {"command": COMMAND.replace("--seed 3", "--seed 1"), "commit": "def"}
    assert not [*check_freshness(nbformat.read(path, as_version=4), path, [other])]
    assert freshness(path, "abc", "def") == [
        "The run's records are of commit abc, def, the outputs of abc."
    ]
    assert freshness(path, "abc", ("another CPU", "def")) == []
    assert freshness(path, ("another CPU", "def")) == [
        "The run's records are of commit def, the outputs of abc."
    ]


@pytest.mark.parametrize("preset", ["quick", "smoke"])
def test_outputs_of_another_preset_than_full_are_a_fault(tmp_path, preset):
    (sentence,) = freshness(write_chapter(tmp_path, preset=preset))
    assert f"The stored outputs are of the preset '{preset}'" in sentence


def test_large_pictures_are_a_fault(monkeypatch):
    monkeypatch.setattr(check_notebooks, "PICTURES_BYTES", 100)
    drawn = stored("plot()")
    drawn.outputs = [new_output("display_data", {"image/jpeg": "A" * 80, "text/plain": "x" * 99})]
    drawing = new_markdown_cell("", attachments={"a.svg": {"image/svg+xml": "a" * 40}})
    assert list(check_pictures(chapter(drawn, drawing))) == []
    monkeypatch.setattr(check_notebooks, "PICTURES_BYTES", 99)
    assert list(check_pictures(chapter(drawn, drawing))) == [
        "The pictures have 100 bytes, over 99."
    ]


def test_the_repository_is_measured_without_what_git_ignores(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("build/\n")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "large").write_bytes(bytes(1000))
    monkeypatch.setattr(check_notebooks, "REPOSITORY_BYTES", 100)
    assert list(check_repository(tmp_path)) == []
    (tmp_path / "picture").write_bytes(bytes(100))
    assert list(check_repository(tmp_path)) == ["The repository has 107 bytes, over 100."]
