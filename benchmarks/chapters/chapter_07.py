"""Chapter 07: templates with parts that move."""

from benchmarks.claims import Claim
from benchmarks.systems import SCENE_HOG, of_cells, of_templates

TABLES = {
    "deformable_parts": {
        "title": "Deformable parts",
        "settings": ("parts", "box", "components", "hard rounds"),
        "metrics": ("mAP@0.5", "mAP", "ms", "training s"),
        "papers": [{"system": "DPM v5", "dataset": "VOC07 test"}],
    },
    "distance_transform_cost": {
        "title": "The distance transform against the number of pixels",
        "where": {"system": "distance transform"},
        "settings": ("side", "channels"),
        "metrics": tuple(
            f"{name} {what}"
            for name in ("cvlib graph", "cvlib XLA", "dilation2d")
            for what in ("ms", "per pixel")
        ),
        "papers": [],
    },
}

COLUMNS = {
    "parts": "parts of a template; 0 for a root alone",
    "box": "what is answered: the `window`, or a box that is predicted from the places `of parts`",
    "components": "templates of a class, each for another shape of window",
    "hard rounds": "how often hard negatives were looked for, with roots alone and with parts",
    "ms": "milliseconds for one picture",
    "training s": "seconds that training took",
    "side, channels": "of the maps",
    "cvlib graph ms, cvlib XLA ms, dilation2d ms": "milliseconds for one map: ours as TensorFlow "
    "runs a graph, ours with XLA, and `tf.nn.dilation2d`",
    "cvlib graph per pixel, cvlib XLA per pixel, dilation2d per pixel": "time for a pixel over "
    "that of the smallest map",
}

BEST = {"system": "DeformablePartsModel", "parts": 6, "box": "of parts", "components": 2}
RIGID = {"system": "HOGDetector", "components": 2}

CLAIMS = [
    Claim(
        "Deformable parts detect better than the same boxes for every picture.",
        metric="mAP@0.5",
        left=BEST,
        right={"system": "the same boxes"},
    ),
    Claim(
        "Parts beat the rigid template of HOG.",
        metric="mAP@0.5",
        left=BEST,
        right=RIGID,
    ),
    Claim(
        "Parts beat the model's own roots, which look both ways.",
        metric="mAP@0.5",
        left=BEST,
        right={"system": "DeformablePartsModel", "parts": 0},
    ),
    Claim(
        "Several components of a class detect better than square windows, with parts too.",
        metric="mAP@0.5",
        left=BEST,
        right=BEST | {"components": 1},
    ),
    Claim(
        "A box that is predicted from the parts fits better than the window.",
        metric="mAP",
        left=BEST,
        right=BEST | {"box": "window"},
    ),
    *(
        Claim(
            f"{name} of chapter 11, from more pictures, detects better than deformable parts.",
            metric="mAP@0.5",
            left={"chapter": "11", **of},
            right=BEST,
            reason="rendered objects of a class are drawn alike, which suits templates, and bins "
            "of whole cells of 8 pixels are coarse for them",
        )
        for name, of in {
            "Fast R-CNN": {"system": "FastRCNN"},
            "Faster R-CNN": {"system": "FasterRCNN", "training": "joint"},
        }.items()
    ),
]

PARTS = {"part_side": 2, "reach": 3}
SYSTEMS = {
    "scenes": {"DPM": of_templates("DeformablePartsModel", 8, **PARTS, **SCENE_HOG)},
    "photographs": {"DPM": of_cells("DeformablePartsModel", 1.0, 4, 2, **PARTS)},
}
