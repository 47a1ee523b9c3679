import pytest

from ci.prose import bare_numbers, embed_tables, wrong_numbers


def record(iou, seed=0, **settings):
    return {
        "system": "Localizer",
        "settings": settings,
        "chapter": "02",
        "preset": "full",
        "data": "coco:pets",
        "split": "test",
        "seed": seed,
        "metrics": {"box_iou": iou},
        "milliseconds": {"graph": {"p50": 12.5}},
        "backend": "jax",
        "device": "a processor",
        "precision": "float32",
    }


RECORDS = [record(0.61, attach="conv"), record(0.64, 1, attach="conv"), record(0.5, attach="fc")]
PAPERS = [
    {"system": "R-CNN", "dataset": "VOC07 test", "metric": "mAP@0.5", "value": v, "unit": "%"}
    | {"conditions": c}
    for v, c in (("54.2", "plain"), ("58.5", "box regression"))
] + [{"system": "DeepPose", "dataset": "LSP", "metric": "PCP", "value": "0.61", "unit": "fraction"}]
OURS = "<!-- record: system=Localizer data=coco:pets preset=full attach=conv metric=box_iou -->"
THEIRS = '<!-- paper: system=R-CNN dataset="VOC07 test" metric=mAP@0.5 conditions=plain -->'


# The mean of 0.61 and 0.64 is 0.625.
@pytest.mark.parametrize(
    "text",
    [
        f"0.625{OURS}",
        f"**0.625** {OURS}",
        f"62.5 %{OURS}",
        f"It takes 12.5{OURS.replace('box_iou', 'milliseconds.graph.p50')} ms.",
        f"54.2 %{THEIRS} and 54{THEIRS}",
        "61%<!-- paper: system=DeepPose dataset=LSP metric=PCP -->",
        "0.6<!-- paper: system=DeepPose dataset=LSP\nmetric=PCP -->",
        "no number <!-- a comment -->",
    ],
)
def test_numbers_that_agree(text):
    assert list(wrong_numbers(text, RECORDS, PAPERS)) == []


@pytest.mark.parametrize(
    "text, fault",
    [
        (f"0.63{OURS}", "0.63 is written where"),
        (f"0.6{OURS} then 0.7{OURS}", "gives 0.6."),
        (f"54.3{THEIRS}", "gives 54.2."),
        (f"much{OURS}", "does not follow a number"),
        ("1.0<!-- record: box_iou -->", "not a list of name=value"),
        ("1.0<!-- record: system=Localizer -->", "does not name data, metric, preset"),
        (f"0.5{OURS.replace('conv', 'both')}", "matches no record"),
        (f"0.5{OURS.replace('attach=conv', '')}", "differ in settings"),
        (f"0.5{OURS.replace('box_iou', 'mAP')}", "without the metric mAP"),
        (f"54.2{THEIRS.replace('conditions=plain', '')}", "matches 2 rows"),
        (f"54.2{THEIRS.replace('plain', 'other')}", "matches 0 rows"),
    ],
)
def test_numbers_that_do_not(text, fault):
    faults = list(wrong_numbers(text, RECORDS, PAPERS))
    assert any(fault in sentence for sentence in faults)


def test_the_conditions_with_most_seeds_count_unless_one_is_named():
    on_gpu = record(0.9, attach="conv") | {"device": "H100"}
    assert list(wrong_numbers(f"0.625{OURS}", [on_gpu, *RECORDS], [])) == []
    named = OURS.replace("attach=conv", "attach=conv device=H100")
    assert list(wrong_numbers(f"0.9{named}", [on_gpu, *RECORDS], [])) == []
    (fault,) = wrong_numbers(f"0.9{OURS}", [on_gpu, *RECORDS[:1]], [])
    assert "differ in device" in fault


def test_bare_numbers_are_faults_only_where_measurements_are_told():
    text = f"""# Chapter 1.5
A rate of 0.01.
## What came out, on photographs
We reach 0.57, at `IoU > 0.5`, $\\tau = 0.25$, mAP@0.5, Keras 3.15.1 and 12 images.
### On scenes
A share of 80 %, and 0.62{OURS}. See [the paper](figure-1.2.png).
<!-- table: localization columns=system -->
| 0.9 |
<!-- end of table -->
## Exercises
Try 0.1.
"""
    assert [sentence.split()[0] for sentence in bare_numbers(text)] == ["0.57", "80"]


def test_a_table_block_selects_rows_and_columns(tmp_path):
    (tmp_path / "localization.csv").write_text("data,system,box_iou\na,x,0.1\nb,y,0.2\nb,z,\n")
    block = "<!-- table: localization data=b columns=system,box_iou -->"
    text = f"Before.\n{block}\nold\n<!-- end of table -->\nAfter."
    table = "| system | box_iou |\n| --- | --- |\n| y | 0.2 |\n| z |  |\n"
    filled = f"Before.\n{block}\n\n{table}\n<!-- end of table -->\nAfter."
    assert embed_tables(text, tmp_path) == filled
    assert embed_tables(filled, tmp_path) == filled


def test_of_runs_on_several_machines_a_table_block_takes_those_of_the_most_seeds(tmp_path):
    rows = "system,grid,seeds,box_iou,device\nx,5,3,0.1,A\nx,5,1,0.2,B\nx,7,1,0.3,B\n"
    (tmp_path / "localization.csv").write_text(rows)

    def embedded(words):
        text = f"<!-- table: localization {words} -->\n<!-- end of table -->"
        return embed_tables(text, tmp_path).splitlines()[4:-2]

    assert embedded("columns=system,box_iou") == ["| x | 0.1 |", "| x | 0.3 |"]
    assert len(embedded("columns=system,device")) == 3
    assert embedded("device=B columns=box_iou") == ["| 0.2 |", "| 0.3 |"]


@pytest.mark.parametrize("words", ["pose columns=system", "localization columns=b", "localization"])
def test_a_table_block_that_selects_nothing_known_is_refused(tmp_path, words):
    (tmp_path / "localization.csv").write_text("system\nx\n")
    with pytest.raises(ValueError, match="names no table or column"):
        embed_tables(f"<!-- table: {words} --><!-- end of table -->", tmp_path)
