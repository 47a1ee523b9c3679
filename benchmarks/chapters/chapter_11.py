"""Chapter 11: a network that proposes its own regions."""

from benchmarks.chapters.chapter_10 import OURS, TIMES
from benchmarks.claims import Claim
from benchmarks.systems import (
    CELL_HEADS,
    CELL_RPN,
    LARGE,
    SCENE_HEADS,
    SCENE_RPN,
    SMALL,
    of_photographs,
    of_scenes,
)

WAYS = OURS | {
    "tf.image graph": "TensorFlow's operator, image by image",
    "keras_hub graph": "KerasHub's layer in a graph",
    "keras_hub XLA": "KerasHub's layer with XLA",
    "keras_cv graph": "KerasCV's layer in a graph",
    "keras_cv XLA": "KerasCV's layer with XLA",
}
COMPARED = TIMES | {
    "equal": "share of the images with the same boxes in the same order as torchvision's",
}

MATCHING = {
    "in parts": "32 rows at a time, and not those that are padding in both images",
    "step by step": "in parts, without XLA in the graph for what looks at 32 rows",
    "at once": "all rows",
}

TABLES = {
    "faster_rcnn": {
        "title": "Faster R-CNN",
        "settings": ("training",),
        "metrics": ("mAP@0.5", "mAP@0.5 VOC 2007", "mAP", "ms", "share of proposals"),
        "papers": [
            {"system": "Fast R-CNN", "dataset": "VOC07 test"},
            {"system": "Faster R-CNN", "dataset": "VOC07 test"},
        ],
    },
    "region_proposal_network": {
        "title": "Proposals of the RPN beside selective search",
        "where": {"system": ("RPN", "selective search, fast")},
        "settings": ("training",),
        "metrics": (
            *(f"recall@{t}/{n}" for t in (0.5, 0.7) for n in (10, 100, 300)),
            *("AR/300", "ms", "times faster"),
        ),
        "papers": [],
    },
    "suppression_cost": {
        "title": "Non-maximum suppression of 6,000 boxes: ours beside its peers",
        "where": {"system": "non_max_suppression"},
        "settings": ("boxes", "batch"),
        "metrics": (
            "torchvision ms",
            *(f"{way} {what}" for way in WAYS for what in COMPARED),
        ),
        "papers": [],
    },
    "matching_cost": {
        "title": "Matching of 9,216 anchors with the objects of two images",
        "where": {"system": "matching"},
        "settings": ("objects", "room"),
        "metrics": tuple(f"{way}{kind} ms" for kind in (" graph", " XLA", "") for way in MATCHING),
        "papers": [],
    },
}

COLUMNS = {
    "training": "of all parts together (`joint`), or `in turns`, by the paper's four steps; of the "
    "RPN alone in `step 1`, and in `step 3` on the trunk of Fast R-CNN",
    "mAP@0.5 VOC 2007": "mean average precision by Pascal VOC's rule of 11 points, at IoU 0.5",
    "ms": "milliseconds for one picture, the medians of the stages added up, with the proposals; "
    "of proposals: theirs alone, selective search in one thread",
    "share of proposals": "of that time, the part that the proposals take",
    "recall@t/n": "share of the objects that one of the first n proposals covers with an IoU of at "
    "least t",
    "AR/n": "average recall: the mean of that share over all t from 0.5 to 1",
    "times faster": "selective search's time for a picture over the RPN's",
    "boxes, batch": "`spread` boxes lie anywhere, `dense` ones in clusters; pictures at once",
    "torchvision ms": "milliseconds of torchvision's operator for a batch",
    "objects, room": "objects in each of the two images, and rows for them in each",
    **{
        f"{way} graph ms, {way} XLA ms, {way} ms": f"milliseconds of matching {what}: as "
        "TensorFlow runs a graph, with XLA, and as PyTorch runs it"
        for way, what in MATCHING.items()
    },
    **{
        f"{way} {what}": f"{whose}: {meaning}"
        for way, whose in WAYS.items()
        for what, meaning in COMPARED.items()
    },
}

JOINT = {"system": "FasterRCNN", "training": "joint"}
FAST = {"system": "FastRCNN"}
RPN = {"system": "RPN", "training": "joint"}
SEARCH = {"system": "selective search, fast"}

CLAIMS = [
    Claim(
        "Selective search takes more than half of Fast R-CNN's time.",
        metric="share of proposals",
        left=FAST,
        right=0.5,
        papers=(
            {"system": "Fast R-CNN", "metric": "time per image", "source": "Faster R-CNN Table 5"},
        ),
    ),
    Claim(
        "The RPN makes its proposals at least ten times as fast as selective search.",
        metric="times faster",
        left=RPN,
        right=10,
        papers=({"system": "Faster R-CNN", "value": "0.198"},),
    ),
    *(
        Claim(
            f"The first {n} proposals of the RPN cover more objects than as many of selective "
            "search.",
            metric=f"recall@0.5/{n}",
            left=RPN,
            right=SEARCH,
        )
        for n in (100, 300)
    ),
    Claim(
        "Faster R-CNN detects better than Fast R-CNN with selective search.",
        metric="mAP@0.5",
        left=JOINT,
        right=FAST,
        papers=(
            {"system": "Faster R-CNN", "value": "69.9"},
            {"system": "Fast R-CNN", "value": "66.9"},
        ),
    ),
    Claim(
        "Joint training detects better than training in turns.",
        metric="mAP@0.5",
        left=JOINT,
        right={"system": "FasterRCNN", "training": "in turns"},
    ),
]

SYSTEMS = {
    "scenes": {
        "Faster R-CNN": of_scenes("FasterRCNN", 8, SMALL, post_nms=100, **SCENE_HEADS, **SCENE_RPN)
    },
    "photographs": {
        "Faster R-CNN": of_photographs("FasterRCNN", 3, LARGE, **CELL_HEADS, **CELL_RPN)
    },
}
