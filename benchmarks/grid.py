"""Run the chapters of a preset, as far as they have not run yet, and derive their tables.

    python -m benchmarks.grid --preset quick --out build/tables-run

A run that was killed goes on where it stopped. With `--results results` the records are kept there
and the tables of all the records there are derived again. Snakemake runs the cells; where it is not
installed, they run one after the other.
"""

import argparse
import importlib.util
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


def cells(name, suite=SUITE, course=COURSE, shared=False):
    """The cells of the preset `name` of the file `suite`, in its order; `shared` if several run at
    a time.

    Raises:
        ValueError: the file cannot be read, the preset is not in it or has a row that is none, or a
            chapter has no notebook.
    """
    return [
        Cell(chapter, preset, data, seed, cell_name(notebook, preset, data, seed, shared))
        for row in _rows(name, suite)
        for chapter, preset in [(row["chapter"], row.get("preset", name))]
        for notebook in [find_notebook(chapter, course)]
        for data in row["data"]
        for seed in row["seeds"]
    ]


def _rows(name, suite):
    try:
        grid = yaml.safe_load(Path(suite).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{suite}: the suite cannot be read ({reason}).") from None
    if not isinstance(grid, dict) or not grid.get(name):
        raise ValueError(f"{suite}: there is no preset {name!r}.")
    rows = grid[name] if isinstance(grid[name], list) else [grid[name]]
    for row in rows:
        if not _is_row(row):
            raise ValueError(
                f"{suite}: {row} of the preset {name!r} is not "
                "{chapter: TEXT, data: [TEXT, ...], seeds: [INTEGER, ...]}, with a preset of the "
                "notebooks where it is another."
            )
    return rows


def _is_row(row):
    if not isinstance(row, dict) or row.keys() - {"preset"} != {"chapter", "data", "seeds"}:
        return False
    data, seeds = row["data"], row["seeds"]
    if not (isinstance(data, list) and isinstance(seeds, list) and data and seeds):
        return False
    texts = [row["chapter"], row.get("preset", ""), *data]
    return all(type(text) is str for text in texts) and all(type(seed) is int for seed in seeds)


def run_grid(names, commands, out):
    """Run `commands` in turn, printing how many of the cells `names` are done and the time left.

    Args:
        names: of the cells' folders in `out / "cells"`.
        commands: dict from the name of a log, in `out / "logs"`, to a command.
        out: folder for all of it.
    """
    (out / "logs").mkdir(parents=True, exist_ok=True)
    start, before, shown = time.monotonic(), count_done(names, out), None

    def show():
        nonlocal shown
        if (done := count_done(names, out)) != shown:
            print(progress(done, before, len(names), time.monotonic() - start), flush=True)
            shown = done

    for name, command in commands.items():
        with open(out / "logs" / f"{name}.log", "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
        show()
        while process.poll() is None:
            time.sleep(0.2)
            show()
    show()


def snakemake(args, suite, course, out):
    """The command that runs all cells."""
    # A killed run leaves its lock; two runs at once do no harm, since a cell's folder appears in
    # one step.
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "benchmarks" / "Snakefile"]
    command += ["--directory", out, "--cores", str(args.jobs), "--scheduler", "greedy"]
    command += ["--rerun-incomplete", "--nolock", "--rerun-triggers", "mtime", "--keep-going"]
    return [*command, "--config", f"preset={args.preset}", f"suite={suite}", f"course={course}"]


def cell_command(cell, course, out):
    """The command that runs one cell."""
    command = [sys.executable, "-m", "benchmarks.run", cell.chapter, "--preset", cell.preset]
    command += ["--data", cell.data, "--seed", str(cell.seed)]
    return [*command, "--course", course, "--out", out / "cells"]


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
    parser.add_argument("--preset", default="quick", help="of the suite: quick, full, gpu")
    parser.add_argument("--out", default="build/grid", type=Path, help="folder for all it makes")
    parser.add_argument("--results", type=Path, help="folder that keeps records/ and tables/")
    parser.add_argument(
        "--jobs",
        default=1,
        type=int,
        help="cells that Snakemake runs at a time; of several the records have no times",
    )
    parser.add_argument("--suite", default=SUITE, type=Path)
    parser.add_argument("--course", default=COURSE, type=Path, help="folder of the chapters")
    args = parser.parse_args()
    if args.jobs > 1 and args.results:
        sys.exit("--results keeps times too, which several --jobs at once do not give.")
    out, suite, course = args.out.resolve(), args.suite.resolve(), args.course.resolve()
    try:
        grid = cells(args.preset, suite, course, args.jobs > 1)
    except ValueError as error:
        sys.exit(str(error))
    names = [cell.name for cell in grid]
    if importlib.util.find_spec("snakemake"):
        commands = {"snakemake": snakemake(args, suite, course, out)}
    else:
        left = [cell for cell in grid if not (out / "cells" / cell.name).is_dir()]
        commands = {cell.name: cell_command(cell, course, out) for cell in left}
    run_grid(names, commands, out)
    done = [name for name in names if (out / "cells" / name).is_dir()]
    missing = [name for name in names if name not in done]
    for name in missing:
        log = out / "logs" / f"{name}.log"
        reason = log.read_text().strip().rpartition("\n")[2] if log.exists() else "It never began."
        print(f"{name}: {reason}", file=sys.stderr)
    tables = (args.results or out) / "tables"
    try:
        if args.results:
            for path in (p for name in done for p in (out / "cells" / name).glob("records/*")):
                write_atomically(args.results / "records" / path.name, path.read_text("utf-8"))
            records = load_records(args.results / "records")
        else:
            records = [r for name in done for r in load_records(out / "cells" / name / "records")]
        derive(records, tables, grid[0].preset)
    except ValueError as error:
        sys.exit(str(error))
    print(f"Tables: {os.path.relpath(tables)}")
    if missing:
        sys.exit(f"{len(missing)} of {len(names)} cells have no result; see {out / 'logs'}.")


if __name__ == "__main__":
    main()
