import subprocess

import nbformat
import pytest
from chapters import chapter, stored, write_chapter
from nbformat.v4 import new_code_cell, new_output

from benchmarks.freshness import source_hash
from ci import check_notebooks
from ci.check_notebooks import (
    check_freshness,
    check_notebook,
    check_outputs,
    check_parameters,
    check_repository,
)


def test_a_chapter_without_faults(tmp_path):
    path = write_chapter(tmp_path, "# Pose", stored("print(1)", "1\n"))
    book = nbformat.read(path, as_version=4)
    book.metadata["cvlib"] = {"source_hash": source_hash(path)}
    nbformat.write(book, path)
    assert list(check_notebook(path, [], [], tmp_path)) == []


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


def test_outputs_older_than_the_code_are_a_fault(tmp_path):
    path = write_chapter(tmp_path, stored("print(1)", "1\n"))
    book = nbformat.read(path, as_version=4)
    book.metadata["cvlib"] = {"source_hash": source_hash(path)}
    book.cells[1].source = "print(2)"
    nbformat.write(book, path)
    (sentence,) = check_freshness(book, path)
    assert "ci.store_outputs course/03_pose.ipynb" in sentence


def test_a_large_notebook_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(check_notebooks, "NOTEBOOK_BYTES", 100)
    path = write_chapter(tmp_path)
    assert f"has {path.stat().st_size} bytes" in next(check_notebook(path, [], [], tmp_path))


def test_the_repository_is_measured_without_what_git_ignores(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("build/\n")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "large").write_bytes(bytes(1000))
    monkeypatch.setattr(check_notebooks, "REPOSITORY_BYTES", 100)
    assert list(check_repository(tmp_path)) == []
    (tmp_path / "picture").write_bytes(bytes(100))
    assert list(check_repository(tmp_path)) == ["The repository has 107 bytes, over 100."]
