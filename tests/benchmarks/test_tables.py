import csv
import json
from types import SimpleNamespace

import pytest

from benchmarks import chapters, tables
from benchmarks.chapters import load_chapters
from benchmarks.report import agrees, paper_rows
from benchmarks.tables import (
    COLUMNS,
    DATASETS,
    PAPERS,
    column_meanings,
    derive,
    explains,
    sort_records,
)

TABLES = tables.TABLES | {
    name: table for chapter in load_chapters().values() for name, table in chapter.TABLES.items()
}
FROZEN = {"attach": "conv", "trunk": "frozen", "loss": "l2", "boxes": "agnostic", "num_objects": 1}


def derived(tmp_path, records):
    derive(records, tmp_path)
    rows = list(csv.DictReader((tmp_path / "localization.csv").read_text().splitlines()))
    return rows, (tmp_path / "localization.md").read_text()


def test_a_row_is_the_mean_over_seeds_with_its_intervals(tmp_path, measured):
    records = [
        measured(
            seed,
            {"box_iou": iou, "accuracy": 0.5},
            settings=FROZEN | {"epochs": 6},
            per_image={"box_iou": [iou - 0.1, iou + 0.1] * 50},
        )
        for seed, iou in enumerate((0.6, 0.7, 0.8))
    ]
    (row,), text = derived(tmp_path, records)
    assert (row["box_iou"], row["seeds"], row["accuracy"]) == ("0.7000", "3", "0.5000")
    assert (row["box_iou t-interval low"], row["box_iou t-interval high"]) == ("0.4516", "0.9484")
    assert 0.67 < float(row["box_iou bootstrap low"]) < 0.69
    assert row["accuracy bootstrap low"] == "" and row["localization_accuracy"] == ""
    assert (row["attach"], row["other settings"], row["resolution"]) == (
        "conv",
        "epochs=6",
        "128x128",
    )
    assert (row["backend"], row["device"], row["host memory (MiB)"]) == (
        "jax",
        "a processor",
        "100",
    )
    assert "| 0.7000 [0.4516, 0.9484] b [" in text


@pytest.mark.parametrize(
    "change",
    [
        {"data": "coco:tiny"},
        {"split": "val"},
        {"preset": "quick"},
        {"system": "constant box"},
        {"settings": FROZEN | {"trunk": "joint"}},
        {"settings": FROZEN | {"epochs": 2}},
        {"backend": "torch"},
        {"device": "a card", "peak_memory_mib": {"host": 100, "device": 10}},
        {"cores": 4},
        {"precision": "mixed_bfloat16"},
        {"resolution": [64, 64]},
    ],
    ids=str,
)
def test_what_differs_in_more_than_the_seed_has_a_row_of_its_own(tmp_path, measured, change):
    first = measured(0, {"box_iou": 0.5}, settings=FROZEN)
    second = measured(1, {"box_iou": 0.6}, **({"settings": FROZEN} | change))
    rows, _ = derived(tmp_path, [first, second])
    assert [row["seeds"] for row in rows] == ["1", "1"]


