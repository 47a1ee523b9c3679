"""Sentences of the course as tests over paired seeds. `benchmarks.tables` writes their verdicts."""

from dataclasses import dataclass

import numpy as np

from benchmarks.report import bootstrap_interval, interval, markdown_table, number, t_interval


@dataclass(frozen=True)
class Claim:
    """`value(left) - value(right)` is greater than `margin`, or less, or exactly zero.

    Attributes:
        sentence: what the course says.
        chapter: whose records it is about.
        metric: name of a metric.
        left: what a record must agree with: its `system`, `data`, ..., or its settings.
        right: the same, for the record with the same data and seed to compare with; or a number.
        relation: `"greater"`, `"less"` or `"equal"`.
        margin: how far beyond zero the difference must be.
        paper: what the papers report.
        reason: why it fails, where it does.
    """

    sentence: str
    chapter: str
    metric: str
    left: dict
    right: object
    relation: str = "greater"
    margin: float = 0.0
    paper: str = ""
    reason: str = ""


LOCALIZER = {"system": "Localizer", "loss": "l2", "boxes": "agnostic", "num_objects": 1}
OVERFEAT = {"system": "OverFeat", "shifted": True, "merged": True}
FIXED = {"system": "Localizer", "counts": "fixed"}
VARYING = {"system": "Localizer", "counts": "varying", "nothing": False}

