"""Chapter 02: classification and localization."""

from benchmarks.claims import Claim
from benchmarks.systems import SMALL, of_scenes

TABLES = {
    "localization": {
        "title": "Classification and localization",
        "settings": ("attach", "trunk", "loss", "boxes", "num_objects"),
        "metrics": ("accuracy", "box_iou", "localization_accuracy"),
        "papers": [
            {"system": "OverFeat", "dataset": "ILSVRC13", "metric": "localization top-5 error"}
        ],
    },
}

COLUMNS = {
    "attach": "the box head sees the last convolution (`conv`) or the fully connected layer (`fc`)",
    "trunk": "the rest of the network stays as the classifier left it (`frozen`) or learns too "
    "(`joint`)",
    "loss": "of the box head",
    "boxes": "one box whatever the class (`agnostic`), or one for each class (`per_class`)",
}

LOCALIZER = {"system": "Localizer", "loss": "l2", "boxes": "agnostic", "num_objects": 1}

CLAIMS = [
    Claim(
        "The frozen trunk keeps its accuracy exactly while the head learns.",
        metric="accuracy",
        left=LOCALIZER | {"attach": "conv", "trunk": "frozen"},
        right={"system": "classifier"},
        relation="equal",
    ),
    Claim(
        "A head after the last convolution finds the box better than one after the fully "
        "connected layer.",
        metric="box_iou",
        left=LOCALIZER | {"attach": "conv", "trunk": "frozen"},
        right=LOCALIZER | {"attach": "fc", "trunk": "frozen"},
    ),
    Claim(
        "Smooth L1 finds the box better than L2.",
        metric="box_iou",
        left=LOCALIZER | {"attach": "conv", "trunk": "frozen", "loss": "smooth_l1"},
        right=LOCALIZER | {"attach": "conv", "trunk": "frozen"},
    ),
    Claim(
        "One box for each class is better than one for all.",
        metric="box_iou",
        left=LOCALIZER | {"attach": "conv", "trunk": "frozen", "boxes": "per_class"},
        right=LOCALIZER | {"attach": "conv", "trunk": "frozen"},
        reason="each class's box learns from the pictures of its class alone",
    ),
    Claim(
        "Training the trunk together with both heads finds the box better than a frozen trunk.",
        metric="box_iou",
        left=LOCALIZER | {"attach": "conv", "trunk": "joint", "loss": "smooth_l1"},
        right=LOCALIZER | {"attach": "conv", "trunk": "frozen", "loss": "smooth_l1"},
    ),
    Claim(
        "Regression finds K boxes where there are always K objects: better than K constant boxes.",
        metric="box_iou",
        left={"system": "Localizer", "num_objects": 3},
        right={"system": "constant box", "num_objects": 3},
    ),
    Claim(
        "Accuracy and IoU are different tasks: training the trunk for both, which moves the "
        "boxes, does not make more classes right.",
        metric="accuracy",
        left=LOCALIZER | {"attach": "conv", "trunk": "joint", "loss": "smooth_l1"},
        right=LOCALIZER | {"attach": "conv", "trunk": "frozen", "loss": "smooth_l1"},
        relation="less",
    ),
]

SYSTEMS = {"scenes": {"Localizer": of_scenes("Localizer", 8, SMALL)}}
