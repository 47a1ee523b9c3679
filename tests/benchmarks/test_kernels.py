import ast

import pytest

from ci import ROOT

FILES = sorted((ROOT / "benchmarks" / "kernels").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_record_names_its_chapter_whatever_the_environment_says(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    for call in calls:
        if ast.unparse(call.func).endswith("record"):
            assert "chapter" in {keyword.arg for keyword in call.keywords}