def test_deriving_again_from_the_records_in_any_order_changes_no_byte(tmp_path, measured):
    records = [
        measured(
            s, {"box_iou": 0.5 + s / 7}, data=d, settings=FROZEN, per_image={"box_iou": [s, 1]}
        )
        for s in range(3)
        for d in ("scenes:single", "coco:tiny")
    ]
    derive(records, tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    derive(json.loads(json.dumps(records[::-1])), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


def test_other_chapters_and_no_records_leave_the_table_empty(tmp_path, measured):
    rows, text = derived(tmp_path, [measured(0, {"pcp": 0.5}, chapter="03")])
    assert rows == [] and "0.5000" not in text


def test_each_data_set_has_a_markdown_table_without_empty_columns(tmp_path, measured):
    records = [measured(0, {"box_iou": 0.5}, data=d) for d in ("coco:tiny", "scenes:three")]
    _, text = derived(tmp_path, records)
    assert text.index("## `coco:tiny`") < text.index("## `scenes:three`")
    assert "attach" not in text and "device memory" not in text
    assert "| accuracy |" in text


def test_every_selection_of_papers_finds_a_row_and_unchecked_ones_say_so():
    papers = list(csv.DictReader(PAPERS.read_text().splitlines()))
    for table in TABLES.values():
        for selection in table["papers"]:
            assert paper_rows([selection], papers)
    paper = dict.fromkeys(papers[0], "x") | {"value": "10", "unit": "%"}
    assert paper_rows([{"system": "x"}], [paper | {"checked": "no"}])[0][3] == "10 % (unchecked)"
    assert paper_rows([{"system": "x"}], [paper | {"checked": "yes"}])[0][3] == "10 %"


@pytest.mark.parametrize("name", ["papers.csv", "datasets.csv"])
def test_figures_of_papers_have_a_source_and_say_whether_it_was_checked(name):
    for row in csv.DictReader((PAPERS.parent / name).read_text().splitlines()):
        assert row["source"] and row["checked"] in ("yes", "no") and None not in row.values()


def test_the_data_sets_stand_beside_the_tables(tmp_path):
    derived(tmp_path, [])
    assert (tmp_path / "datasets.csv").read_text() == DATASETS.read_text()


def test_a_table_without_papers_has_no_section_for_them(tmp_path):
    derived(tmp_path, [])
    for name, table in TABLES.items():
        text = (tmp_path / f"{name}.md").read_text()
        assert ("What the papers report" in text) == bool(table["papers"])


def test_a_benchmark_has_a_table_of_its_own_in_the_order_of_its_settings(tmp_path, measured):
    kernel = {"chapter": "04", "system": "dense_to_conv", "preset": None, "seed": None}
    records = [
        measured(metrics={"speed-up": n}, settings={"network": "valid", "windows": n}, **kernel)
        for n in (16, 4, 1)
    ]
    derive(records, tmp_path)
    rows = list(csv.DictReader((tmp_path / "sliding_cost.csv").read_text().splitlines()))
    assert [row["windows"] for row in rows] == ["1", "4", "16"]
    assert (tmp_path / "sliding_window.csv").read_text().count("\n") == 1


def test_on_the_same_pictures_the_baselines_come_first(tmp_path, measured):
    records = [
        measured(system=system, metrics={"box_iou": 0.5}, data=data)
        for system in ("Localizer", "constant box")
        for data in ("scenes:single", "scenes:three")
    ]
    rows, _ = derived(tmp_path, records)
    assert [(row["data"], row["system"]) for row in rows] == [
        ("scenes:single", "constant box"),
        ("scenes:single", "Localizer"),
        ("scenes:three", "constant box"),
        ("scenes:three", "Localizer"),
    ]


def module(tables, columns=None):
    return SimpleNamespace(TABLES=tables, COLUMNS=columns or {}, CLAIMS=[])


def table(*metrics, settings=(), **where):
    return {"settings": settings, "metrics": metrics} | ({"where": where} if where else {})


def test_a_record_stands_in_the_tables_it_agrees_with_or_with_the_rest_of_its_chapter(measured):
    modules = {
        "02": module({"rest": table("a"), "apart": table("a", system="A")}),
        "13": module({"all": table("a", chapter=("02", "09"), system=("A", "B"))}),
    }
    shown = sort_records(modules, [measured(system=name) for name in "ABC"])
    assert {name: [r["system"] for r in mine] for name, (_, mine) in shown.items()} == {
        "latency": [],
        "command": [],
        "rest": ["B", "C"],
        "apart": ["A"],
        "all": ["A", "B"],
    }


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"chapter": "99"}, "No table .* shows the record of 'Localizer', chapter 99"),
        ({"chapter": None}, "No table .* chapter None, data scenes:single"),
        ({"metrics": {"box_iuo": 0.5}}, "No table .* shows box_iuo of 'Localizer', chapter 02"),
    ],
)
def test_a_record_or_a_metric_that_no_table_shows_is_an_error(tmp_path, measured, change, fault):
    with pytest.raises(ValueError, match=fault):
        derive([measured() | change], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_column_without_a_meaning_is_an_error():
    boxes = {"boxes": table("mAP@0.5", "AR/10", settings=("view",))}
    known = {"view": "of it", "AR/n": "a recall"}
    assert column_meanings({"09": module(boxes, known)})[-2:] == [
        ["09", "view", "of it"],
        ["09", "AR/n", "a recall"],
    ]
    with pytest.raises(ValueError, match="Chapter 09: the column 'AR/10' of the table 'boxes'"):
        column_meanings({"09": module(boxes, {"view": "of it"})})


def test_each_meaning_belongs_to_a_column():
    for chapter in load_chapters().values():
        columns = {c for t in chapter.TABLES.values() for c in (*t["settings"], *t["metrics"])}
        for names in chapter.COLUMNS:
            for name in names.split(", "):
                assert any(explains(name, column) for column in columns), name


def test_the_shared_columns_are_explained():
    for shared in tables.TABLES.values():
        for column in (*shared["settings"], *shared["metrics"]):
            assert any(explains(names, column) for names in COLUMNS), column


def test_a_metric_with_a_letter_is_as_many_columns_as_are_measured(tmp_path, measured):
    noise = {"data": "noise", "chapter": None, "settings": {"batch_size": 1}}
    records = [
        measured(metrics={"ms": 3, "ms/trunk": 2, "ms/heads": 1}, **noise),
        measured(metrics={"ms": 4, "ms/rpn": 2}, system="FasterRCNN", **noise),
    ]
    derive(records, tmp_path)
    rows = list(csv.DictReader((tmp_path / "latency.csv").read_text().splitlines()))
    columns = [name for name in rows[0] if name.startswith("ms") and "interval" not in name]
    assert [c for c in columns if "boot" not in c] == [
        *("ms", "ms p90"),
        *("ms/heads", "ms/rpn", "ms/trunk"),
    ]
    assert [row["ms/trunk"] for row in rows] == ["", "2.0000"]


def test_a_letter_in_a_name_stands_for_anything():
    assert explains("recall@t/n", "recall@0.5/all") and explains("a, pcp/x", "pcp/upper arm")
    assert not explains("recall@t/n", "recall@0.5") and not explains("mAP", "mAP@0.5")
    assert not explains("images/s", "images/x")


def test_the_meanings_stand_beside_the_tables(tmp_path):
    derive([], tmp_path)
    rows = list(csv.DictReader((tmp_path / "columns.csv").read_text().splitlines()))
    assert len(rows) > len(COLUMNS) and rows[0]["column"] == "data, split, preset, system"


def test_a_tuple_is_a_choice(measured):
    record = measured(settings={"windows": 4})
    assert agrees(record, {"chapter": ("02", "03"), "windows": 4})
    assert not agrees(record, {"chapter": ("03",)}) and not agrees(record, {"windows": 1})


def test_a_chapters_file_is_found_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "chapter_77.py").write_text("TABLES = {'x': {}}")
    monkeypatch.setattr(chapters, "__path__", [*chapters.__path__, str(tmp_path)])
    assert list(load_chapters())[-1] == "77"
