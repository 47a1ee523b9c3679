import nbformat
import pytest
from chapters import stored, write_chapter

from ci.check_notebooks import check_freshness, check_outputs
from ci.nbval import compare, smoke_copy
from ci.store_outputs import store_outputs

LOGGING = "import sys\nprint('log', file=sys.stderr)\npreset"
EXACT = "# NBVAL_CHECK_OUTPUT\nprint(len(data))\nobject()"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    # A run sets these for its kernel; other tests must not see them.
    for name in ("CVLIB_RECORDS", "CVLIB_CHAPTER", "CVLIB_COMMAND"):
        monkeypatch.setenv(name, "")


def test_outputs_are_stored_and_compared_with_those_of_smoke(tmp_path, capfd):
    path = write_chapter(tmp_path, "# Pose", stored(LOGGING), stored(EXACT))
    store_outputs(path, tmp_path / "runs")
    content = path.read_bytes()
    book = nbformat.read(path, as_version=4)
    assert [cell.get("execution_count") for cell in book.cells] == [1, None, 2, 3]
    assert [output.data["text/plain"] for output in book.cells[2].outputs] == ["'quick'"]
    assert book.cells[3].outputs[0].text == "6\n"
    assert book.metadata.keys() == {"kernelspec", "language_info", "cvlib"}
    assert book.cells[0].metadata == {"tags": ["parameters"]}
    assert not [*check_outputs(book), *check_freshness(book, path)]

    good = smoke_copy(path, tmp_path / "good")
    wrong = smoke_copy(path, tmp_path / "wrong").rename(tmp_path / "good" / "04_wrong.ipynb")
    assert path.read_bytes() == content
    book = nbformat.read(wrong, as_version=4)
    book.cells[-1].outputs[0].text = "7\n"
    nbformat.write(book, wrong)
    assert compare([good, wrong]) == 1
    assert "1 failed, 7 passed" in capfd.readouterr().out


def test_a_chapter_that_fails_is_left_as_it_was(tmp_path):
    path = write_chapter(tmp_path, stored("1 / 0"))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        store_outputs(path, tmp_path / "runs")
    assert path.read_bytes() == before


def test_a_chapter_edited_while_it_runs_is_left_as_it_is(tmp_path):
    path = write_chapter(tmp_path)
    book = nbformat.read(path, as_version=4)
    book.cells.append(stored(f"open({str(path)!r}, 'a').write(' ')"))
    nbformat.write(book, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="was edited while it ran"):
        store_outputs(path, tmp_path / "runs")
    assert path.read_bytes() == before + b" "
