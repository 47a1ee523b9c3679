import pytest

from benchmarks.claims import CLAIMS, Claim, compare, report, verdict


def claim(**changes):
    arguments = dict(sentence="A is better than B.", chapter="02", metric="box_iou")
    return Claim(**(arguments | dict(left={"system": "A"}, right={"system": "B"}) | changes))


@pytest.mark.parametrize(
    "relation, margin, differences, expected",
    [
        ("greater", 0, [0.1, 0.11, 0.12], "holds"),
        ("greater", 0.2, [0.1, 0.11, 0.12], "fails"),
        ("greater", 0, [0.1, 0.5, -0.2], "undecided"),
        ("greater", 0, [-0.1, -0.11, -0.12], "fails"),
        ("less", 0, [-0.1, -0.11, -0.12], "holds"),
        ("less", 0.2, [-0.1, -0.11, -0.12], "fails"),
        ("less", 0, [0.1, 0.11, 0.12], "fails"),
        ("greater", 0, [0.0, 0.0, 0.0], "fails"),
        ("greater", 0, [0.5], "undecided"),
        ("greater", 0, [0.5, 0.5], "undecided"),
        ("greater", 0, [], "not measured"),
        ("equal", 0, [0.0, 0.0], "holds"),
        ("equal", 0, [0.0, 1e-9], "fails"),
        ("equal", 0, [], "not measured"),
    ],
)
def test_the_verdict_follows_the_interval(relation, margin, differences, expected):
    assert verdict(claim(relation=relation, margin=margin), differences) == expected


def test_records_are_paired_by_data_and_seed(measured):
    records = [measured(s, {"box_iou": 0.5 + s / 10}, system="A") for s in (0, 1, 2)]
    records += [measured(s, {"box_iou": 0.25}, system="B") for s in (1, 2, 3)]
    records += [measured(0, {"box_iou": 0.25}, system="B", data="coco:tiny")]
    ((conditions, seeds),) = compare(claim(), records).items()
    assert conditions[:2] == ("scenes:single", "test")
    assert {seed: values[:2] for seed, values in seeds.items()} == {1: (0.6, 0.25), 2: (0.7, 0.25)}


def test_a_side_is_chosen_by_its_settings_and_must_be_unambiguous(measured):
    records = [
        measured(0, {"box_iou": 0.5}, settings={"trunk": "frozen"}),
        measured(0, {"box_iou": 0.6}, settings={"trunk": "joint"}),
    ]
    chosen = claim(left={"trunk": "joint"}, right={"trunk": "frozen"})
    ((_, seeds),) = compare(chosen, records).items()
    assert seeds[0][:2] == (0.6, 0.5)
    with pytest.raises(ValueError, match="More than one record .* of: A is better than B"):
        compare(claim(left={"system": "Localizer"}), records)


def test_the_report_gives_values_difference_and_verdict(measured):
    records = [
        measured(s, {"box_iou": v}, system=name, per_image={"box_iou": [v, v, v]})
        for name, base in (("A", 0.75), ("B", 0.5))
        for s, v in enumerate((base, base + 0.01, base + 0.02))
    ]
    (row,) = [
        line for line in report(records, claims=[claim()]).splitlines() if "A is better" in line
    ]
    assert "| 0.7600 [0.7352, 0.7848] | 0.5100 [0.4852, 0.5348] |" in row
    assert "0.2500 [0.2500, 0.2500] b [0.2500, 0.2500] | 3 |" in row
    assert row.endswith("| holds |")
    failing = report(records, claims=[claim(relation="less", reason="A is larger.")])
    assert "| fails: A is larger. |" in failing


def test_a_claim_without_records_is_not_measured(measured):
    text = report([measured(0, {"box_iou": 0.5}, system="A")], claims=[claim()])
    assert text.count("not measured |") == 1


def test_a_metric_is_compared_with_a_number(measured):
    records = [measured(seed, {"box_iou": 0.1 + seed / 1000}, system="A") for seed in range(3)]
    below = claim(right=0.3, relation="less")
    assert report(records, claims=[below]).rstrip().endswith("| holds |")


def test_records_of_another_preset_prove_nothing(measured):
    records = [measured(0, {"box_iou": 0.5}, system=s, preset="quick") for s in "AB"]
    assert "| not measured |" in report(records, claims=[claim()])
    assert "| undecided |" in report(records, "quick", [claim()])


def test_every_claim_of_the_course_is_reported_without_any_record():
    text = report([])
    assert all(one.sentence in text for one in CLAIMS)
    assert text.count("| not measured |") == len(CLAIMS)
