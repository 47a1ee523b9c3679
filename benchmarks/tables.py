"""Derive the tables and the claims from the records, and from nothing else.

    python -m benchmarks.tables

What is in them, `benchmarks/chapters/` says.
"""

import argparse
import csv
import io
import json
import re
import sys
from pathlib import Path

import numpy as np

from benchmarks.chapters import load_chapters
from benchmarks.claims import report
from benchmarks.freshness import ROOT
from benchmarks.report import (
    agrees,
    bootstrap_interval,
    interval,
    markdown_table,
    number,
    paper_rows,
    pooled,
    t_interval,
)
from cvlib.records import load_records, write_atomically

PAPERS = ROOT / "benchmarks" / "papers.csv"
DATASETS = ROOT / "benchmarks" / "datasets.csv"

# The tables of every chapter's records.
TABLES = {
    "latency": {
        "title": "Speed of a system alone",
        "where": {"data": "noise"},
        "settings": ("model", "batch_size"),
        "metrics": ("images/s", "ms", "ms p90", "ms/x"),
        "papers": [{"metric": "time per image"}, {"metric": "speed"}],
    },
    "command": {
        "title": "What `cvlib train` makes of a folder",
        "where": {"preset": "command"},
        "settings": ("epochs",),
        "metrics": ("mAP@0.5", "mAP", "mAPr@0.5", "mAPr@0.7", "mIoU", "pixel_accuracy"),
        "papers": [],
    },
}

# The meaning of the columns that every table has, and of those that several chapters share.
COLUMNS = {
    "data, split, preset, system": "as in the records",
    "other settings": "settings that have no column of their own",
    "seeds": "number of runs",
    "num_objects": "number K of objects in every image",
    "accuracy": "share of the objects whose class is right",
    "box_iou": "mean intersection over union of the box found and the true one",
    "localization_accuracy": "share of the objects whose class is right and whose IoU exceeds 0.5",
    "mAP@0.5": "mean average precision by Pascal VOC's area rule, at IoU 0.5",
    "mAP": "mean average precision by COCO's rule: the mean over IoU 0.5 to 0.95",
    "mAPr@t": "mean average precision of masks by Pascal VOC's area rule, at IoU t",
    "mIoU": "mean over the classes of the IoU of their pixels in all images",
    "pixel_accuracy": "share of the pixels whose class is right",
    "class_accuracy": "mean over the classes of the share of their pixels that is right",
    "a metric's t-interval": "95% interval of the mean over the seeds, by Student's t",
    "a metric's bootstrap, b": "95% interval of the mean over the images, by 2000 resamples of "
    "each image's mean over the seeds",
    "backend, precision, resolution": "as in the records",
    "device": "as in the records: a graphics card, or the processors that the runs had",
    "cores": "of the machine's processor",
    "parameters": "of the network",
    "model": "name of the file that was timed, or of the group of systems, built untrained",
    "batch_size": "images a run",
    "epochs": "passes over the training pictures",
    "images/s": "of the whole graph",
    "ms, ms p90": "of a run of the whole graph: median and 90th percentile",
    "ms/x": "median of the stage x",
    "host memory (MiB), device memory (MiB)": "largest of the runs",
}

# The simplest answers, with which the others are compared.
BASELINES = (
    *("constant box", "constant boxes", "filled boxes", "majority class", "mean pose"),
    *("most frequent class", "random boxes", "sliding windows", "the same boxes"),
)

# What must be equal for records to be runs of one thing over seeds.
CONDITIONS = ("backend", "device", "cores", "precision", "resolution")
_OPEN = re.compile(r"(?<=[@/])[tnx]\b")
KEYS = ("data", "split", "preset", "system", "settings", *CONDITIONS)


