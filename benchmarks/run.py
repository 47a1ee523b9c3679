"""Run one chapter with one preset, one data set and one seed: a cell of the grid.

    python -m benchmarks.run 02 --preset quick --data scenes:single --seed 0

Neither Snakemake nor TensorFlow is needed; the backend is the one that KERAS_BACKEND names.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError

from benchmarks.freshness import ROOT, cells_hash, source_hash
from benchmarks.report import TIMES
from cvlib.records import as_text, checkout, write_atomically

COURSE = ROOT / "course"


def find_notebook(chapter, course=COURSE):
    """Path of the notebook of `chapter` (`"02"`) in the folder `course`.

    Raises:
        ValueError: there is no such notebook, or more than one.
    """
    found = sorted(Path(course).glob(f"{chapter}*.ipynb"))
    if len(found) != 1:
        raise ValueError(f"{course}: {len(found)} notebooks begin with {chapter!r}, not one.")
    return found[0]


def parameter_names(notebook):
    """Names that the `parameters` cell of `notebook` sets.

    Raises:
        ValueError: there is not exactly one cell with the tag `parameters`.
    """
    cells = [
        "".join(cell["source"])
        for cell in json.loads(Path(notebook).read_text("utf-8"))["cells"]
        if "parameters" in cell["metadata"].get("tags", [])
    ]
    if len(cells) != 1:
        raise ValueError(f"{notebook}: {len(cells)} cells have the tag `parameters`, not one.")
    tree = ast.walk(ast.parse(cells[0]))
    return {n.id for n in tree if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def cell_name(notebook, preset, data, seed, shared=False):
    """Name of the run's folder: what it is, and a hash of all that made it.

    The hash covers the notebook's code and the modules it imports (`source_hash`), the parameters
    and the backend. A folder of this name is therefore as new as its sources, whatever its time.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    made_of = json.dumps([source_hash(notebook), preset, data, seed, backend, shared])
    digest = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    words = (Path(notebook).stem, preset, data, seed, backend, digest)
    return "-".join(re.sub(r"\W+", "_", str(word)) for word in words)


def expanded(data):
    """The name of data without environment variables.

    Raises:
        ValueError: one is not set.
    """
    if "$" in (name := os.path.expandvars(data)):
        raise ValueError(f"{data}: the environment variable is not set.")
    return name


def run(notebook, preset, data, seed, out, shared=False):
    """Execute `notebook`; its executed copy and its records appear together in a folder of `out`.

    Args:
        notebook: path of a chapter.
        preset, data, seed: its parameters. `data` may hold environment variables
            (`coco:$CVLIB_DATA/tiny_imagenet20`), which are expanded here and nowhere written.
        out: folder that gets the folder `cell_name(...)`. While the notebook runs, and after it
            fails, only a folder whose name begins with `.unfinished-` is there.
        shared: whether other runs share the machine: the records then have no times.

    Returns:
        Path of the new folder: `records/` and the executed notebook, whose metadata `cvlib` holds
        the parameters, the commit (`dirty` where the code differed) and the hash of its cells.

    Raises:
        ValueError: a parameter is unknown, an environment variable is not set, or a cell fails.
    """
    parameters = {"preset": preset, "data": expanded(data), "seed": seed}
    if unknown := parameters.keys() - parameter_names(notebook):
        raise ValueError(f"{notebook}: the parameter {sorted(unknown)[0]!r} is unknown.")
    name = cell_name(notebook, preset, data, seed, shared)
    out = Path(out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for left_over in out.glob(f".unfinished-{name}-*"):
        if not _runs(left_over.name.removeprefix(f".unfinished-{name}-").partition("-")[0]):
            shutil.rmtree(left_over)
    work = Path(tempfile.mkdtemp(dir=out, prefix=f".unfinished-{name}-{os.getpid()}-"))
    (work / "records").mkdir()
    commit, dirty = checkout()
    made_by = {"preset": preset, "data": data, "seed": seed, "commit": commit, "dirty": dirty}
    made_by["cells"] = cells_hash(notebook)
    before = os.environ.copy()
    os.environ |= {
        "PYTHONPATH": import_path(),
        "CVLIB_RECORDS": str(work / "records"),
        "CVLIB_CHAPTER": notebook.stem.partition("_")[0],
        "CVLIB_COMMAND": command(notebook, preset, data, seed),
    }
    try:
        papermill.execute_notebook(
            notebook,
            work / notebook.name,
            parameters,
            kernel_name="python3",
            language="python",
            cwd=notebook.parent,
            progress_bar=sys.stderr.isatty(),
        )
    except papermill.PapermillExecutionError as error:
        line = error.source.strip().partition("\n")[0]
        reason = f"{error.ename}: {error.evalue.partition(chr(10))[0]}"
        raise ValueError(f"{notebook}: In [{error.exec_count}] `{line}` raised {reason}") from None
    except DeadKernelError:
        raise ValueError(f"{notebook}: the kernel died.") from None
    finally:
        os.environ.clear()
        os.environ |= before
    executed = json.loads((work / notebook.name).read_text("utf-8"))
    executed["metadata"]["cvlib"] = made_by
    write_atomically(work / notebook.name, json.dumps(executed))
    if shared:
        for path in (work / "records").glob("*.json"):
            drop_times(path)
    shutil.rmtree(out / name, ignore_errors=True)
    work.chmod(0o755)  # mkdtemp makes folders that only their owner reads.
    os.replace(work, out / name)
    return out / name


def drop_times(path):
    """Takes what was measured with a clock out of the record at `path`."""
    content = json.loads(path.read_text("utf-8"))
    for key in [key for key in content["metrics"] if TIMES.search(key)]:
        del content["metrics"][key]
    write_atomically(path, as_text(content | {"milliseconds": {}, "duration": None}))


def _runs(pid):
    """Whether a process of this number runs."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ValueError, OSError, OverflowError):
        return False
    return True


def import_path():
    """PYTHONPATH for kernels to find the `cvlib` of this checkout, not another one installed."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def command(notebook, preset, data, seed):
    """The shell command that repeats the run, without any machine's path."""
    chapter = notebook.stem.partition("_")[0]
    words = ["python", "-m", "benchmarks.run", chapter]
    words += ["--preset", preset, "--data", data, "--seed", str(seed)]
    return shlex.join(words)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chapter", help="number of a chapter: 02")
    parser.add_argument("--preset", default="quick", choices=("smoke", "quick", "full"))
    parser.add_argument("--data", default="scenes", help="may hold $VARIABLES, expanded here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="build/run", help="folder that gets the run's folder")
    parser.add_argument("--course", default=COURSE, help="folder of the chapters")
    parser.add_argument("--shared", action="store_true", help="others run beside it: no times")
    args = parser.parse_args()
    try:
        notebook = find_notebook(args.chapter, args.course)
        print(run(notebook, args.preset, args.data, args.seed, args.out, args.shared))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