CLAIMS = [
    Claim(
        "The frozen trunk keeps its accuracy exactly while the head learns.",
        chapter="02",
        metric="accuracy",
        left=LOCALIZER | {"attach": "conv", "trunk": "frozen"},
        right={"system": "classifier"},
        relation="equal",
    ),
    Claim(
        "A head after the last convolution finds the box better than one after the fully "
        "connected layer.",
        chapter="02",
        metric="box_iou",
        left=LOCALIZER | {"attach": "conv", "trunk": "frozen"},
        right=LOCALIZER | {"attach": "fc", "trunk": "frozen"},
    ),
    Claim(
        "Smooth L1 finds the box better than L2.",
        chapter="02",
        metric="box_iou",
        left=LOCALIZER | {"attach": "conv", "trunk": "frozen", "loss": "smooth_l1"},
        right=LOCALIZER | {"attach": "conv", "trunk": "frozen"},
    ),
    Claim(
        "One box for each class is better than one for all.",
        chapter="02",
        metric="box_iou",
        left=LOCALIZER | {"attach": "conv", "trunk": "frozen", "boxes": "per_class"},
        right=LOCALIZER | {"attach": "conv", "trunk": "frozen"},
        reason="each class's box learns from the pictures of its class alone",
    ),
    Claim(
        "Training the trunk together with both heads finds the box better than a frozen trunk.",
        chapter="02",
        metric="box_iou",
        left=LOCALIZER | {"attach": "conv", "trunk": "joint", "loss": "smooth_l1"},
        right=LOCALIZER | {"attach": "conv", "trunk": "frozen", "loss": "smooth_l1"},
    ),
    Claim(
        "Regression finds K boxes where there are always K objects: better than K constant boxes.",
        chapter="02",
        metric="box_iou",
        left={"system": "Localizer", "num_objects": 3},
        right={"system": "constant box", "num_objects": 3},
    ),
    Claim(
        "Accuracy and IoU are different tasks: training the trunk for both, which moves the "
        "boxes, does not make more classes right.",
        chapter="02",
        metric="accuracy",
        left=LOCALIZER | {"attach": "conv", "trunk": "joint", "loss": "smooth_l1"},
        right=LOCALIZER | {"attach": "conv", "trunk": "frozen", "loss": "smooth_l1"},
        relation="less",
    ),
    *(
        Claim(
            sentence,
            chapter="03",
            metric=metric,
            left={"system": "PoseRegressor", "stages": stages},
            right=right,
            relation=relation,
        )
        for metric, relation in (("pcp", "greater"), ("pck@0.2", "greater"), ("nme", "less"))
        for sentence, stages, right in (
            ("Regression of joints beats the mean pose.", 1, {"system": "mean pose"}),
            ("A second look makes the pose better.", 2, {"system": "PoseRegressor", "stages": 1}),
            ("A third look makes it better still.", 3, {"system": "PoseRegressor", "stages": 2}),
            ("Three stages are better than one.", 3, {"system": "PoseRegressor", "stages": 1}),
        )
    ),
    *(
        Claim(
            f"Look {stages} mends other pictures' mistakes better than a picture's own.",
            chapter="03",
            metric="distance after",
            left={"system": "one look", "stages": stages, "mistakes": "exchanged"},
            right={"system": "one look", "stages": stages, "mistakes": "own"},
            relation="less",
        )
        for stages in (2, 3)
    ),
    *(
        Claim(
            sentence,
            chapter="04",
            metric=metric,
            left=OVERFEAT | left,
            right=right if "system" in right else OVERFEAT | right,
        )
        # By the first on `scenes`, by the others on photographs.
        for metric in ("mAP@0.5", "accuracy", "box_iou", "localization_accuracy")
        for sentence, left, right in (
            (
                "The sliding window beats the constant box.",
                {"view": "many windows"},
                {"system": "constant box"},
            ),
            (
                "Many windows beat one view.",
                {"view": "many windows"},
                {"view": "one view"},
            ),
            (
                "A larger input helps.",
                {"view": "larger input"},
                {"view": "many windows"},
            ),
            (
                "Several scales beat one.",
                {"view": "several scales"},
                {"view": "larger input"},
            ),
            (
                "Several scales beat the largest of them.",
                {"view": "several scales"},
                {"view": "largest input"},
            ),
            (
                "Shifted pooling helps with one scale.",
                {"view": "larger input"},
                {"view": "larger input", "shifted": False},
            ),
            (
                "Shifted pooling helps with several scales.",
                {"view": "several scales"},
                {"view": "several scales", "shifted": False},
            ),
            (
                "Merging beats the single best window.",
                {"view": "several scales"},
                {"view": "several scales", "merged": False},
            ),
        )
        # The class is that of the highest score, whatever becomes of the boxes. Only on `scenes` is
        # there a view of the largest scale that is not "larger input" itself.
        if metric != "accuracy" or "merged" not in right
        if metric == "mAP@0.5" or right.get("view") != "largest input"
    ),
    Claim(
        "On pictures with exactly three objects, regression trained on exactly three detects "
        "better than regression trained on any number.",
        chapter="05",
        metric="mAP@0.5",
        left=FIXED | {"data": "scenes:three"},
        right=VARYING,
    ),
    Claim(
        "It does so too on those pictures of the varying set that hold three objects.",
        chapter="05",
        metric="mAP@0.5/3",
        left=FIXED | {"data": "scenes"},
        right=VARYING,
        reason="it learnt from `scenes:three`, whose objects are smaller and overlap less",
    ),
    Claim(
        'An output that can say "nothing" makes regression a better detector where counts vary.',
        chapter="05",
        metric="mAP@0.5",
        left=VARYING | {"nothing": True, "data": "scenes"},
        right=VARYING,
    ),
    Claim(
        "Regression detects better than constant boxes where counts vary.",
        chapter="05",
        metric="mAP@0.5",
        left=VARYING | {"data": "scenes"},
        right={"system": "constant boxes", "counts": "varying"},
    ),
    *(
        Claim(
            "Sliding windows need at least ten times as many boxes as selective search for the "
            f"same recall at IoU {t}.",
            chapter="08",
            metric=f"windows per proposal@{t}",
            left={"system": "selective search, fast"},
            right=10,
            reason="a coarse grid is enough for the recall that it reaches there",
        )
        for t in (0.5, 0.7)
    ),
    *(
        Claim(
            sentence,
            chapter="08",
            metric="AR/1000",
            left={"system": "selective search, fast"},
            right={"system": other},
        )
        for other, sentence in {
            "selective search, single": "Diversified grouping beats a single one.",
            "random boxes": "Selective search beats random boxes.",
            "sliding windows": "Selective search beats sliding windows, 1,000 boxes each.",
            "superpixels": "Selective search beats superpixels.",
        }.items()
    ),
]


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
    return "holds" if low > claim.margin else "fails" if high <= claim.margin else "undecided"