def derive(records, folder, preset="full"):
    """Write every table, as CSV and as Markdown, and the claims of `preset` into `folder`.

    Beside them stand the meaning of the columns and the table of the data sets, for the texts to
    embed. Deriving again from the same records changes no byte.

    Raises:
        ValueError: no table shows a record or one of its metrics, a column has no meaning, or a
            claim is ambiguous.
    """
    records = pooled(records)
    papers = list(csv.DictReader(PAPERS.read_text("utf-8").splitlines()))
    chapters = load_chapters()
    claims = {chapter: module.CLAIMS for chapter, module in chapters.items()}
    texts = {
        "columns.csv": csv_text(["chapter", "column", "meaning"], column_meanings(chapters)),
        "datasets.csv": DATASETS.read_text("utf-8"),
        "claims.md": report(records, claims, papers, preset),
    }
    for name, (table, mine) in sort_records(chapters, records).items():
        rows = table_rows(table, mine)
        texts[f"{name}.csv"] = as_csv(table, rows)
        texts[f"{name}.md"] = as_markdown(table, rows, papers)
    for name, text in texts.items():
        write_atomically(folder / name, text)


def sort_records(chapters, records):
    """Dict from a table's name to (table, the records that it shows).

    Args:
        chapters: the modules of `benchmarks.chapters`, as `load_chapters` gives them.
        records: list of records.

    Raises:
        ValueError: no table shows a record, or one of its metrics.
    """
    tables = {name: (None, table) for name, table in TABLES.items()} | {
        name: (chapter, table)
        for chapter, module in chapters.items()
        for name, table in module.TABLES.items()
    }
    shown = {name: [] for name in tables}
    for record in records:
        fitting = [
            name
            for name, (chapter, table) in tables.items()
            if "where" in table
            and agrees(record, {"chapter": chapter or record["chapter"]} | table["where"])
        ]
        if not {tables[name][0] for name in fitting} & {record["chapter"], None}:
            fitting += [
                name
                for name, (chapter, table) in tables.items()
                if "where" not in table and chapter == record["chapter"]
            ]
        columns = [column for name in fitting for column in tables[name][1]["metrics"]]
        missing = [m for m in record["metrics"] if not any(explains(c, m) for c in columns)]
        if missing or not fitting:
            raise ValueError(
                f"No table of benchmarks/chapters/ shows {', '.join(missing) or 'the record'} of "
                f"{record['system']!r}, chapter {record['chapter']}, data {record['data']}."
            )
        for name in fitting:
            shown[name].append(record)
    return {
        name: (table | {"metrics": _expanded(table["metrics"], shown[name])}, shown[name])
        for name, (_, table) in tables.items()
    }


def _expanded(columns, records):
    """`columns` with the metrics of `records` that `ms/x` and the like explain in their place."""
    found = sorted({metric for record in records for metric in record["metrics"]})
    return [
        metric
        for column in columns
        for metric in ([m for m in found if explains(column, m)] if is_open(column) else [column])
    ]


def column_meanings(chapters):
    """Rows (chapter, columns, meaning) on the columns of all tables, the shared ones first.

    Raises:
        ValueError: a column has no meaning.
    """
    rows = [["", names, meaning] for names, meaning in COLUMNS.items()]
    for chapter, module in chapters.items():
        for name, table in module.TABLES.items():
            for column in (*table["settings"], *table["metrics"]):
                if not any(explains(names, column) for names in COLUMNS | module.COLUMNS):
                    raise ValueError(
                        f"Chapter {chapter}: the column {column!r} of the table {name!r} has no "
                        "meaning in COLUMNS."
                    )
        rows += [[chapter, names, meaning] for names, meaning in module.COLUMNS.items()]
    return rows


def explains(names, column):
    """Whether `column` is one of `names`, where t, n or x after @ or / stands for anything."""
    patterns = (_OPEN.sub(".+", re.escape(name)) for name in names.split(", "))
    return any(re.fullmatch(pattern, column) for pattern in patterns)


def is_open(column):
    return bool(_OPEN.search(column))


def table_rows(table, records):
    """One dict for each group of records that differ in the seed only, in a fixed order.

    On the same pictures the baselines come first.
    """
    groups = {}
    for record in records:
        values = [record[k] for k in KEYS]
        values.insert(KEYS.index("system"), record["system"] not in BASELINES)  # false comes first
        key = json.dumps(values, sort_keys=True)
        groups.setdefault(key, []).append(record)
    by_seed = {key: sorted(group, key=lambda r: str(r["seed"])) for key, group in groups.items()}
    return [summary(table, by_seed[key]) for key in sorted(by_seed, key=_numbers_by_value)]


