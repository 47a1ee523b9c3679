"""Sentences of the course as tests over paired seeds. `benchmarks.tables` writes their verdicts.

The claims themselves are in `benchmarks/chapters/`.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from benchmarks.report import (
    TIMES,
    agrees,
    bootstrap_interval,
    interval,
    markdown_table,
    number,
    paper_rows,
    t_interval,
)

VERDICTS = ("holds", "fails", "undecided", "not measured")
HEADER = (
    *("claim", "data", "metric", "left", "right"),
    *("difference", "seeds", "papers", "verdict"),
)


@dataclass(frozen=True)
class Claim:
    """`value(left) - value(right)` is greater than zero, or less, or exactly zero.

    Attributes:
        sentence: what the course says.
        metric: name of a metric.
        left: what a record must agree with: its `system`, `data`, ..., or its settings.
        right: the same, for the record with the same data and seed to compare with; or a number.
        relation: `"greater"`, `"less"` or `"equal"`.
        papers: what papers report on it, as rows of papers.csv that agree.
        reason: why it fails, where it does.
    """

    sentence: str
    metric: str
    left: dict
    right: object
    relation: str = "greater"
    papers: tuple = ()
    reason: str = ""


def verdict(claim, differences):
    """`"holds"`, `"fails"`, `"undecided"` or `"not measured"`, by the t-interval over the seeds.

    Fewer than three seeds decide nothing but equality: two may agree by chance.
    """
    if not differences:
        return "not measured"
    if claim.relation == "equal":
        return "fails" if any(differences) else "holds"
    if len(differences) < 3:
        return "undecided"
    bounds = t_interval(differences)
    sign = 1 if claim.relation == "greater" else -1
    low, high = sorted(sign * bound for bound in bounds)
    return "holds" if low > 0 else "fails" if high <= 0 else "undecided"


def compare(claim, chapter, records):
    """The seeds' values, (left, right, left record, right record), for each set of conditions.

    On data where no seed of both sides ran on the same device, what is no time is compared across
    processors.

    Args:
        chapter: whose records both sides are, unless they name another.

    Returns:
        Dict from (data, split, backend, device, precision) to a dict from seed to values.

    Raises:
        ValueError: more than one record agrees with a side, so that the claim is ambiguous.
    """
    left = _select(claim, {"chapter": chapter} | claim.left, records)
    if isinstance(claim.right, dict):
        right = _select(claim, {"chapter": chapter} | claim.right, records)
        paired = {data for data, *_ in left.keys() & right.keys()}
        if not TIMES.search(claim.metric):
            left, right = (_on_any_processor(side, paired) for side in (left, right))
    else:
        right = dict.fromkeys(left, (claim.right, None))
    found = {}
    for key in sorted(left.keys() & right.keys(), key=str):
        *conditions, seed = key
        (a, left_record), (b, right_record) = left[key], right[key]
        found.setdefault(tuple(conditions), {})[seed] = (a, b, left_record, right_record)
    return found


def report(records, claims, papers, preset="full"):
    """`claims.md`: the verdicts, then for each claim and data set the values and their difference.

    Args:
        records: of any preset; those of `preset` count.
        claims: dict from a chapter's number to its claims.
        papers: rows of papers.csv.
    """
    records = [record for record in records if record["preset"] == preset]
    counts, verdicts, details = Counter(), [], []
    for chapter, listed in claims.items():
        if not listed:
            continue
        found = [_rows(claim, chapter, records, papers) for claim in listed]
        decisive = [_most_seeds(rows) for rows in found]
        counts.update(row[-1] for rows in decisive for row in rows or [["not measured"]])
        title = f"### Chapter {chapter}\n"
        summary = [
            [claim.sentence, claim.metric, _summary(claim, rows)]
            for claim, rows in zip(listed, decisive, strict=True)
        ]
        verdicts += [title, markdown_table(["claim", "metric", "verdict"], summary)]
        if measured := [row for rows in found for row in rows]:
            details += [title, markdown_table(HEADER, measured)]
    total = ", ".join(f"{result} {counts[result]}" for result in VERDICTS)
    return "\n".join(
        [
            "# Claims\n",
            f"Each sentence of the course as a test over paired seeds, preset `{preset}`. It holds "
            "where the whole 95% t-interval of the difference (left minus right) lies on the side "
            "claimed, fails where it lies wholly on the other, and is undecided otherwise, and "
            "with fewer than three seeds; equality must be exact on every seed.\n",
            "Both sides saw the same pictures, unless a sentence names another chapter. The test's "
            "pictures are fixed: a verdict says nothing of others. Of so many 95% intervals some "
            "lie on one side by chance.\n",
            f"Each claim on each data set counted: {total}.\n",
            "## Verdicts\n",
            "Where runs differ in backend, device or precision, those with most seeds count; seeds "
            "that ran on several processors, each on one, count as of one device. Accuracies are "
            "compared across processors where the two sides have none in common; times are not.\n",
            *verdicts,
            "## Details\n",
            "Means over the seeds and 95% t-intervals. (b): 95% interval of a bootstrap over "
            "images, which no verdict takes into account.\n",
            *details,
        ]
    )


def _select(claim, wanted, records):
    """Dict from (conditions, seed) to (value, record) of the records that agree with `wanted`."""
    found = {}
    for record in records:
        value = record["metrics"].get(claim.metric)
        if value is None or not agrees(record, wanted):
            continue
        conditions = ("data", "split", "backend", "device", "precision", "seed")
        key = tuple(record[name] for name in conditions)
        if key in found:
            raise ValueError(f"More than one record agrees with {wanted} of: {claim.sentence}")
        found[key] = value, record
    return found


def _on_any_processor(side, paired):
    """`side` with all processors as one device, but on the `paired` data sets; a seed that ran on
    several is left out."""
    found, several = {}, set()
    for key, (value, record) in side.items():
        data, split, backend, device, *others = key
        if data not in paired and record["peak_memory_mib"].get("device") is None:
            key = (data, split, backend, "several processors", *others)
            several |= {key} & found.keys()
        found[key] = value, record
    return {key: each for key, each in found.items() if key not in several}


def _rows(claim, chapter, records, papers):
    """A row of texts for each set of conditions under which `claim` was measured."""
    rows = []
    for conditions, seeds in compare(claim, chapter, records).items():
        data, split, backend, device, precision = conditions
        lefts, rights, left_records, right_records = zip(*seeds.values(), strict=True)
        differences = [a - b for a, b in zip(lefts, rights, strict=True)]
        images = _image_differences(claim.metric, left_records, right_records)
        difference = [number(np.mean(differences)), interval(t_interval(differences))]
        difference += [f"b {interval(bootstrap_interval(images))}"] if images is not None else []
        rows.append(
            [
                claim.sentence,
                f"{data} {split}, {backend} {precision} on {device}",
                claim.metric,
                " ".join([number(np.mean(lefts)), interval(t_interval(lefts))]).strip(),
                " ".join([number(np.mean(rights)), interval(t_interval(rights))]).strip(),
                " ".join(part for part in difference if part),
                len(seeds),
                "; ".join(" ".join(row[:4]).strip() for row in paper_rows(claim.papers, papers)),
                verdict(claim, differences),
            ]
        )
    return rows


def _most_seeds(rows):
    """Of `rows` on the same data, those of the backend, device and precision with most seeds."""
    most = {}
    for _, conditions, *_, seeds, _, _ in rows:
        data = conditions.partition(" ")[0]
        most[data] = max(most.get(data, 0), seeds)
    return [row for row in rows if row[6] == most[row[1].partition(" ")[0]]]


def _summary(claim, rows):
    """The verdicts with the data sets they are about: `"holds (a, b); fails (c): reason"`."""
    data = {}
    for row in rows:
        data.setdefault(row[-1], []).append(row[1].partition(" ")[0])
    texts = []
    for result in VERDICTS:
        if result in data:
            text = f"{result} ({', '.join(dict.fromkeys(data[result]))})"
            texts.append(text + (f": {claim.reason}" if result == "fails" and claim.reason else ""))
    return "; ".join(texts) or "not measured"


def _image_differences(metric, left_records, right_records):
    """(n,) differences on the images, means over the seeds; None where a record has none."""
    pairs = [
        [record and record["per_image"].get(metric) for record in pair]
        for pair in zip(left_records, right_records, strict=True)
    ]
    if len({None if v is None else len(v) for pair in pairs for v in pair} | {None}) != 2:
        return None
    if any(v is None for pair in pairs for v in pair):
        return None
    left, right = np.mean(pairs, axis=0)
    return left - right
