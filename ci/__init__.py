"""What `make test` checks besides the tests: notebooks, numbers in prose, derived tables."""

from benchmarks.freshness import ROOT

TABLES = ROOT / "results" / "tables"


def chapters():
    """Paths of the chapters, in order."""
    return sorted((ROOT / "course").glob("*.ipynb"))


def texts():
    """Paths of the Markdown files whose numbers and tables are derived."""
    return [ROOT / "README.md", *sorted((ROOT / "results").glob("*.md"))]
