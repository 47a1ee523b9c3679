"""Checks that the tables are what the records give: `python -m ci.check_tables`."""

import sys
import tempfile
from pathlib import Path

from benchmarks.tables import derive
from ci import TABLES
from ci.prose import stored_records


def stale_tables(records, folder):
    """Names of the tables in `folder` that differ from those derived from `records`.

    A table that only one side has differs.
    """
    with tempfile.TemporaryDirectory() as temporary:
        derive(records, Path(temporary))
        fresh, stored = _contents(temporary), _contents(folder)
    return sorted(name for name in fresh | stored if fresh.get(name) != stored.get(name))


def _contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*") if path.is_file()}


def main():
    records = stored_records()
    stale = stale_tables(records, TABLES) if records else []
    for name in stale:
        print(f"{name}: the table is old; run `python -m benchmarks.tables`.")
    print(f"Tables of {len(records)} records checked, {len(stale)} old.")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
