"""Chapter 15: several scales, superpixels that vote, and the best cover of a tree of regions."""

from benchmarks.claims import Claim
from benchmarks.systems import SMALL, of_scenes

TABLES = {
    "scales": {
        "title": "Scene parsing: scales and regions",
        "settings": ("scales", "regions"),
        "metrics": ("mIoU", "pixel_accuracy", "mIoU near edges", "mIoU elsewhere"),
        "papers": [
            {"system": "Multi-scale ConvNet"},
            {"system": "Multi-scale ConvNet + CRF on gPb"},
        ],
    },
}

COLUMNS = {
    "scales": "how many there are, each half of the one before",
    "regions": "of one class each: `pixels`, about as many `superpixels` as stands there, or, of "
    "the tree that grows from 400, the `best cover` or for each pixel the `purest nodes`, by a "
    "second classifier of regions (`first classifier`: by that of the pixels)",
    "mIoU near edges, mIoU elsewhere": "of the pixels at most 4 from a border between classes, and "
    "of the others",
}


def parser(regions="pixels", scales=3):
    return {"system": "MultiScaleParser", "scales": scales, "regions": regions}


CLAIMS = [
    Claim(
        "Three scales beat one.",
        metric="mIoU",
        left=parser(),
        right=parser(scales=1),
    ),
    Claim(
        "Near edges, 400 superpixels that vote beat the pixels.",
        metric="mIoU near edges",
        left=parser("400 superpixels"),
        right=parser(),
    ),
    Claim(
        "Near edges, the best cover of the tree beats the pixels.",
        metric="mIoU near edges",
        left=parser("best cover"),
        right=parser(),
    ),
    Claim(
        "The best cover of the tree beats the 400 superpixels from which it grows.",
        metric="mIoU",
        left=parser("best cover"),
        right=parser("400 superpixels"),
    ),
    Claim(
        "In the tree, a second classifier, of regions, beats that of the pixels.",
        metric="mIoU",
        left=parser("best cover"),
        right=parser("best cover, first classifier"),
    ),
    Claim(
        "One scale beats the most frequent class.",
        metric="mIoU",
        left=parser(scales=1),
        right={"system": "most frequent class"},
    ),
]

SYSTEMS = {"scenes": {"MultiScaleParser": of_scenes("MultiScaleParser", 15, SMALL)}}
