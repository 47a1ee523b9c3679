import pytest

from benchmarks.chapters import load_chapters
from benchmarks.claims import Claim, compare, report, verdict


def claim(**changes):
    arguments = dict(sentence="A is better than B.", metric="box_iou")
    return Claim(**(arguments | dict(left={"system": "A"}, right={"system": "B"}) | changes))


def parts(records, *claims, preset="full", papers=()):
    """The rows of the verdicts and those of the details, for claims of chapter 02."""
    text = report(records, {"02": claims, "03": []}, papers, preset)
    assert "Chapter 03" not in text
    tables = text.partition("## Details")[::2]
    return [[line for line in t.splitlines() if line.startswith("| A is")] for t in tables]


@pytest.mark.parametrize(
    "relation, differences, expected",
    [
        ("greater", [0.1, 0.11, 0.12], "holds"),
        ("greater", [0.1, 0.5, -0.2], "undecided"),
        ("greater", [-0.1, -0.11, -0.12], "fails"),
        ("less", [-0.1, -0.11, -0.12], "holds"),
        ("less", [0.1, 0.11, 0.12], "fails"),
        ("greater", [0.0, 0.0, 0.0], "fails"),
        ("greater", [0.5], "undecided"),
        ("greater", [0.5, 0.5], "undecided"),
        ("equal", [0.0, 0.0], "holds"),
        ("equal", [0.0, 1e-9], "fails"),
    ],
)
def test_the_verdict_follows_the_interval(relation, differences, expected):
    assert verdict(claim(relation=relation), differences) == expected


def test_records_are_paired_by_data_and_seed(measured):
    records = [measured(s, {"box_iou": 0.5 + s / 10}, system="A") for s in (0, 1, 2)]
    records += [measured(s, {"box_iou": 0.25}, system="B") for s in (1, 2, 3)]
    records += [measured(0, {"box_iou": 0.25}, system="B", data="coco:tiny")]
    ((conditions, seeds),) = compare(claim(), "02", records).items()
    assert conditions[:2] == ("scenes:single", "test")
    assert {seed: values[:2] for seed, values in seeds.items()} == {1: (0.6, 0.25), 2: (0.7, 0.25)}


def test_a_side_is_chosen_by_its_settings_and_must_be_unambiguous(measured):
    records = [
        measured(0, {"box_iou": 0.5}, settings={"trunk": "frozen"}),
        measured(0, {"box_iou": 0.6}, settings={"trunk": "joint"}),
    ]
    chosen = claim(left={"trunk": "joint"}, right={"trunk": "frozen"})
    ((_, seeds),) = compare(chosen, "02", records).items()
    assert seeds[0][:2] == (0.6, 0.5)
    with pytest.raises(ValueError, match="More than one record .* of: A is better than B"):
        compare(claim(left={"system": "Localizer"}), "02", records)


def test_a_side_may_be_of_another_chapter(measured):
    records = [measured(0, {"box_iou": 0.5}, system="A", chapter="09")]
    records += [measured(0, {"box_iou": 0.25}, system="B", chapter=c) for c in ("02", "09")]
    assert not compare(claim(), "02", records)
    ((_, seeds),) = compare(claim(left={"chapter": "09", "system": "A"}), "02", records).items()
    assert seeds[0][3]["chapter"] == "02"


def test_accuracies_alone_are_compared_across_processors(measured):
    def records(metric, *devices):
        sides = [(0.5, "A", "AMD"), *((0.25, "B", device) for device in devices)]
        return [measured(0, {metric: v}, system=name, device=on) for v, name, on in sides]

    ((conditions, seeds),) = compare(claim(), "02", records("box_iou", "Intel")).items()
    assert conditions[3] == "several processors" and seeds[0][:2] == (0.5, 0.25)
    assert not compare(claim(metric="ms"), "02", records("ms", "Intel"))
    # One on the same processor counts alone; of two on others none is the right one.
    ((conditions, _),) = compare(claim(), "02", records("box_iou", "AMD", "Intel")).items()
    assert conditions[3] == "AMD"
    assert not compare(claim(), "02", records("box_iou", "Intel", "ARM"))
    on_card = records("box_iou", "H200")
    on_card[1]["peak_memory_mib"] = {"host": 100, "device": 1000}
    assert not compare(claim(), "02", on_card)


def test_the_report_gives_verdicts_and_then_values_and_differences(measured):
    records = [
        measured(s, {"box_iou": v}, system=name, per_image={"box_iou": [v, v, v]})
        for name, base in (("A", 0.75), ("B", 0.5))
        for s, v in enumerate((base, base + 0.01, base + 0.02))
    ]
    records += [measured(0, {"box_iou": 0.5}, system=name, data="coco:tiny") for name in "AB"]
    (verdicts,), (_, row) = parts(records, claim())
    assert verdicts.endswith("| box_iou | holds (scenes:single); undecided (coco:tiny) |")
    assert "| 0.7600 [0.7352, 0.7848] | 0.5100 [0.4852, 0.5348] |" in row
    assert "0.2500 [0.2500, 0.2500] b [0.2500, 0.2500] | 3 |" in row
    assert row.endswith("| holds |")
    ((failing,), _) = parts(records, claim(relation="less", reason="A is larger"))
    assert "| fails (scenes:single): A is larger; undecided" in failing
    text = report(records, {"02": [claim()]}, [])
    assert "holds 1, fails 0, undecided 1, not measured 0" in text


def test_the_conditions_with_most_seeds_decide(measured):
    records = [
        measured(s, {"box_iou": v + s / 100}, system=name)
        for name, v in (("A", 0.75), ("B", 0.5))
        for s in (0, 1, 2)
    ]
    records += [measured(0, {"box_iou": 0.5}, system=name, device="a GPU") for name in "AB"]
    (row,), details = parts(records, claim())
    assert row.endswith("| holds (scenes:single) |") and len(details) == 2
    assert "holds 1, fails 0, undecided 0" in report(records, {"02": [claim()]}, [])


def test_a_claim_stands_beside_what_the_papers_report(measured):
    records = [measured(0, {"box_iou": 0.5}, system=name) for name in "AB"]
    paper = dict(system="A", year="1999", dataset="X", metric="IoU", value="50", unit="%")
    paper |= dict(checked="yes", conditions="", source="")
    _, (row,) = parts(records, claim(papers=({"system": "A"},)), papers=[paper])
    assert "| A (1999) X IoU 50 % |" in row


def test_a_claim_without_records_is_not_measured(measured):
    (verdicts,), details = parts([measured(0, {"box_iou": 0.5}, system="A")], claim())
    assert verdicts.endswith("| not measured |") and details == []


def test_a_metric_is_compared_with_a_number(measured):
    records = [measured(seed, {"box_iou": 0.1 + seed / 1000}, system="A") for seed in range(3)]
    _, (row,) = parts(records, claim(right=0.3, relation="less"))
    assert row.endswith("| holds |")


def test_records_of_another_preset_prove_nothing(measured):
    records = [measured(0, {"box_iou": 0.5}, system=s, preset="quick") for s in "AB"]
    assert parts(records, claim())[0][0].endswith("| not measured |")
    assert parts(records, claim(), preset="quick")[1][0].endswith("| undecided |")


def test_every_claim_of_the_course_is_reported_without_any_record():
    claims = {chapter: module.CLAIMS for chapter, module in load_chapters().items()}
    text = report([], claims, [])
    assert all(one.sentence in text for listed in claims.values() for one in listed)
    assert text.count("| not measured |") == sum(map(len, claims.values())) > 0
