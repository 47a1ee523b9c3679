"""Chapter 08: region proposals."""

from benchmarks.claims import Claim

TABLES = {
    "proposals": {
        "title": "Region proposals",
        "settings": ("pictures",),
        "metrics": (
            "boxes per image",
            *(f"{m}/{n}" for m in ("recall@0.5", "recall@0.7", "AR") for n in (10, 100, 1000)),
            *("seconds", "repeatability"),
            *("windows per proposal@0.5", "windows per proposal@0.7"),
            "downstream mAP@0.5",  # for the chapters whose detectors stand on proposals
        ),
        "papers": [{"system": "Selective search", "dataset": "VOC07 test"}],
    },
    "selective_search_cost": {
        "title": "Selective search: ours beside OpenCV's",
        "where": {"system": "selective_search"},
        "settings": ("mode", "implementation", "images"),
        "metrics": (
            *("seconds", "seconds over OpenCV's", "boxes"),
            *(f"recall@{t}/{n}" for t in (0.5, 0.7) for n in (100, 1000, "all")),
        ),
        "papers": [],
    },
}

COLUMNS = {
    "pictures, images": "how many are measured",
    "boxes per image, boxes": "number of proposals, before the first 10, 100 or 1000 are taken",
    "recall@t/n": "share of the objects that one of the first n proposals covers with an IoU of at "
    "least t",
    "AR/n": "average recall: the mean of that share over all t from 0.5 to 1",
    "seconds": "of the processor, to make the proposals of one picture",
    "repeatability": "mean IoU of the proposals with those of the picture slightly changed",
    "windows per proposal@t": "sliding windows with the recall, at IoU t, of the first 1000 "
    "proposals, over their number",
    "downstream mAP@0.5": "`mAP@0.5` of a detector that stands on the proposals",
    "mode": "of selective search: how many ways of grouping it takes together",
    "implementation": "ours (`cvlib`) or OpenCV's",
    "seconds over OpenCV's": "ours over OpenCV's",
}

CLAIMS = [
    *(
        Claim(
            "Sliding windows need at least ten times as many boxes as selective search for the "
            f"same recall at IoU {t}.",
            metric=f"windows per proposal@{t}",
            left={"system": "selective search, fast", "data": data},
            right=10,
            papers=({"system": "Selective search", "metric": "windows per image"},),
            reason="a coarse grid is enough for the recall that it reaches there",
        )
        # On large pictures of blood cells our coarsest grid has over ten windows a proposal: there
        # the claim could not fail.
        for data in ("scenes", "coco:coco_mini")
        for t in (0.5, 0.7)
    ),
    *(
        Claim(
            sentence,
            metric="AR/1000",
            left={"system": "selective search, fast"},
            right={"system": other},
        )
        for other, sentence in {
            "selective search, single": "Diversified grouping beats a single one.",
            "random boxes": "Selective search beats random boxes.",
            "sliding windows": "Selective search beats sliding windows, 1,000 boxes each.",
            "superpixels": "Selective search beats superpixels.",
        }.items()
    ),
]
