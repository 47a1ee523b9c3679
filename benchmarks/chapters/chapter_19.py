"""Chapter 19: hypercolumns."""

from benchmarks.claims import Claim
from benchmarks.systems import SMALL, of_scenes

# What the benchmark `benchmarks.kernels.hypercolumns` compares.
MASK_WAYS = {
    "in windows": "where each classifier counts, as `HypercolumnMasks` does",
    "everywhere": "by `ClassifierGrid` of `Hypercolumn`",
}

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
    "hypercolumn_cost": {
        "title": "Masks of boxes by 5 x 5 classifiers of hypercolumns",
        "where": {"system": "hypercolumn_masks"},
        "settings": ("boxes", "classes"),
        "metrics": tuple(f"{way}{kind} ms" for kind in (" graph", " XLA", "") for way in MASK_WAYS),
        "papers": [],
    },
}

COLUMNS = {
    "depths": "maps of the trunk that a hypercolumn holds, and `fc`, two fully connected layers "
    "that see the whole box",
    "grid": "classifiers along each side of a box",
    "scores": "confidence of a detection: the `detector`'s, or `rescored` after its mask is drawn",
    "mask IoU": "mean IoU of the objects' masks with those drawn into their true boxes",
    "boxes, classes": "of one picture, and of how many classes they are",
    **{
        f"{way} graph ms, {way} XLA ms, {way} ms": f"milliseconds of the masks {what}: as "
        "TensorFlow runs a graph, with XLA, and as PyTorch runs it"
        for way, what in MASK_WAYS.items()
    },
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
