"""Chapter 17: learned upsampling and skips, FCN-32s to FCN-8s."""

from benchmarks.claims import Claim
from benchmarks.systems import LARGE, SMALL, of_photographs, of_scenes

TABLES = {
    "skips": {
        "title": "Upsampling and skips",
        "settings": ("begins as", "upsampling", "broken rule"),
        "metrics": ("mIoU", "pixel_accuracy", "mIoU near edges", "mIoU elsewhere"),
        "papers": [
            {"system": system}
            for system in ("FCN-32s", "FCN-16s", "FCN-8s", "FCN-8s at once", "SegNet")
        ],
    },
    "skips_and_edges": {
        "title": "What the skips gain near edges and elsewhere",
        "where": {"system": "8s over 32s"},
        "settings": ("band",),
        "metrics": ("gain",),
        "papers": [],
    },
}

COLUMNS = {
    "begins as": "`FCN-32s`, trained before, with skips of zeros; or `backbone`, all at once",
    "upsampling": "`learned`, or `fixed` as bilinear interpolation",
    "broken rule": "the rule that this run breaks: the upsampling's `bilinear start`, or that "
    "classes are resized to the `nearest classes`",
    "mIoU near edges, mIoU elsewhere": "of the pixels at most 4 from a border between classes, and "
    "of the others",
    "band": "the pixels at most 4 from a border between classes, or the others",
    "gain": "mIoU of FCN-8s less that of FCN-32s",
}

PLAIN = {"begins as": "FCN-32s", "upsampling": "learned", "broken rule": "none"}
RELEASE = {"dataset": "VOC11 seg11valid"}


def system(stride, **settings):
    return {"system": f"FCN-{stride}s", **PLAIN, **settings}


CLAIMS = [
    Claim(
        "FCN-8s beats FCN-16s.",
        metric="mIoU",
        left=system(8),
        right=system(16),
        papers=({"system": "FCN-8s", **RELEASE}, {"system": "FCN-16s", **RELEASE}),
    ),
    Claim(
        "FCN-16s beats FCN-32s.",
        metric="mIoU",
        left=system(16),
        right=system(32),
        papers=({"system": "FCN-16s", **RELEASE}, {"system": "FCN-32s", **RELEASE}),
    ),
    Claim(
        "Near edges FCN-8s beats FCN-32s.",
        metric="mIoU near edges",
        left=system(8),
        right=system(32),
    ),
    Claim(
        "The skips gain more near edges than elsewhere.",
        metric="gain",
        left={"system": "8s over 32s", "band": "near edges"},
        right={"system": "8s over 32s", "band": "elsewhere"},
        reason="perhaps because small objects do not fill a cell of the last map; not measured by "
        "size",
    ),
    Claim(
        "Learned upsampling beats fixed.",
        metric="mIoU",
        left=system(8),
        right=system(8, upsampling="fixed"),
    ),
    Claim(
        "FCN-8s that begins as FCN-32s beats one that begins at once.",
        metric="mIoU",
        left=system(8),
        right=system(8, **{"begins as": "backbone"}),
        reason="not separated: longer training of the skips, or one fall of the rate in place of "
        "two",
        papers=({"system": "FCN-8s", **RELEASE}, {"system": "FCN-8s at once", **RELEASE}),
    ),
    Claim(
        "Upsampling that begins with random kernels costs mean IoU.",
        metric="mIoU",
        left=system(8),
        right=system(8, **{"broken rule": "bilinear start"}),
    ),
    Claim(
        "Classes that are interpolated cost mean IoU.",
        metric="mIoU",
        left=system(8),
        right=system(8, **{"broken rule": "nearest classes"}),
        reason="only pixels at borders get another class",
    ),
    Claim(
        "FCN-32s beats the most frequent class.",
        metric="mIoU",
        left=system(32),
        right={"system": "most frequent class"},
    ),
    Claim(
        "FCN-8s has a mean IoU above 0.60 on CamVid.",
        metric="mIoU",
        left=system(8, data="voc:camvid"),
        right=0.60,
        papers=({"system": "FCN-8s", "dataset": "CamVid test"},),
    ),
]

SYSTEMS = {
    "scenes": {"FCN-8s": of_scenes("FCN", 15, SMALL, stride=8)},
    "photographs": {f"FCN-{n}s": of_photographs("FCN", 11, LARGE, stride=n) for n in (32, 16, 8)},
}
