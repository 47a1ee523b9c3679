import nbformat
import pytest


def make_notebook(path, *cells, parameters='preset, data, seed = "smoke", "scenes", 0'):
    """Write an .ipynb whose first cell is tagged `parameters`, unless that is None."""
    book = nbformat.v4.new_notebook()
    if parameters is not None:
        tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
        book.cells.append(tagged)
    book.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)
    return path


@pytest.fixture
def notebook(tmp_path):
    """`notebook(*cells)` writes course/02_boxes.ipynb into the test's folder and gives its path."""

    def write(*cells, **kwargs):
        return make_notebook(tmp_path / "course" / "02_boxes.ipynb", *cells, **kwargs)

    return write


@pytest.fixture
def measured():
    """`measured(...)` is a record as `load_records` gives it, with fields changed."""

    def make(seed=0, metrics=None, **changes):
        return {
            "system": "Localizer",
            "settings": {},
            "chapter": "02",
            "preset": "full",
            "data": "scenes:single",
            "split": "test",
            "seed": seed,
            "metrics": metrics or {},
            "per_image": {},
            "backend": "jax",
            "device": "a processor",
            "cores": 2,
            "precision": "float32",
            "resolution": [128, 128],
            "parameters": 1000,
            "peak_memory_mib": {"host": 100, "device": None},
        } | changes

    return make
