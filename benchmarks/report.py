"""Intervals, choices of records and papers, and how numbers and tables are written.

Nothing here differs between machines.
"""

import json
import re

import numpy as np
from scipy import stats

RESAMPLES = 2000
# Of the metrics those that are times, or made of times.
TIMES = re.compile(
    r"(^|[ /])(ms|s)($|[ @/])|/s($|@)|seconds|speed|faster|per pixel|share of proposals"
    r"|(training|test|time) ratio"
)


def t_interval(values):
    """95% t-interval of the mean of `values`: (low, high), or None for fewer than two."""
    if len(values) < 2:
        return None
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return np.mean(values) - half, np.mean(values) + half


def bootstrap_interval(values):
    """95% percentile interval of the mean of `values` (n,), one value an image, resampled.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    n = len(values)
    # Raw bits: NumPy promises no stream for the methods of its generators.
    draws = np.random.PCG64(0).random_raw(RESAMPLES * n) % np.uint64(n)
    means = np.asarray(values, float)[draws.reshape(RESAMPLES, n)].mean(axis=1)
    return tuple(np.percentile(means, (2.5, 97.5)))


def number(value):
    """`value` with four decimals, an empty string for None."""
    # Adding zero makes 0 of -0.
    return "" if value is None else f"{round(float(value), 4) + 0:.4f}"


def interval(bounds):
    return "" if bounds is None else f"[{number(bounds[0])}, {number(bounds[1])}]"


def markdown_table(header, rows):
    """A Markdown table of texts."""
    lines = [header, ["---"] * len(header), *rows]
    cells = ([str(cell).replace("|", r"\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def pooled(records):
    """The records, those of one thing whose seeds ran on several processors as of one device.

    Training amplifies what another processor rounds otherwise, so that the same seed there is one
    more draw, like another seed. Where one seed ran on two processors nothing is pooled, nor are
    graphics cards. Times differ from processor to processor: only a run that nothing else ran
    beside should have any, of one seed.

    Args:
        records: list of records.

    Returns:
        The list in the same order; pooled ones have all their processors as `device`.
    """
    ran = {}  # from what ran to a dict from a processor to seeds
    for record in records:
        seeds = ran.setdefault(_what(record), {}).setdefault(record["device"], [])
        seeds.append(record["seed"])
    found = []
    for record in records:
        processors = ran[_what(record)]
        seeds = sum(processors.values(), [])
        if len(processors) > 1 and len(set(seeds)) == len(seeds):
            record = record | {"device": ", ".join(sorted(processors))}
        found.append(record)
    return found


def _what(record):
    """A text of all that must agree for two records to be of one thing, but seed and processor."""
    keys = ("data", "split", "preset", "chapter", "system", "settings")
    keys += ("backend", "cores", "precision", "resolution")
    on_card = record["peak_memory_mib"].get("device") is not None
    return json.dumps([*(record[key] for key in keys), on_card and record["device"]])


def agrees(record, wanted):
    """Whether the fields and settings of `record` are those of the dict `wanted`.

    A tuple there is a choice.
    """
    known = record | record["settings"]
    return all(
        known.get(key) in value if isinstance(value, tuple) else known.get(key) == value
        for key, value in wanted.items()
    )


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
