"""Run the chapters of a preset, as far as they have not run yet, and derive their tables.

    python -m benchmarks.grid --preset quick --out build/tables-run

A run that was killed goes on where it stopped. With `--results results` the records are kept there
and the tables of all the records there are derived again.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import yaml

from benchmarks.freshness import ROOT
from benchmarks.run import COURSE, cell_name, find_notebook
from benchmarks.tables import derive
from cvlib.records import load_records, write_atomically

SUITE = ROOT / "benchmarks" / "suite.yaml"


class Cell(NamedTuple):
    """One run of a chapter; `name` holds the hash of what makes it."""

    chapter: str
    preset: str
    data: str
    seed: int
    name: str


def cells(preset, suite=SUITE, course=COURSE):
    """The cells of `preset` in the file `suite`, in its order.

    Raises:
        ValueError: the preset is not in the suite, or a chapter has no notebook.
    """
    grid = yaml.safe_load(Path(suite).read_text("utf-8"))
    if preset not in grid:
        raise ValueError(f"{suite}: there is no preset {preset!r}.")
    return [
        Cell(row["chapter"], preset, data, seed, cell_name(notebook, preset, data, seed))
        for row in grid[preset]
        for notebook in [find_notebook(row["chapter"], course)]
        for data in row["data"]
        for seed in row["seeds"]
    ]


def run_grid(names, snakemake, out):
    """Run the command `snakemake` in `out`, printing how many of `names` are done and time left."""
    (out / "logs").mkdir(parents=True, exist_ok=True)
    with open(out / "logs" / "snakemake.log", "w") as log:
        process = subprocess.Popen(snakemake, stdout=log, stderr=subprocess.STDOUT)
    start, before, shown = time.monotonic(), count_done(names, out), None
    while shown is None or process.poll() is None:
        if (done := count_done(names, out)) != shown:
            print(progress(done, before, len(names), time.monotonic() - start), flush=True)
            shown = done
        time.sleep(0.2)
    if (done := count_done(names, out)) != shown:
        print(progress(done, before, len(names), time.monotonic() - start), flush=True)


def count_done(names, out):
    return sum((out / "cells" / name).is_dir() for name in names)


def progress(done, before, total, seconds):
    """`"3 of 8 done, about 4 min left"`, from the pace since `before` cells were done."""
    text = f"{done} of {total} done"
    if before < done < total:
        left = seconds / (done - before) * (total - done)
        text += f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", default="quick", choices=("smoke", "quick", "full"))
    parser.add_argument("--out", default="build/grid", type=Path, help="folder for all it makes")
    parser.add_argument("--results", type=Path, help="folder that keeps records/ and tables/")
    parser.add_argument("--jobs", default=1, type=int, help="cells that run at the same time")
    parser.add_argument("--suite", default=SUITE, type=Path)
    parser.add_argument("--course", default=COURSE, type=Path, help="folder of the chapters")
    args = parser.parse_args()
    out, suite, course = args.out.resolve(), args.suite.resolve(), args.course.resolve()
    try:
        names = [cell.name for cell in cells(args.preset, suite, course)]
    except ValueError as error:
        sys.exit(str(error))
    run_grid(
        names,
        # A killed run leaves its lock; two runs at once do no harm, since a cell's folder
        # appears in one step.
        [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "benchmarks" / "Snakefile"]
        + ["--directory", out, "--cores", str(args.jobs), "--scheduler", "greedy"]
        + ["--rerun-incomplete", "--nolock", "--rerun-triggers", "mtime", "--keep-going"]
        + ["--config", f"preset={args.preset}", f"suite={suite}", f"course={course}"],
        out,
    )
    done = [name for name in names if (out / "cells" / name).is_dir()]
    if args.results:
        for path in (path for name in done for path in (out / "cells" / name).glob("records/*")):
            write_atomically(args.results / "records" / path.name, path.read_text("utf-8"))
        records = load_records(args.results / "records")
    else:
        records = [r for name in done for r in load_records(out / "cells" / name / "records")]
    tables = (args.results or out) / "tables"
    try:
        derive(records, tables, args.preset)
    except ValueError as error:
        sys.exit(str(error))
    print(f"Tables: {os.path.relpath(tables)}")
    missing = [name for name in names if name not in done]
    for name in missing:
        log = out / "logs" / f"{name}.log"
        reason = log.read_text().strip().rpartition("\n")[2] if log.exists() else "It never began."
        print(f"{name}: {reason}", file=sys.stderr)
    if missing:
        sys.exit(f"{len(missing)} of {len(names)} cells have no result; see {out / 'logs'}.")


if __name__ == "__main__":
    main()