def compare(claim, records):
    """The seeds' values, (left, right, left record, right record), for each set of conditions.

    Returns:
        Dict from (data, split, backend, device, precision) to a dict from seed to values.

    Raises:
        ValueError: more than one record agrees with a side, so that the claim is ambiguous.
    """
    left = _select(claim, claim.left, records)
    if isinstance(claim.right, dict):
        right = _select(claim, claim.right, records)
    else:
        right = dict.fromkeys(left, (claim.right, None))
    found = {}
    for key in sorted(left.keys() & right.keys(), key=str):
        *conditions, seed = key
        (a, left_record), (b, right_record) = left[key], right[key]
        found.setdefault(tuple(conditions), {})[seed] = (a, b, left_record, right_record)
    return found


def report(records, preset="full", claims=CLAIMS):
    """`claims.md`: for each claim and data set the values, their difference and the verdict."""
    records = [record for record in records if record["preset"] == preset]
    rows = [row for claim in claims for row in _rows(claim, records)]
    header = ["claim", "data", "metric", "left", "right", "difference", "seeds"]
    return (
        "# Claims\n\n"
        f"Each sentence of the course as a test over paired seeds, preset `{preset}`. It holds "
        "where the whole 95% t-interval of the difference (left minus right) lies on the side "
        "claimed, fails where it lies wholly on the other, and is undecided otherwise, and with "
        "fewer than three seeds; equality must be exact on every seed. (b): 95% interval of a "
        "bootstrap over images.\n\n" + markdown_table([*header, "papers", "verdict"], rows)
    )


def _select(claim, wanted, records):
    """Dict from (conditions, seed) to (value, record) of the records that agree with `wanted`."""
    found = {}
    for record in records:
        known = record | record["settings"]
        agrees = all(known.get(key) == value for key, value in wanted.items())
        value = record["metrics"].get(claim.metric)
        if record["chapter"] != claim.chapter or not agrees or value is None:
            continue
        conditions = ("data", "split", "backend", "device", "precision", "seed")
        key = tuple(record[name] for name in conditions)
        if key in found:
            raise ValueError(f"More than one record agrees with {wanted} of: {claim.sentence}")
        found[key] = value, record
    return found


def _rows(claim, records):
    metric = claim.metric
    found = compare(claim, records)
    if not found:
        empty = [""] * 4
        return [[claim.sentence, "", metric, *empty, claim.paper, "not measured"]]
    rows = []
    for (data, split, backend, device, precision), seeds in found.items():
        lefts, rights, left_records, right_records = zip(*seeds.values(), strict=True)
        differences = [a - b for a, b in zip(lefts, rights, strict=True)]
        images = _image_differences(metric, left_records, right_records)
        difference = [number(np.mean(differences)), interval(t_interval(differences))]
        difference += [f"b {interval(bootstrap_interval(images))}"] if images is not None else []
        result = verdict(claim, differences)
        rows.append(
            [
                claim.sentence,
                f"{data} {split}, {backend} {precision} on {device}",
                metric,
                " ".join([number(np.mean(lefts)), interval(t_interval(lefts))]).strip(),
                " ".join([number(np.mean(rights)), interval(t_interval(rights))]).strip(),
                " ".join(part for part in difference if part),
                len(seeds),
                claim.paper,
                result + (f": {claim.reason}" if result == "fails" and claim.reason else ""),
            ]
        )
    return rows


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
