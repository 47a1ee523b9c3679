"""Chapter 13: all detectors, side by side."""

from benchmarks.claims import Claim

VOC07 = {"dataset": "VOC07 test"}

TABLES = {
    "detectors": {
        "title": "All detectors, side by side",
        "settings": (),
        "metrics": (
            *("mAP@0.5", "mAP", "images/s@n", "ms p50", "ms p90"),
            *("training s", "million multiply-adds"),
        ),
        "papers": [
            VOC07 | {"metric": "mAP@0.5"},
            VOC07 | {"metric": "time per image"},
            VOC07 | {"metric": "speed"},
        ],
    },
}

COLUMNS = {
    "images/s@n": "pictures a second, n at a time, with the proposals of selective search",
    "ms p50, ms p90": "of one picture, with its proposals: median and 90th percentile",
    "training s": "seconds of training, without the proposals",
    "million multiply-adds": "of trunk, windows and regions, for a picture",
}

SPEED = "images/s@1"

CLAIMS = [
    Claim(
        f"{system} detects better than HOG templates.",
        metric="mAP@0.5",
        left={"system": system},
        right={"system": "HOG"},
        reason="400 pictures are too few for its fully connected layers (chapter 12)"
        if system == "YOLO"
        else "",
    )
    for system in ("DPM", "OverFeat", "R-CNN", "Fast R-CNN", "Faster R-CNN", "YOLO")
] + [
    Claim(
        "Fast R-CNN beats a pyramid on a frozen trunk.",
        metric="mAP@0.5",
        left={"system": "Fast R-CNN"},
        right={"system": "SPP-net"},
        papers=(
            VOC07 | {"system": "Fast R-CNN", "conditions": "VGG-16 trained on 07"},
            VOC07 | {"system": "SPPnet", "conditions": "VGG-16"},
        ),
    ),
    Claim(
        "Faster R-CNN takes less time than Fast R-CNN with proposals from outside.",
        metric=SPEED,
        left={"system": "Faster R-CNN"},
        right={"system": "Fast R-CNN"},
    ),
    Claim(
        "YOLO is faster than Faster R-CNN.",
        metric=SPEED,
        left={"system": "YOLO"},
        right={"system": "Faster R-CNN"},
    ),
    Claim(
        "Faster R-CNN detects better than YOLO.",
        metric="mAP@0.5",
        left={"system": "Faster R-CNN"},
        right={"system": "YOLO"},
    ),
    Claim(
        "R-CNN takes longer for a picture than Fast R-CNN.",
        metric=SPEED,
        left={"system": "Fast R-CNN"},
        right={"system": "R-CNN"},
    ),
]
