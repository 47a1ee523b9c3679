"""A file for each chapter, `chapter_02.py`, found by its name: TABLES, COLUMNS, CLAIMS, SYSTEMS.

    TABLES = {"localization": {"title": ..., "settings": (...), "metrics": (...), "papers": [...]}}
    COLUMNS = {"trunk": "the rest of the network stays as it was (`frozen`) or learns too"}
    CLAIMS = [Claim("A sentence.", metric="box_iou", left={...}, right={...})]
    SYSTEMS = {"scenes": {"Localizer": of_scenes("Localizer", 8, SMALL)}}

TABLES: `settings` of the records that are columns of their own, in this order, which sorts the
rows; `metrics`, the other columns, where `AP/x` stands for all of that form; `papers`, what papers
report on them, as rows of papers.csv that agree. A table with `where` shows the records that agree
with it, a tuple being a choice: `{"system": "one look"}`, `{"chapter": ("09", "10")}`. One without
shows the rest of its chapter's.
COLUMNS: the meaning of the columns that `benchmarks.tables.COLUMNS` does not know, several names
with commas between them; `t`, `n` or `x` after `@` or `/` stands for anything: `mAP@0.5/n`.
CLAIMS: see `benchmarks.claims.Claim`; both sides are records of the chapter unless they name one.
SYSTEMS: those that the chapter builds, for `benchmarks.latency`; see `benchmarks.systems`. Not all
chapters have some.
"""

import importlib
import pkgutil


def load_chapters():
    """The modules of this folder, a dict from a chapter's number (`"02"`), in order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {
        name.removeprefix("chapter_"): importlib.import_module(f"{__name__}.{name}")
        for name in names
    }