def _numbers_by_value(key):
    """A key to sort texts by in which 4 comes before 16."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)]


def summary(table, group):
    """Means over the seeds of `group` with their intervals, beside the conditions."""
    first = group[0]
    row = {key: first[key] for key in ("data", "split", "preset", "system")}
    row |= {key: first["settings"].get(key) for key in table["settings"]}
    row["other settings"] = {
        key: value for key, value in first["settings"].items() if key not in table["settings"]
    }
    row["seeds"] = len(group)
    for metric in table["metrics"]:
        values = [r["metrics"][metric] for r in group if metric in r["metrics"]]
        row[metric] = float(np.mean(values)) if values else None
        row[f"{metric} t-interval"] = t_interval(values)
        images = [r["per_image"][metric] for r in group if metric in r["per_image"]]
        whole = len(images) == len(group) and len({len(v) for v in images}) == 1
        row[f"{metric} bootstrap"] = bootstrap_interval(np.mean(images, axis=0)) if whole else None
    row |= {key: first[key] for key in CONDITIONS}
    row["parameters"] = first["parameters"]
    for place in ("host", "device"):
        peaks = [r["peak_memory_mib"][place] for r in group if r["peak_memory_mib"][place]]
        row[f"{place} memory (MiB)"] = max(peaks, default=None)
    return row


def text(value):
    """A cell's text: empty for None, (height)x(width) for a resolution."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={text(item)}" for key, item in sorted(value.items()))
    if isinstance(value, list):
        return "x".join(map(str, value))
    return "" if value is None else str(value)


def as_csv(table, rows):
    """`rows` with each interval as two columns."""
    header = list(summary_header(table))
    split = {f"{m} {kind}" for m in table["metrics"] for kind in ("t-interval", "bootstrap")}
    names = [
        name
        for key in header
        for name in ([f"{key} low", f"{key} high"] if key in split else [key])
    ]
    lines = []
    for row in rows:
        cells = []
        for key in header:
            if key in split:
                cells += [number(bound) for bound in row[key] or (None, None)]
            else:
                cells.append(number(row[key]) if key in table["metrics"] else text(row[key]))
        lines.append(cells)
    return csv_text(names, lines)


def csv_text(header, rows):
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    return stream.getvalue()


def as_markdown(table, rows, papers):
    """One table for each data set, without the columns that are empty all through it."""
    lines = [f"# {table['title']}\n"]
    lines.append(
        "Means over seeds on the split named. After a mean: its 95% t-interval over seeds, and the "
        "95% interval of a bootstrap over images (b). Empty: not measured.\n"
    )
    for data in sorted({row["data"] for row in rows}):
        mine = [row for row in rows if row["data"] == data]
        shown = [
            key
            for key in summary_header(table)
            if key != "data" and not key.endswith(("t-interval", "bootstrap"))
            if key in table["metrics"] or any(text(row[key]) for row in mine)
        ]
        lines.append(f"## `{data}`\n")
        body = [[markdown_cell(table, row, key) for key in shown] for row in mine]
        lines.append(markdown_table(shown, body))
    if not rows:
        lines.append(markdown_table(["system", *table["metrics"]], []))
    if table["papers"]:
        lines.append("## What the papers report\n")
        header = ["system", "data", "metric", "value", "conditions", "source"]
        lines.append(markdown_table(header, paper_rows(table["papers"], papers)))
    return "\n".join(lines)


def markdown_cell(table, row, key):
    if key not in table["metrics"]:
        return text(row[key])
    parts = [number(row[key]), interval(row[f"{key} t-interval"])]
    if bounds := row[f"{key} bootstrap"]:
        parts.append(f"b {interval(bounds)}")
    return " ".join(part for part in parts if part)


def summary_header(table):
    """The columns, those of a row of `summary`."""
    yield from ("data", "split", "preset", "system", *table["settings"], "other settings", "seeds")
    for metric in table["metrics"]:
        yield from (metric, f"{metric} t-interval", f"{metric} bootstrap")
    yield from (*CONDITIONS, "parameters", "host memory (MiB)", "device memory (MiB)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", default=ROOT / "results" / "records", type=Path)
    parser.add_argument("--tables", default=ROOT / "results" / "tables", type=Path)
    args = parser.parse_args()
    try:
        derive(load_records(args.records), args.tables)
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
