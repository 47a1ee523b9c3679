import os
import shutil
import subprocess
import sys

import pytest

from benchmarks.freshness import ROOT, cells_hash, source_hash

MODULES = {
    "cvlib/__init__.py": "",
    "cvlib/layers/__init__.py": "from .pool import Pool\nfrom cvlib.layers.other import Other\n",
    "cvlib/layers/pool.py": '"""Pools."""\nclass Pool:\n    """One."""\n    size = 7\n',
    "cvlib/layers/other.py": "class Other: pass\n",
    "cvlib/data/__init__.py": "def load(name):\n    from cvlib.data import voc\n    return voc\n",
    "cvlib/data/voc.py": "from ..boxes import area\n",
    "cvlib/boxes.py": "def area(b):\n    return b\n",
    "cvlib/lazy.py": "x = open('w.h5'), lambda kind: find(f'cvlib.kinds.{kind}')\n",
    "cvlib/w.h5": "0",
    "cvlib/kinds/one.py": "x = 1\n",
}
CELLS = (
    "%pip install cvlib\nfrom cvlib.layers import Pool",
    'from cvlib.data import load\nimport importlib\nimportlib.import_module("cvlib.lazy")',
)


@pytest.fixture
def hashed(tmp_path, notebook):
    """`hashed({file: text}, *cells)`: the hash with some modules' or the cells' text replaced."""

    def compute(changes=None, *cells):
        for name, text in (MODULES | (changes or {})).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return source_hash(notebook(*(cells or CELLS)), root=tmp_path)

    return compute


@pytest.mark.parametrize(
    "changes",
    [
        {"cvlib/layers/pool.py": '"""Other words."""\nclass Pool:  # why\n    size = (\n     7)\n'},
        {"cvlib/boxes.py": "def area(b):\n    '''An area.'''\n\n    return b\n"},
        {"cvlib/layers/other.py": "class Other: x = 1\n"},
        {"cvlib/layers/__init__.py": MODULES["cvlib/layers/__init__.py"] + "from .new import New"},
        {"cvlib/unused.py": "x = 1\n"},
    ],
    ids=["docstring", "function docstring", "sibling layer", "new export", "not imported"],
)
def test_what_does_not_change_the_results_does_not_change_the_hash(hashed, changes):
    assert hashed(changes) == hashed()


@pytest.mark.parametrize(
    "changes",
    [
        {"cvlib/layers/pool.py": "class Pool:\n    size = 8\n"},
        {"cvlib/boxes.py": "def area(b):\n    return 2 * b\n"},
        {"cvlib/data/__init__.py": MODULES["cvlib/data/__init__.py"] + "y = 1\n"},
        {"cvlib/lazy.py": "x = 2\n"},
        {"cvlib/kinds/one.py": "x = 2\n"},
        {"cvlib/w.h5": "1"},
    ],
    ids=["re-exported", "in a function of another", "package", "by name", "chosen", "weights"],
)
def test_a_change_of_imported_code_changes_the_hash(hashed, changes):
    assert hashed(changes) != hashed()


def test_cells_count_without_their_comments(hashed):
    assert hashed(None, "x = 1  # a comment") == hashed(None, "x = (1)")
    assert hashed(None, "x = 1") != hashed(None, "x = 2")
    assert hashed(None, "x = 1", "y = 1") != hashed(None, "x = 1\ny = 1")
    # A text that stands alone in a cell is shown, unlike a docstring.
    assert hashed(None, "'a'") != hashed(None, "'b'")


def test_the_hash_of_the_cells_knows_nothing_of_the_library(tmp_path, notebook):
    first = cells_hash(notebook("from cvlib import no_such_thing", "x = 1  # one"))
    assert cells_hash(notebook("from cvlib import no_such_thing", "x = (1)")) == first
    assert cells_hash(notebook("from cvlib import no_such_thing", "x = 2")) != first


def test_the_defaults_in_the_parameters_cell_count(tmp_path, notebook):
    hashes = {source_hash(notebook(parameters=f"seed = {i}"), root=tmp_path) for i in (0, 1)}
    assert len(hashes) == 2


def test_attributes_of_an_imported_package_are_followed(hashed):
    cells = ("import cvlib.boxes", "cvlib.boxes.area(1)")
    assert hashed({"cvlib/boxes.py": "area = 2"}, *cells) != hashed(None, *cells)


@pytest.mark.parametrize(
    "cell, module",
    [
        ("from cvlib.metrics import MeanAveragePrecision", "metrics/matching.py"),
        ("from cvlib.proposals import EdgeBoxes", "proposals/edge_boxes.py"),
        ("from cvlib.data import load", "data/voc.py"),
    ],
)
def test_modules_that_the_library_imports_by_name_are_followed(tmp_path, notebook, cell, module):
    shutil.copytree(ROOT / "cvlib", tmp_path / "cvlib")
    path = notebook(cell)
    before = source_hash(path, root=tmp_path)
    with open(tmp_path / "cvlib" / module, "a") as file:
        file.write("changed = True\n")
    assert source_hash(path, root=tmp_path) != before


def test_a_cell_that_does_not_parse_is_named(hashed):
    with pytest.raises(ValueError, match="02_boxes.ipynb: a code cell does not parse"):
        hashed(None, "x = = 1")


def test_the_hash_depends_on_no_hash_seed(notebook):
    path = notebook("from cvlib.data.sample import Dataset", "x = {'a': 1}")
    code = f"from benchmarks.freshness import source_hash; print(source_hash({str(path)!r}))"
    seeds = [dict(os.environ, PYTHONHASHSEED=seed) for seed in ("1", "2")]
    root = os.path.dirname(sys.modules["benchmarks"].__path__[0])
    found = {subprocess.check_output([sys.executable, "-c", code], env=e, cwd=root) for e in seeds}
    assert len(found) == 1
