"""Which code made a result: hashes that are blind to comments and docstrings."""

import ast
import hashlib
import json
import re
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parents[1]


def source_hash(notebook, root=ROOT):
    """Hash of a notebook's code and of the `cvlib` modules it imports, directly or through others.

    Comments, docstrings, layout, prose and stored outputs leave it unchanged, and so does the cell
    in which papermill injects parameters. Imports inside functions count, and so do files beside a
    module that it names (weights). Where a module is chosen by name at run time, all it can be
    count. A package's `__init__.py` counts only as the place where a name is re-exported, so that
    a new layer does not make every chapter old; a name it defines itself counts with the whole of
    it. The hash is the same on every version of Python.

    Args:
        notebook: path of an .ipynb file.
        root: folder that holds `cvlib/`.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: a code cell does not parse.
    """
    cells = parsed_cells(notebook)
    content = [_outline(cell.body) for cell in cells]
    found, waiting = {}, [target for cell in cells for target in _imported(cell, "", root)]
    while waiting:
        name, path = waiting.pop()
        if name not in found:
            tree = ast.parse(path.read_text("utf-8"))
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            waiting += _imported(tree, package, root)
            found[name] = [_outline(tree), _files_named(tree, path.parent)]
    content += sorted(found.items())
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def cells_hash(notebook):
    """Hash of the code of a notebook's cells alone, whatever becomes of `cvlib`.

    Args, returns and raises as `source_hash`.
    """
    content = [_outline(cell.body) for cell in parsed_cells(notebook)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def parsed_cells(notebook):
    """Syntax trees of the code cells of the .ipynb file at `notebook`, but injected parameters.

    Raises:
        ValueError: a code cell does not parse.
    """
    cells = json.loads(Path(notebook).read_text("utf-8"))["cells"]
    return [
        _parse_cell("".join(cell["source"]), notebook)
        for cell in cells
        if cell["cell_type"] == "code"
        and "injected-parameters" not in cell["metadata"].get("tags", [])
    ]


def _parse_cell(source, notebook):
    try:
        return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError as error:
        raise ValueError(f"{notebook}: a code cell does not parse ({error}).") from None


def _imported(tree, package, root):
    """(name, path) of each `cvlib` module that the code in `tree`, part of `package`, refers to."""
    references = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            references += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, package)
            references += [(module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Attribute):
            # `import cvlib.data` and then `cvlib.data.load(...)`.
            module, _, name = ast.unparse(node).rpartition(".")
            references.append((module, name))
    for text in _texts(tree):
        # `import_module(f"cvlib.data.{kind}")`, and `import_module("cvlib.data.voc")`.
        if text.endswith(".") and _is_ours(text[:-1]):
            files = Path(root, *text[:-1].split(".")).glob("[!_]*.py")
            references += [(text + file.stem, None) for file in files]
        elif "." in text:
            references.append((text, None))
    found = (_resolve(module, name, root) for module, name in references if _is_ours(module))
    return [target for target in found if target]


def _texts(tree):
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [value for value in constants if isinstance(value, str)]


def _files_named(tree, folder):
    """Names and digests of the files in `folder` that texts in the code of `tree` name."""
    names = {text for text in _texts(tree) if re.fullmatch(r"[\w-]+(\.\w+)+", text)}
    files = [folder / name for name in sorted(names) if (folder / name).is_file()]
    return [[file.name, hashlib.sha256(file.read_bytes()).hexdigest()] for file in files]


def _is_ours(module):
    return module.partition(".")[0] == "cvlib" and module.replace(".", "").isidentifier()


def _absolute(node, package):
    if not node.level:
        return node.module
    parts = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join(parts + [node.module] * bool(node.module))


def _resolve(module, name, root):
    """The module that defines `name` as seen from `module`, or None where there is no such file."""
    if name and (path := _path(f"{module}.{name}", root)):
        return f"{module}.{name}", path
    path = _path(module, root)
    if path and name and path.name == "__init__.py":
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return _resolve(_absolute(node, module), alias.name, root)
    return path and (module, path)


def _path(module, root):
    stem = Path(root, *module.split("."))
    return next((p for p in (stem / "__init__.py", stem.with_suffix(".py")) if p.is_file()), None)


def _outline(node):
    """A syntax tree as nested lists, without positions, docstrings and empty fields.

    `ast.dump` prints empty fields on some versions of Python and new ones on others.
    """
    if isinstance(node, list):
        return [_outline(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        if ast.get_docstring(node, clean=False) is not None:
            fields["body"] = node.body[1:]
    filled = {key: value for key, value in fields.items() if value is not None and value != []}
    return [type(node).__name__, *([key, _outline(value)] for key, value in filled.items())]
