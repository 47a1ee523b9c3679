"""Runs every chapter with the `smoke` preset and compares the outputs marked as exact.

`python -m ci.nbval [PYTEST OPTION ...]`. A copy of each chapter under `build/` is given the preset
and keeps the stored outputs; nbval compares those of cells that hold `# NBVAL_CHECK_OUTPUT`.
"""

import os
import subprocess
import sys

import nbformat
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from benchmarks.run import import_path
from ci import ROOT, chapters


def smoke_copy(path, folder):
    """Copy the notebook at `path` to `folder` with the `smoke` preset; returns the copy's path."""
    notebook = parameterize_notebook(load_notebook_node(str(path)), {"preset": "smoke"})
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / path.name)
    return folder / path.name


def compare(copies, options=()):
    """Run the notebooks `copies` under nbval; returns pytest's exit status."""
    command = [
        *(sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env"),
        *("--nbval-sanitize-with", ROOT / "ci" / "nbval.cfg"),
        # Outside of its root pytest takes the cells of all notebooks for the same.
        *("--rootdir", copies[0].parent),
        # A chapter's cells stay together, in one worker.
        *("--numprocesses", "auto", "--dist", "loadfile", *options, *copies),
    ]
    environment = os.environ | {
        "CVLIB_RECORDS": str(copies[0].parent / "records"),
        "PYTHONPATH": import_path(),
    }
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def main():
    copies = [smoke_copy(path, ROOT / "build" / "nbval") for path in chapters()]
    if not copies:
        print("There are no chapters to run.")
        return 0
    return compare(copies, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
