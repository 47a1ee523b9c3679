"""Chapter 20: multi-task network cascades."""

from benchmarks.claims import Claim
from benchmarks.systems import CELL_RPN, LARGE, SCENE_RPN, SMALL, of_photographs, of_scenes

TABLES = {
    "cascade": {
        "title": "Instance segmentation by a cascade",
        "settings": ("stages", "tested", "learning", "box_gradient"),
        "metrics": ("mAPr@0.5", "mAPr@0.7", "mAP@0.5", "ms", "times faster"),
        "papers": [
            {"system": "SDS", "dataset": "VOC12 val"},
            {"system": "Hypercolumns", "dataset": "VOC12 val"},
            {"system": "MNC", "dataset": "VOC12 val"},
        ],
    },
}

COLUMNS = {
    "stages": "of the cascade, in training",
    "tested": "its stages in the test, where the last two have the weights of the two before",
    "learning": "of all parts together, `end to end`, or `step by step`: masks, then classes, on "
    "the trunk and the proposals of Faster R-CNN",
    "box_gradient": "the losses of masks and classes reach the corners of the objects' boxes",
    "ms": "milliseconds for one picture, of the whole graph; of separate networks, of both as one",
    "times faster": "the separate networks' time for a picture over the cascade's",
}

FIVE = {"system": "MultiTaskCascade", "stages": 5, "box_gradient": True}
THREE = {"system": "MultiTaskCascade", "stages": 3, "tested": 3, "learning": "end to end"}
SEPARATE = {"system": "separate networks"}
SDS = {"chapter": "18", "system": "SDS, rule of chapter 20"}  # without the search for its regions

CLAIMS = [
    Claim(
        "Masks of the cascade fit better than filled boxes.",
        metric="mAPr@0.7",
        left=FIVE,
        right={"system": "FasterRCNN"},
    ),
    Claim(
        "The cascade segments instances better than separate networks.",
        metric="mAPr@0.5",
        left=FIVE,
        right=SEPARATE,
        papers=(
            {"system": "MNC", "dataset": "VOC12 val", "metric": "AP^r@0.5"},
            {"system": "SDS", "dataset": "VOC12 val", "metric": "AP^r@0.5"},
        ),
    ),
    Claim(
        "The cascade is faster than separate networks.",
        metric="times faster",
        left=FIVE,
        right=1,
        papers=({"system": "MNC", "metric": "time per image"},),
    ),
    Claim(
        "The cascade segments instances better than SDS of chapter 18, "
        "which saw 150 of the 255 test pictures of coco_mini.",
        metric="mAPr@0.5",
        left=FIVE,
        right=SDS,
    ),
    Claim(
        "The cascade takes less time for a picture than SDS of chapter 18.",
        metric="ms",
        left=FIVE,
        right=SDS,
        relation="less",
        papers=({"system": "MNC", "metric": "time per image"},),
    ),
    Claim(
        "Learning end to end is better than step by step.",
        metric="mAPr@0.5",
        left=THREE,
        right={"system": "MultiTaskCascade", "learning": "step by step"},
    ),
    Claim(
        "Five stages are better than three.",
        metric="mAPr@0.5",
        left=FIVE,
        right=THREE,
    ),
    Claim(
        "The gradient through the box raises the average precision.",
        metric="mAPr@0.7",
        left=FIVE,
        right={"system": "MultiTaskCascade", "stages": 5, "box_gradient": False},
    ),
    Claim(
        "The cascade has a mAPr@0.5 above 0.50 on nuclei.",
        metric="mAPr@0.5",
        left={**FIVE, "data": "coco:nuclei"},
        right=0.50,
    ),
]

STAGES = {"feature_map": "stride8", "crop_size": 10, "mask_hidden": 128, "hidden": 128}
STAGES |= {"post_nms": 100}
CELL_STAGES = {"feature_map": "stride16", "hidden": 512}
SYSTEMS = {
    "scenes": {"Cascade": of_scenes("MultiTaskCascade", 8, SMALL, **STAGES, **SCENE_RPN)},
    "photographs": {
        "Cascade": of_photographs("MultiTaskCascade", 3, LARGE, **CELL_STAGES, **CELL_RPN)
    },
}
