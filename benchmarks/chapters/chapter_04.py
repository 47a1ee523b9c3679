"""Chapter 04: the sliding window as a convolution."""

from benchmarks.claims import Claim
from benchmarks.systems import SMALL, build

TABLES = {
    "sliding_window": {
        "title": "The sliding window as a convolution",
        "settings": ("view", "sides", "shifted", "merged", "network"),
        "metrics": ("accuracy", "box_iou", "localization_accuracy", "mAP@0.5", "difference"),
        "papers": [{"system": "OverFeat"}],
    },
    "sliding_cost": {
        "title": "The sliding window: crops against one convolution",
        "where": {"system": "dense_to_conv"},
        "settings": ("network", "windows"),
        "metrics": (
            *("crops ms", "convolution ms", "speed-up", "multiply-adds ratio"),
            *("share of the ratio", "crops MiB", "convolution MiB", "largest difference"),
        ),
        "papers": [],
    },
}

COLUMNS = {
    "view": "what an `OverFeat` sees: the whole picture in `one view`, `many windows`, `larger "
    "input`, `largest input` (the largest of the scales alone), `several scales`",
    "sides": "sides of the (square) pictures that it slides over, in pixels",
    "shifted": "pooling at all its offsets, for windows twice as dense in each direction",
    "merged": "detections are the merged boxes of many windows, or each the best window alone",
    "network": "padded network whose windows are compared with crops",
    "difference": "between the answer to a crop and that of the same window of a larger picture, "
    "relative to the answer",
    "windows, crops ms, convolution ms": "a grid of so many windows as crops and as one "
    "convolution: milliseconds",
    "speed-up, multiply-adds ratio, share of the ratio": "crops over convolution in time and in "
    "multiply-adds, and the first over the second",
    "crops MiB, convolution MiB": "memory that a pass needs at its peak",
    "largest difference": "between the outputs of both ways, in standard deviations of the outputs",
}

OVERFEAT = {"system": "OverFeat", "shifted": True, "merged": True}

CLAIMS = [
    *(
        Claim(
            sentence,
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
]


def sliding():
    """OverFeat at six scales, each window at nine shifts of its last pooling."""
    overfeat = build("OverFeat", "tiny", 8, SMALL, 64)
    return overfeat.slide(scales=(0.5, 0.75, 1, 1.25, 1.5, 2), shifted=True)


SYSTEMS = {"scenes": {"OverFeat": sliding}}
