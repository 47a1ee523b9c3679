"""Numbers and tables in prose, each derived from a record or from `benchmarks/papers.csv`.

The syntax is described in `ci/README.md`.
"""

import csv
import functools
import re
import shlex

from benchmarks.freshness import ROOT
from benchmarks.report import markdown_table, pooled
from cvlib.records import IDENTITY, load_records

MEASURED_SECTIONS = ("what came out", "results so far")
REQUIRED = {
    "record": {"system", "data", "preset", "metric"},
    "paper": {"system", "dataset", "metric"},
}

_MARKER = re.compile(r"<!--\s*(record|paper):(.*?)-->", re.DOTALL)
_NUMBER = re.compile(r"([+-]?\d+(?:\.(\d+))?)(\s?%)?\**\s*$")
_TABLE = re.compile(r"(<!--\s*table:(.*?)-->).*?(<!-- end of table -->)", re.DOTALL)
_MARKED = re.compile(_NUMBER.pattern.removesuffix("$") + _MARKER.pattern, re.DOTALL)
_NOT_PROSE = re.compile(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$\n]+\$|\]\([^)]*\)", re.DOTALL)
_HEADING = re.compile(r"^(#+)\s+(.*)$", re.MULTILINE)
_BARE = re.compile(r"(?<![\w.@])\d+(?:\.\d+(?!\.?\w)|(?=\s?%))")


def wrong_numbers(text, records, papers):
    """Sentences on the marked numbers in `text` that differ from their source.

    Args:
        text: Markdown.
        records: list of records, as `cvlib.records.load_records` gives them.
        papers: list of dicts, the rows of `papers.csv`.
    """
    for marker in _MARKER.finditer(text):
        name = marker[0]
        number = _NUMBER.search(text[: marker.start()])
        if not number:
            yield f"{name} does not follow a number."
            continue
        try:
            fields = dict(part.split("=", 1) for part in shlex.split(marker[2]))
        except ValueError:
            yield f"{name} is not a list of name=value."
            continue
        if missing := REQUIRED[marker[1]] - fields.keys():
            yield f"{name} does not name {', '.join(sorted(missing))}."
            continue
        written, decimals, percent = number.groups()
        try:
            if marker[1] == "record":
                value = _recorded(fields, records) * (100 if percent else 1)
            else:
                value, unit = _reported(fields, papers)
                value *= 100 if percent and unit != "%" else 1
        except LookupError as error:
            yield f"{name} {error.args[0]}."
            continue
        expected = f"{value:.{len(decimals or '')}f}"
        if float(written) != float(expected):
            yield f"{written} is written where {name} gives {expected}."


def bare_numbers(text):
    """Sentences on the measured numbers in `text` that name no source.

    A measured number is a decimal or a percentage in one of `MEASURED_SECTIONS`, outside code,
    mathematics, links and embedded tables.
    """
    text = _NOT_PROSE.sub("", _MARKED.sub("", _TABLE.sub("", text)))
    level = 0
    start = 0
    for heading in [*_HEADING.finditer(text), None]:
        if level:
            for number in _BARE.finditer(text[start : heading and heading.start()]):
                yield f"{number[0]} names neither a record nor a paper."
        if heading:
            start, depth = heading.end(), len(heading[1])
            if heading[2].lower().startswith(MEASURED_SECTIONS):
                level = depth
            elif depth <= level:
                level = 0


def embed_tables(text, folder):
    """`text` with each table block holding what it selects from a derived table.

    Args:
        text: Markdown.
        folder: of the derived tables, CSV files.

    Raises:
        ValueError: a block names a table or a column that does not exist.
    """

    def block(match):
        try:
            return f"{match[1]}\n\n{_selected(match[2], folder)}\n{match[3]}"
        except (LookupError, OSError, ValueError):
            raise ValueError(f"{match[1]} names no table or column in {folder.name}.") from None

    return _TABLE.sub(block, text)


@functools.cache
def stored_records():
    """The committed records, as the tables are derived from them."""
    folder = ROOT / "results" / "records"
    return pooled(load_records(folder)) if folder.is_dir() else []


@functools.cache
def stored_papers():
    """The rows of `benchmarks/papers.csv`."""
    with open(ROOT / "benchmarks" / "papers.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _selected(block, folder):
    name, *words = shlex.split(block)
    where = dict(word.split("=", 1) for word in words)
    columns = where.pop("columns").split(",")
    with open(folder / f"{name}.csv", encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not {*columns, *where} <= set(reader.fieldnames):
            raise LookupError
        rows = [row for row in reader if where.items() <= row.items()]
        if "seeds" in reader.fieldnames and not {"backend", "device"} & {*columns, *where}:
            rows = _most_seeds(rows, reader.fieldnames[: reader.fieldnames.index("seeds")])
    return markdown_table(columns, [[row[column] for column in columns] for row in rows])


def _most_seeds(rows, keys):
    """Of rows that agree in `keys` and differ in what they ran on, those of the most seeds."""
    most = {}
    for row in rows:
        what = tuple(row[key] for key in keys)
        most[what] = max(most.get(what, 0), int(row["seeds"] or 0))
    return [row for row in rows if int(row["seeds"] or 0) == most[tuple(row[k] for k in keys)]]


def _recorded(fields, records):
    """Mean over the seeds of the metric that `fields` select from `records`."""
    found = [record for record in records if _matches(record, fields)]
    if not found:
        raise LookupError("matches no record")
    groups = {}
    for record in found:
        conditions = tuple(record[key] for key in ("backend", "device", "precision"))
        groups.setdefault(conditions, []).append(record)
    most = max(map(len, groups.values()))
    found = [record for group in groups.values() if len(group) == most for record in group]
    for key in IDENTITY:
        if key != "seed" and any(record[key] != found[0][key] for record in found):
            raise LookupError(f"matches records that differ in {key}")
    values = [_metric(record, fields["metric"]) for record in found]
    return sum(values) / len(values)


def _matches(record, fields):
    facts = {key: record[key] for key in IDENTITY} | record["settings"]
    return all(str(facts.get(key)) == value for key, value in fields.items() if key != "metric")


def _metric(record, name):
    if name in record["metrics"]:
        return record["metrics"][name]
    try:
        return float(functools.reduce(lambda part, key: part[key], name.split("."), record))
    except (KeyError, TypeError, ValueError):
        raise LookupError(f"matches a record without the metric {name}") from None


def _reported(fields, papers):
    """Value and unit of the one row of `papers` that `fields` select."""
    found = [row for row in papers if all(row.get(key) == fields[key] for key in fields)]
    if len({row["value"] for row in found}) != 1:
        raise LookupError(f"matches {len(found)} rows of papers.csv, not one")
    return float(found[0]["value"]), found[0]["unit"]
