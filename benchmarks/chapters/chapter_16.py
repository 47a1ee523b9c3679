"""Chapter 16: repeated refinement with shared weights."""

from benchmarks.claims import Claim
from benchmarks.systems import SMALL, of_scenes

TABLES = {
    "refinement": {
        "title": "Refinement: one network, applied again to its own answer",
        "settings": ("trained for", "iteration"),
        "metrics": ("mIoU", "pixel_accuracy", "mIoU near edges", "mIoU elsewhere"),
        "papers": [{"system": "Recurrent CNN"}, {"system": "Multi-scale ConvNet + CRF on gPb"}],
    },
}

COLUMNS = {
    "trained for": "how many iterations the network was trained with",
    "iteration": "the one whose answer is measured",
    "mIoU near edges, mIoU elsewhere": "of the pixels at most 4 from a border between classes, and "
    "of the others",
}


def answer(iteration, trained_for=3):
    system = {"system": "RecurrentSegmenter", "trained for": trained_for}
    return system | {"iteration": iteration}


CLAIMS = [
    Claim(
        "The second answer beats the first.",
        metric="mIoU",
        left=answer(2),
        right=answer(1),
    ),
    Claim(
        "The third answer beats the second.",
        metric="mIoU",
        left=answer(3),
        right=answer(2),
    ),
    Claim(
        "The third answer beats a network that was trained for one look.",
        metric="mIoU",
        left=answer(3),
        right=answer(1, trained_for=1),
    ),
    Claim(
        "Near edges, too, the third answer beats the first.",
        metric="mIoU near edges",
        left=answer(3),
        right=answer(1),
    ),
    Claim(
        "One look beats the most frequent class.",
        metric="mIoU",
        left=answer(1, trained_for=1),
        right={"system": "most frequent class"},
    ),
]

SYSTEMS = {"scenes": {"RecurrentSegmenter": of_scenes("RecurrentSegmenter", 15, SMALL)}}
