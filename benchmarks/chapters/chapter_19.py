"""Chapter 19: hypercolumns."""

from benchmarks.claims import Claim
from benchmarks.systems import SMALL, of_scenes

TABLES = {
    "hypercolumns": {
        "title": "Masks from hypercolumns",
        "settings": ("depths", "grid", "scores"),
        "metrics": ("mAPr@0.5", "mAPr@0.7", "mask IoU"),
        "papers": [
            {"system": "SDS", "dataset": "VOC12 val"},
            {"system": "Hypercolumns", "dataset": "VOC12 val"},
        ],
    },
}

COLUMNS = {
    "depths": "maps of the trunk that a hypercolumn holds, and `fc`, two fully connected layers "
    "that see the whole box",
    "grid": "classifiers along each side of a box",
    "scores": "confidence of a detection: the `detector`'s, or `rescored` after its mask is drawn",
    "mask IoU": "mean IoU of the objects' masks with those drawn into their true boxes",
}

SEGMENTER = {"system": "HypercolumnSegmenter"}
ALL = {**SEGMENTER, "depths": "all", "grid": 5, "scores": "detector"}
CLAIMS = [
    Claim(
        "Masks from hypercolumns fit better than filled boxes.",
        metric="mAPr@0.7",
        left=ALL,
        right={"system": "FasterRCNN"},
    ),
    Claim(
        "Several depths are better than the last layers alone.",
        metric="mAPr@0.5",
        left=ALL,
        right={**SEGMENTER, "depths": "fc", "scores": "detector"},
    ),
    *(
        Claim(
            f"Several depths draw better masks than {name} alone.",
            metric="mask IoU",
            left=ALL,
            right={**SEGMENTER, "depths": depth, "scores": "detector"},
            reason=reason,
        )
        for depth, name, reason in (
            ("fc", "the fully connected layers", ""),
            ("stride16", "the map at stride 16", ""),
            ("stride8", "the map at stride 8", ""),
            (
                "stride4",
                "the map at stride 4",
                "in true boxes the finest map draws rendered objects a little better than all "
                "depths; in a detector's boxes, by mAP^r at 0.7, all depths are ahead of it",
            ),
        )
    ),
    Claim(
        "A grid of classifiers draws better masks than one classifier.",
        metric="mask IoU",
        left=ALL,
        right={**ALL, "grid": 1},
    ),
    Claim(
        "Rescoring by the mask raises the average precision.",
        metric="mAPr@0.5",
        left={**ALL, "scores": "rescored"},
        right=ALL,
    ),
]

DEPTHS = ("stride4", "stride8", "stride16", "fc")
MASKS = {"pool_size": 5, "hidden": 128}
SYSTEMS = {
    "scenes": {"Hypercolumns": of_scenes("HypercolumnSegmenter", 8, SMALL, 30, DEPTHS, **MASKS)}
}
