"""Chapter 06: templates of edges, everywhere and at every size."""

from benchmarks.claims import Claim
from benchmarks.systems import SCENE_HOG, of_cells, of_templates

TABLES = {
    "hog": {
        "title": "HOG and linear templates",
        "settings": ("components", "rounds", "scales an octave"),
        "metrics": ("mAP@0.5", "mAP", "ms", "training s"),
        "papers": [],
    },
    "hog_cost": {
        "title": "HOG: ours beside scikit-image's and OpenCV's",
        "where": {"system": "hog"},
        "settings": ("side", "batch"),
        "metrics": (
            *("scikit-image ms", "OpenCV ms", "OpenCV speed"),
            *(
                f"cvlib {votes} {way} {what}"
                for votes in ("hard", "trilinear")
                for way in ("graph", "XLA")
                for what in ("ms", "speed")
            ),
        ),
        "papers": [],
    },
}

COLUMNS = {
    "components": "templates of a class, each for another shape of window",
    "rounds": "how often hard negatives were looked for",
    "scales an octave": "sizes of the picture between one and half of it",
    "ms": "milliseconds for one picture",
    "training s": "seconds that training took",
    "side, batch": "pixels of a picture on each side, and how many pictures at once",
    "scikit-image ms, OpenCV ms": "milliseconds for all pictures of a batch",
    "OpenCV speed": "scikit-image's time over OpenCV's",
    **{
        f"cvlib {votes} {way} ms, cvlib {votes} {way} speed": f"ours, {how}, {compiler}: "
        "milliseconds for the batch, and scikit-image's time over that"
        for votes, how in {"hard": "one bin a vote", "trilinear": "votes divided"}.items()
        for way, compiler in {"graph": "as the backend runs a graph", "XLA": "with XLA"}.items()
    },
}

BEST = {"system": "HOGDetector", "components": 2, "rounds": 3, "scales an octave": 3}

CLAIMS = [
    Claim(
        "HOG templates detect better than the same boxes for every picture.",
        metric="mAP@0.5",
        left=BEST,
        right={"system": "the same boxes"},
    ),
    Claim(
        "Hard negatives raise the mean average precision.",
        metric="mAP@0.5",
        left=BEST,
        right=BEST | {"rounds": 0},
    ),
    Claim(
        "Several components of a class detect better than square windows.",
        metric="mAP@0.5",
        left=BEST,
        right=BEST | {"components": 1},
    ),
    Claim(
        "Three scales an octave detect better than one.",
        metric="mAP@0.5",
        left=BEST,
        right=BEST | {"scales an octave": 1},
    ),
    Claim(
        "Six scales an octave detect better than three.",
        metric="mAP@0.5",
        left=BEST | {"scales an octave": 6},
        right=BEST,
    ),
    *(
        Claim(
            f"{name} of chapter 11, from more pictures, detects better than HOG templates.",
            metric="mAP@0.5",
            left={"chapter": "11", **of},
            right=BEST,
        )
        for name, of in {
            "Fast R-CNN": {"system": "FastRCNN"},
            "Faster R-CNN": {"system": "FasterRCNN", "training": "joint"},
        }.items()
    ),
]

SYSTEMS = {
    "scenes": {"HOG": of_templates("HOGDetector", 8, **SCENE_HOG)},
    "photographs": {"HOG": of_cells("HOGDetector", 1.5, 8, 3)},
}
