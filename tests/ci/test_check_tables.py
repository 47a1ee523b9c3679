from benchmarks.tables import derive
from ci.check_tables import stale_tables


def test_tables_that_do_not_come_from_the_records_are_old(tmp_path):
    derive([], tmp_path)
    assert stale_tables([], tmp_path) == []
    (tmp_path / "localization.csv").write_text("typed,in\n")
    (tmp_path / "claims.md").unlink()
    (tmp_path / "other.csv").touch()
    assert stale_tables([], tmp_path) == ["claims.md", "localization.csv", "other.csv"]
