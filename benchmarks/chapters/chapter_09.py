"""Chapter 09: R-CNN."""

from benchmarks.claims import Claim
from benchmarks.systems import CROPS, SMALL, of_scenes

VOC07 = {"system": "R-CNN", "dataset": "VOC07 test"}

TABLES = {
    "rcnn": {
        "title": "R-CNN",
        "settings": ("features", "fine-tuned", "scores", "box regression", "context"),
        "metrics": ("mAP@0.5", "mAP@0.5 VOC 2007", "mAP"),
        "papers": [VOC07 | {"metric": "mAP@0.5"}],
    },
    "rcnn_cost": {
        "title": "R-CNN: what it costs",
        "where": {"system": "RCNN, cost"},
        "settings": (),
        "metrics": (
            *("regions", "bytes per region", "regions/s", "s/x"),
            *("training ratio", "test ratio", "ms"),
        ),
        "papers": [
            {"system": system, "dataset": "VOC07 test", "metric": "time per image"}
            for system in ("R-CNN", "Fast R-CNN")
        ],
    },
    "rcnn_proposals": {
        "title": "R-CNN on the proposals of chapter 08",
        "where": {"system": "RCNN, other proposals"},
        "settings": ("proposals",),
        "metrics": ("mAP@0.5",),
        "papers": [],
    },
    "crops_cost": {
        "title": "Crops of an image: ours beside other ways",
        "where": {"system": "crops"},
        "settings": ("height", "width"),
        "metrics": tuple(
            f"{name} ms"
            for name in (
                *("reads graph", "reads XLA", "reads"),
                *("products graph", "products XLA", "products", "crop_and_resize"),
            )
        ),
        "papers": [],
    },
}

COLUMNS = {
    "features": "what the scores see: the last map (`pool`), or what the fully connected layers "
    "make of it (`fc`)",
    "fine-tuned": "the network was trained further on regions",
    "scores": "of linear SVMs, or of the `softmax` of the fine-tuned layer",
    "box regression": "boxes are moved and resized",
    "context": "pixels of the picture around the box in the warp, of squares of 227",
    "mAP@0.5 VOC 2007": "mean average precision by Pascal VOC's rule of 11 points, at IoU 0.5",
    "regions": "proposals of a picture that are looked at",
    "bytes per region": "of both kinds of features, on disk",
    "regions/s": "for how many the features are computed and written in a second",
    "s/x": "seconds that the stage x of the training takes",
    "training ratio, test ratio": "the time of R-CNN over that of Fast R-CNN on the same "
    "proposals, which are not counted, in training and for one picture",
    "ms": "milliseconds for one picture, without its proposals",
    "height, width": "of the image, of which 300 boxes are cut out to 96 x 96 pixels",
    "reads graph ms, reads XLA ms, reads ms": "milliseconds of the library's crops, four reads for "
    "each pixel: as TensorFlow runs a graph, with XLA, and as PyTorch runs it",
    "products graph ms, products XLA ms, products ms": "milliseconds of two products with matrices "
    "of weights instead",
    "crop_and_resize ms": "milliseconds of `tf.image.crop_and_resize`",
    "proposals": "the method that made the boxes of the test; the training had those of selective "
    "search",
}

WHOLE = {
    "system": "RCNN",
    "features": "fc",
    "fine-tuned": True,
    "scores": "SVMs",
    "box regression": True,
    "context": 16,
}
PLAIN = WHOLE | {"box regression": False}
MAP = PLAIN | {"features": "pool"}
SOFTMAX = PLAIN | {"scores": "softmax"}
COST = {"system": "RCNN, cost"}
OTHERS = {"system": "RCNN, other proposals"}
SECONDS = {"dataset": "VOC07 test", "metric": "time per image"}

CLAIMS = [
    Claim(
        "R-CNN beats proposals with the most frequent class.",
        metric="mAP@0.5",
        left=WHOLE,
        right={"system": "most frequent class"},
    ),
    Claim(
        "Fine-tuning helps R-CNN.",
        metric="mAP@0.5",
        left=MAP,
        right=MAP | {"fine-tuned": False},
        reason="probably, so few photographs of such different things spoil what ImageNet taught; "
        "not tested",
    ),
    Claim(
        "Box regression raises R-CNN's mean average precision.",
        metric="mAP@0.5",
        left=WHOLE,
        right=PLAIN,
        papers=(
            VOC07 | {"conditions": "AlexNet with box regression"},
            VOC07 | {"conditions": "AlexNet without box regression"},
        ),
    ),
    Claim(
        "SVMs beat the softmax of the fine-tuned layer.",
        metric="mAP@0.5",
        left=PLAIN,
        right=SOFTMAX,
    ),
    Claim(
        "Features after the fully connected layers beat the last map.",
        metric="mAP@0.5",
        left=PLAIN,
        right=MAP,
        reason="these layers begin with random weights, and there is little to learn them from; "
        "that this is why was not tested",
    ),
    Claim(
        "Context in the warp helps.",
        metric="mAP@0.5",
        left=SOFTMAX,
        right=SOFTMAX | {"context": 0},
    ),
    Claim(
        "Selective search gives R-CNN more than random boxes do.",
        metric="mAP@0.5",
        left=OTHERS | {"proposals": "selective search, fast"},
        right=OTHERS | {"proposals": "random boxes"},
    ),
    Claim(
        "R-CNN takes at least five times as long as Fast R-CNN for a picture.",
        metric="test ratio",
        left=COST,
        right=5,
        papers=(
            SECONDS | {"system": "R-CNN"},
            SECONDS | {"system": "Fast R-CNN", "conditions": "VGG-16 K40 proposals excluded"},
        ),
    ),
    Claim(
        "R-CNN takes longer to train than Fast R-CNN.",
        metric="training ratio",
        left=COST,
        right=1,
    ),
]

SYSTEMS = {"scenes": {"R-CNN": of_scenes("RCNN", 8, SMALL, 200, **CROPS)}}
