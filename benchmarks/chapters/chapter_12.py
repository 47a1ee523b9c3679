"""Chapter 12: YOLO, detection as regression, beside Faster R-CNN."""

from benchmarks.claims import Claim
from benchmarks.systems import LARGE, SMALL, of_photographs, of_scenes

TABLES = {
    "yolo": {
        "title": "YOLO beside Faster R-CNN",
        "settings": ("grid", "boxes"),
        "metrics": ("mAP@0.5", "mAP", "kept", "images/s@n", "ms@n", "ms p90@n", "surest/x"),
        "papers": [
            {"system": "YOLO"},
            {"system": "Fast YOLO"},
            {"system": "YOLO + Fast R-CNN"},
            {"system": "Faster R-CNN", "metric": "mAP@0.5"},
        ],
    },
}

COLUMNS = {
    "grid": "cells on each side of the picture",
    "boxes": "boxes of each cell",
    "kept": "`mAP@0.5` in the crowded pictures over that in the others",
    "images/s@n": "pictures in a second, n at a time, timed in the chapter",
    "ms@n, ms p90@n": "milliseconds of n pictures: median and 90th percentile",
    "surest/x": "share of the kind x among as many of the surest detections of each class as it "
    "has objects; `missed` is a share of the objects",
}

YOLO = {"system": "YOLO"}
FASTER = {"system": "FasterRCNN"}
TOGETHER = {"system": "YOLO + FasterRCNN"}
FAST = {"system": "Fast YOLO"}


def paper(system, metric="mAP@0.5", **conditions):
    return {"system": system, "dataset": "VOC07 test", "metric": metric, **conditions}


IN_PAPER = paper("YOLO"), paper("Faster R-CNN", conditions="VGG-16 trained on 07+12")

CLAIMS = [
    Claim(
        "YOLO detects better than boxes that do not look.",
        metric="mAP@0.5",
        left=YOLO,
        right={"system": "constant boxes"},
    ),
    *(
        Claim(
            f"YOLO is faster than Faster R-CNN, {pictures}.",
            metric=f"images/s@{n}",
            left=YOLO,
            right=FASTER,
            papers=(paper("YOLO", "speed"),),
        )
        for n, pictures in ((1, "one picture at a time"), (8, "eight pictures at a time"))
    ),
    Claim(
        "YOLO is less accurate than Faster R-CNN.",
        metric="mAP@0.5",
        left=YOLO,
        right=FASTER,
        relation="less",
        papers=IN_PAPER,
    ),
    Claim(
        "Of YOLO's surest detections fewer are background than of Faster R-CNN's.",
        metric="surest/background",
        left=YOLO,
        right=FASTER,
        relation="less",
        reason="a few hundred photographs teach YOLO little: less than half of its surest "
        "detections are right, and what is wrong lies on the background too",
    ),
    Claim(
        "Of YOLO's surest detections more have a poor box than of Faster R-CNN's.",
        metric="surest/poor box",
        left=YOLO,
        right=FASTER,
    ),
    Claim(
        "A crowd leaves less of YOLO's accuracy than of Faster R-CNN's.",
        metric="kept",
        left=YOLO,
        right=FASTER,
        relation="less",
    ),
    Claim(
        "Faster R-CNN detects better with YOLO's support.",
        metric="mAP@0.5",
        left=TOGETHER,
        right=FASTER,
        reason="YOLO misses many objects, and what it sees moves ahead of them",
        papers=(paper("YOLO + Fast R-CNN"),),
    ),
    Claim(
        "Both together detect better than YOLO alone.",
        metric="mAP@0.5",
        left=TOGETHER,
        right=YOLO,
        papers=(paper("YOLO + Fast R-CNN"), paper("YOLO")),
    ),
    Claim(
        "Fast YOLO is faster than YOLO.",
        metric="images/s@1",
        left=FAST,
        right=YOLO,
        papers=(paper("Fast YOLO", "speed"), paper("YOLO", "speed")),
    ),
    Claim(
        "Fast YOLO is less accurate than YOLO.",
        metric="mAP@0.5",
        left=FAST,
        right=YOLO,
        relation="less",
        papers=(paper("Fast YOLO"), paper("YOLO")),
    ),
]

GRID = {"feature_map": "stride16", "convolutions": (128, 64), "hidden": 512}
SYSTEMS = {
    "scenes": {"YOLO": of_scenes("YOLO", 8, SMALL, 7, **GRID)},
    "photographs": {"YOLO": of_photographs("YOLO", 3, LARGE, 14, **GRID)},
}
