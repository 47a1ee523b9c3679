"""Chapter 10: spatial pyramid and RoI pooling, Fast R-CNN."""

from benchmarks.claims import Claim
from benchmarks.systems import CELL_HEADS, LARGE, SCENE_HEADS, SMALL, of_photographs, of_scenes

PASSES = ("forward", "gradient")
OURS = {
    "cvlib XLA": "ours, compiled with XLA",
    "cvlib graph": "ours, as TensorFlow runs a graph by itself",
    "cvlib": "ours, on PyTorch as it is",
}
WAYS = OURS | {
    "crop_and_resize graph": "what Keras's users write instead, an approximation",
}
TIMES = {
    "ms": "milliseconds for a batch",
    "over torchvision": "its time over that of torchvision's",
}
COMPARED = TIMES | {
    "off by": "largest difference from torchvision's values",
}

TABLES = {
    "fast_rcnn": {
        "title": "Fast R-CNN",
        "settings": ("pooling", "trunk", "rank"),
        "metrics": (
            *("mAP@0.5", "mAP@0.5 VOC 2007", "mAP", "AP/x"),
            *("mAP@0.5/n", "mAP@0.5 lost", "heads speed-up"),
        ),
        "papers": [
            {"system": system, "dataset": "VOC07 test", "metric": "mAP@0.5"}
            for system in ("Fast R-CNN", "SPPnet")
        ],
    },
    "fast_rcnn_cost": {
        "title": "Fast R-CNN: where the time goes, and what one network for each region would cost",
        "where": {"system": "FastRCNN, stages"},
        "settings": ("proposals",),
        "metrics": (
            *("ms/x", "share of proposals", "multiply-adds ratio"),
            *("training multiply-adds ratio", "trunk multiply-adds ratio"),
        ),
        "papers": [
            {"system": system, "dataset": "VOC07 test", "metric": "time per image"}
            for system in ("R-CNN", "SPPnet", "Fast R-CNN")
        ],
    },
    "roi_pooling_cost": {
        "title": "RoI pooling and RoI align: ours beside torchvision's",
        "where": {"system": "roi_pooling"},
        "settings": ("layer", "batch"),
        "metrics": (
            *(f"torchvision/{pass_} ms" for pass_ in PASSES),
            *(f"{way}/{pass_} {what}" for pass_ in PASSES for way in WAYS for what in COMPARED),
        ),
        "papers": [],
    },
}

COLUMNS = {
    "pooling": "how a region is brought to one size: RoI pooling (`pool`), RoI align (`align`), or "
    "SPP-net's pyramid (`spp`)",
    "trunk": "the convolutions learn too (`trained`; on photographs all but the first) or not "
    "(`frozen`)",
    "rank": "of the two fully connected layers: `full`, or shares of their singular values",
    "mAP@0.5 VOC 2007": "mean average precision by Pascal VOC's rule of 11 points, at IoU 0.5",
    "AP/x": "average precision of the class x, by the same rule",
    "mAP@0.5/n": "`mAP@0.5` with the first n proposals of each picture",
    "mAP@0.5 lost": "by leaving out singular values",
    "heads speed-up": "time of the heads with full matrices over that with smaller ones",
    "proposals": "at most so many of each picture are looked at",
    "share of proposals": "of the time for one picture, the part that the proposals take",
    "multiply-adds ratio, training multiply-adds ratio": "those of one network for each region "
    "over those of Fast R-CNN, for one picture, in the test and in a step of training",
    "trunk multiply-adds ratio": "the same of the trunks alone, in the test",
    "layer, batch": "`pool` or `align`, and how many maps at once",
    **{
        f"torchvision/{pass_} ms": f"milliseconds of torchvision's operator, {what}"
        for pass_, what in zip(PASSES, ("forward", "forward and back to the map"), strict=True)
    },
    **{
        ", ".join(f"{way}/{pass_} {what}" for pass_ in PASSES): f"{whose}: {meaning}"
        for way, whose in WAYS.items()
        for what, meaning in COMPARED.items()
    },
}

FAST = {"system": "FastRCNN", "pooling": "pool", "trunk": "trained", "rank": "full"}
COMPRESSED = FAST | {"rank": "1/4, 1/16"}
STAGES = {"system": "FastRCNN, stages"}
VOC07 = {"dataset": "VOC07 test", "metric": "mAP@0.5"}
SECONDS = {"dataset": "VOC07 test", "metric": "time per image"}

CLAIMS = [
    Claim(
        "Fast R-CNN beats proposals with the most frequent class.",
        metric="mAP@0.5",
        left=FAST,
        right={"system": "most frequent class"},
    ),
    Claim(
        "Training end to end beats a frozen trunk.",
        metric="mAP@0.5",
        left=FAST,
        right=FAST | {"trunk": "frozen"},
        papers=(
            VOC07 | {"system": "Fast R-CNN", "conditions": "VGG-16 trained on 07"},
            VOC07 | {"system": "SPPnet", "conditions": "VGG-16"},
        ),
    ),
    Claim(
        "RoI align beats RoI pooling.",
        metric="mAP@0.5",
        left=FAST | {"pooling": "align"},
        right=FAST,
    ),
    Claim(
        "RoI align beats RoI pooling where boxes must fit tightly.",
        metric="mAP",
        left=FAST | {"pooling": "align"},
        right=FAST,
    ),
    Claim(
        "RoI pooling beats the pyramid.",
        metric="mAP@0.5",
        left=FAST,
        right=FAST | {"pooling": "spp"},
    ),
    Claim(
        "Truncated SVD makes the heads faster.",
        metric="heads speed-up",
        left=COMPRESSED,
        right=1,
        papers=tuple(
            SECONDS | {"system": "Fast R-CNN", "conditions": f"VGG-16 K40 {how}proposals excluded"}
            for how in ("", "truncated SVD ")
        ),
    ),
    Claim(
        "Truncated SVD costs less than one point of mean average precision.",
        metric="mAP@0.5 lost",
        left=COMPRESSED,
        right=0.01,
        relation="less",
    ),
    Claim(
        "Proposals take more than half of the time.",
        metric="share of proposals",
        left=STAGES,
        right=0.5,
        papers=(
            SECONDS
            | {
                "system": "Fast R-CNN",
                "conditions": "VGG-16 K40 proposals included: 0.146 conv + 1.510 selective search "
                "+ 0.174 head",
            },
        ),
    ),
    Claim(
        "One network for each region would need at least five times the multiply-adds.",
        metric="multiply-adds ratio",
        left=STAGES,
        right=5,
        papers=(
            SECONDS | {"system": "R-CNN"},
            SECONDS | {"system": "Fast R-CNN", "conditions": "VGG-16 K40 proposals excluded"},
        ),
    ),
]

SYSTEMS = {
    "scenes": {"Fast R-CNN": of_scenes("FastRCNN", 8, SMALL, 200, **SCENE_HEADS)},
    "photographs": {"Fast R-CNN": of_photographs("FastRCNN", 3, LARGE, 2000, **CELL_HEADS)},
}
