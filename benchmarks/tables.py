"""Derive the tables and the claims from the records, and from nothing else.

    python -m benchmarks.tables

A later chapter adds its table as an entry of TABLES.
"""

import argparse
import csv
import io
import json
import re
import sys
from pathlib import Path

import numpy as np

from benchmarks import claims
from benchmarks.freshness import ROOT
from benchmarks.report import bootstrap_interval, interval, markdown_table, number, t_interval
from cvlib.records import load_records, write_atomically

PAPERS = ROOT / "benchmarks" / "papers.csv"
DATASETS = ROOT / "benchmarks" / "datasets.csv"

# chapter, or the system that has a table of its own: whose records the table shows; settings: which
# of them set a row apart, in this order; metrics: the columns; papers: what papers report on them,
# as rows of papers.csv that agree.
TABLES = {
    "localization": {
        "title": "Classification and localization",
        "chapter": "02",
        "settings": ("attach", "trunk", "loss", "boxes", "num_objects"),
        "metrics": ("accuracy", "box_iou", "localization_accuracy"),
        "papers": [
            {"system": "OverFeat", "dataset": "ILSVRC13", "metric": "localization top-5 error"}
        ],
    },
    "pose": {
        "title": "Pose as regression",
        "chapter": "03",
        "settings": ("stages",),
        "metrics": (
            *("pcp", "pck@0.2", "nme"),
            *(f"pcp/{side} {limb}" for limb in ("arm", "leg") for side in ("upper", "lower")),
        ),
        "papers": [{"system": "DeepPose", "metric": "PCP average"}],
    },
    "looks": {
        "title": "Which mistakes a look mends: its pictures' own, or those of other pictures",
        "system": "one look",
        "settings": ("stages", "mistakes"),
        "metrics": ("distance before", "distance after"),
        "papers": [],
    },
    "sliding_window": {
        "title": "The sliding window as a convolution",
        "chapter": "04",
        "settings": ("view", "sides", "shifted", "merged", "network"),
        "metrics": ("accuracy", "box_iou", "localization_accuracy", "mAP@0.5", "difference"),
        "papers": [{"system": "OverFeat"}],
    },
    "sliding_cost": {
        "title": "The sliding window: crops against one convolution",
        "system": "dense_to_conv",
        "settings": ("network", "windows"),
        "metrics": (
            *("crops ms", "convolution ms", "speed-up", "multiply-adds ratio"),
            *("share of the ratio", "crops MiB", "convolution MiB", "largest difference"),
        ),
        "papers": [],
    },
    "varying_counts": {
        "title": "Regression where the number of objects varies",
        "chapter": "05",
        "settings": ("counts", "nothing", "num_objects"),
        "metrics": (
            *("accuracy", "box_iou", "localization_accuracy", "mAP@0.5", "mAP"),
            *(f"mAP@0.5/{n}" for n in range(1, 7)),
        ),
        "papers": [],
    },
    "evaluator_cost": {
        "title": "Average precision and IoU: ours beside their peers",
        "system": "average_precision",
        "settings": ("images", "classes"),
        "metrics": (
            *("mAP cvlib s", "mAP faster-coco-eval index s", "mAP faster-coco-eval evaluate s"),
            *("mAP ratio", "box IoU cvlib.boxes s", "box IoU evaluator s"),
            *("box IoU pycocotools s", "box IoU ratio"),
            *("mask IoU cvlib s", "mask IoU pycocotools s", "mask IoU ratio"),
        ),
        "papers": [],
    },
    "proposals": {
        "title": "Region proposals",
        "chapter": "08",
        "settings": ("pictures",),
        "metrics": (
            "boxes per image",
            *(f"{m}/{n}" for m in ("recall@0.5", "recall@0.7", "AR") for n in (10, 100, 1000)),
            *("seconds", "repeatability"),
            *("windows per proposal@0.5", "windows per proposal@0.7"),
            "downstream mAP@0.5",  # for the chapters whose detectors stand on proposals
        ),
        "papers": [{"system": "Selective search", "dataset": "VOC07 test"}],
    },
    "selective_search_cost": {
        "title": "Selective search: ours beside OpenCV's",
        "system": "selective_search",
        "settings": ("mode", "implementation", "images"),
        "metrics": (
            *("seconds", "seconds over OpenCV's", "boxes"),
            *(f"recall@{t}/{n}" for t in (0.5, 0.7) for n in (100, 1000, "all")),
        ),
        "papers": [],
    },
}

# What must be equal for records to be runs of one thing over seeds.
CONDITIONS = ("backend", "device", "precision", "resolution")
KEYS = ("data", "split", "preset", "system", "settings", *CONDITIONS)


def derive(records, folder, preset="full"):
    """Write every table, as CSV and as Markdown, and the claims of `preset` into `folder`.

    Beside them stands the table of the data sets, for the chapters to embed. Deriving again from
    the same records changes no byte.
    """
    papers = list(csv.DictReader(PAPERS.read_text("utf-8").splitlines()))
    for name, table in TABLES.items():
        rows = table_rows(table, records)
        write_atomically(folder / f"{name}.csv", as_csv(table, rows))
        write_atomically(folder / f"{name}.md", as_markdown(table, rows, papers))
    write_atomically(folder / "datasets.csv", DATASETS.read_text("utf-8"))
    write_atomically(folder / "claims.md", claims.report(records, preset))


def table_rows(table, records):
    """One dict for each group of records that differ in the seed only, in a fixed order."""
    groups = {}
    for record in records:
        if _belongs(record, table):
            key = json.dumps([record[k] for k in KEYS], sort_keys=True)
            groups.setdefault(key, []).append(record)
    by_seed = {key: sorted(group, key=lambda r: str(r["seed"])) for key, group in groups.items()}
    return [summary(table, by_seed[key]) for key in sorted(by_seed, key=_numbers_by_value)]


def _numbers_by_value(key):
    """A key to sort texts by in which 4 comes before 16."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)]


def _belongs(record, table):
    """Some systems have a table of their own; a chapter's table has the others."""
    if "system" in table:
        return record["system"] == table["system"]
    apart = {other.get("system") for other in TABLES.values()}
    return record["chapter"] == table["chapter"] and record["system"] not in apart


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
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    split = {f"{m} {kind}" for m in table["metrics"] for kind in ("t-interval", "bootstrap")}
    writer.writerow(
        name
        for key in header
        for name in ([f"{key} low", f"{key} high"] if key in split else [key])
    )
    for row in rows:
        cells = []
        for key in header:
            if key in split:
                cells += [number(bound) for bound in row[key] or (None, None)]
            else:
                cells.append(number(row[key]) if key in table["metrics"] else text(row[key]))
        writer.writerow(cells)
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


def paper_rows(selections, papers):
    """The rows of papers.csv that agree with a selection, as texts; unchecked ones say so."""
    return [
        [
            f"{paper['system']} ({paper['year']})",
            paper["dataset"],
            paper["metric"],
            f"{paper['value']} {paper['unit']}" + " (unchecked)" * (paper["checked"] != "yes"),
            paper["conditions"],
            paper["source"],
        ]
        for selection in selections
        for paper in papers
        if selection.items() <= paper.items()
    ]


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
