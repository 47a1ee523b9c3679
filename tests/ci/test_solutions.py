"""The folded solutions of the exercises with code give what the exercises ask for."""

import ast
import re

import nbformat
import pytest

from benchmarks.freshness import parsed_cells
from ci import chapters

SOLUTION = re.compile(r"```python\n(.+?)```", re.DOTALL)


def exercises():
    """(chapter's path, code of the exercise, code of the solution) of all that have both."""
    for path in chapters():
        cells = nbformat.read(path, as_version=4).cells
        for exercise, after in zip(cells, cells[1:], strict=False):
            solution = after.source.startswith("<details>") and SOLUTION.search(after.source)
            if exercise.cell_type == "code" and "check(" in exercise.source and solution:
                number = f"{path.stem[:2]}-{cells.index(exercise)}"
                yield pytest.param(path, exercise.source, solution[1], id=number)


def solved(exercise, solution):
    """The statements of the exercise, with the solution's in place of those that it defines."""
    theirs, answer = ast.parse(exercise).body, ast.parse(solution).body
    asked = [names(statement) & names(*answer) for statement in theirs]
    first = next(i for i, both in enumerate(asked) if both)
    rest = [statement for statement, both in zip(theirs, asked, strict=True) if not both]
    return rest[:first] + answer + rest[first:]


def names(*statements):
    """The names that statements define."""
    found = {s.name for s in statements if isinstance(s, ast.FunctionDef | ast.ClassDef)}
    targets = [node for s in statements for t in getattr(s, "targets", []) for node in ast.walk(t)]
    return found | {node.id for node in targets if isinstance(node, ast.Name)}


@pytest.mark.parametrize("path, exercise, solution", list(exercises()))
def test_a_solution_is_right(capsys, path, exercise, solution):
    chapter = [statement for cell in parsed_cells(path) for statement in cell.body]
    imports = [s for s in chapter if isinstance(s, ast.Import | ast.ImportFrom)]
    module = ast.Module(imports + solved(exercise, solution), [])
    try:
        exec(compile(module, path.name, "exec"), {})
    except NameError as error:
        nodes = [node for statement in chapter for node in ast.walk(statement)]
        assigned = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        if error.name not in names(*chapter) | assigned:
            raise
        pytest.skip(f"The exercise needs `{error.name}` of the chapter's run.")
    lines = [line for line in capsys.readouterr().out.splitlines() if ": " in line]
    assert lines and all(line.endswith(": right") for line in lines)
