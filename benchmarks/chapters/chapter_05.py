"""Chapter 05: regression where the number of objects varies, and what average precision costs."""

from benchmarks.claims import Claim

TABLES = {
    "varying_counts": {
        "title": "Regression where the number of objects varies",
        "settings": ("counts", "nothing", "num_objects"),
        "metrics": (
            *("accuracy", "box_iou", "localization_accuracy", "mAP@0.5", "mAP"),
            *(f"mAP@0.5/{n}" for n in range(1, 7)),
        ),
        "papers": [],
    },
    "evaluator_cost": {
        "title": "Average precision and IoU: ours beside their peers",
        "where": {"system": "average_precision"},
        "settings": ("images", "classes"),
        "metrics": (
            *("mAP cvlib s", "mAP faster-coco-eval index s", "mAP faster-coco-eval evaluate s"),
            *("mAP ratio", "mAP hotcoco index s", "mAP hotcoco evaluate s"),
            *("box IoU cvlib.boxes s", "box IoU evaluator s"),
            *("box IoU pycocotools s", "box IoU ratio"),
            *("mask IoU cvlib s", "mask IoU pycocotools s", "mask IoU ratio"),
        ),
        "papers": [],
    },
}

COLUMNS = {
    "counts": "the localizer learnt on pictures with a `fixed` or a `varying` number of objects",
    "nothing": "an output may say that there is no object",
    "mAP@0.5/n": "`mAP@0.5` on the pictures with n objects",
    "images, classes": "how many the evaluators are given",
    "mAP cvlib s, mAP faster-coco-eval index s, mAP faster-coco-eval evaluate s, "
    "mAP hotcoco index s, mAP hotcoco evaluate s": "seconds for COCO's average precision; the "
    "peers index the annotations before they evaluate; hotcoco computes on all cores",
    "mAP ratio": "seconds of faster-coco-eval's evaluation over `mAP cvlib s`",
    "box IoU cvlib.boxes s, box IoU evaluator s, box IoU pycocotools s": "seconds for the IoU of "
    "all pairs of 5,000 x 5,000 boxes; `cvlib`'s evaluator looks for those of at least 0.5",
    "box IoU ratio": "`box IoU pycocotools s` over `box IoU evaluator s`",
    "mask IoU cvlib s, mask IoU pycocotools s": "seconds for the same with masks",
    "mask IoU ratio": "`mask IoU pycocotools s` over `mask IoU cvlib s`",
}

FIXED = {"system": "Localizer", "counts": "fixed"}
VARYING = {"system": "Localizer", "counts": "varying", "nothing": False}

CLAIMS = [
    Claim(
        "On pictures with exactly three objects, regression trained on exactly three detects "
        "better than regression trained on any number.",
        metric="mAP@0.5",
        left=FIXED | {"data": "scenes:three"},
        right=VARYING,
    ),
    Claim(
        "It does so too on those pictures of the varying set that hold three objects.",
        metric="mAP@0.5/3",
        left=FIXED | {"data": "scenes"},
        right=VARYING,
        reason="it learnt from `scenes:three`, whose objects are smaller and overlap less",
    ),
    Claim(
        'An output that can say "nothing" makes regression a better detector where counts vary.',
        metric="mAP@0.5",
        left=VARYING | {"nothing": True, "data": "scenes"},
        right=VARYING,
    ),
    Claim(
        "Regression detects better than constant boxes where counts vary.",
        metric="mAP@0.5",
        left=VARYING | {"data": "scenes"},
        right={"system": "constant boxes", "counts": "varying"},
    ),
]
