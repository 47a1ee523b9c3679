"""Chapter 14: semantic segmentation, from a classifier of windows to FCN-32s."""

from benchmarks.claims import Claim
from benchmarks.systems import SMALL, of_scenes

TABLES = {
    "windows_and_convolution": {
        "title": "Semantic segmentation: windows one by one, and a convolution",
        "settings": ("learned from",),
        "metrics": ("mIoU", "pixel_accuracy", "class_accuracy"),
        "papers": [{"system": "FCN-32s"}, {"system": "FCN-32s fixed"}],
    },
    "segmentation_agreement": {
        "title": "Windows and convolution: the same scores, and what they cost",
        "where": {"system": "agreement"},
        "settings": ("padding",),
        "metrics": ("relative difference", "multiply-adds ratio", "time ratio"),
        "papers": [],
    },
}

COLUMNS = {
    "learned from": "the pixels that the loss counts: `the middles` of windows, or `all pixels`",
    "padding": "of the trunk's convolutions: `none`, or `zeros`",
    "relative difference": "between the scores of windows and those of one convolution, relative "
    "to their size",
    "multiply-adds ratio": "of the windows, 32 pixels apart, over those of the convolution",
    "time ratio": "milliseconds of the windows, 32 pixels apart, over those of the convolution, "
    "measured in the chapter with whatever else runs",
}

PIXELS = {"system": "FCN-32s", "learned from": "all pixels"}
CONVERTED = {"system": "FCN-32s", "learned from": "the middles"}

CLAIMS = [
    Claim(
        "Windows and convolution have the same scores where the network does not pad.",
        metric="relative difference",
        left={"system": "agreement", "padding": "none"},
        right=1e-4,
        relation="less",
    ),
    Claim(
        "The classifier of windows beats the most frequent class.",
        metric="mIoU",
        left={"system": "PatchSegmenter"},
        right={"system": "most frequent class"},
    ),
    Claim(
        "FCN-32s, learning from all pixels, beats the classifier of windows.",
        metric="mIoU",
        left=PIXELS,
        right={"system": "PatchSegmenter"},
    ),
    Claim(
        "It also beats the classifier's own weights as a convolution.",
        metric="mIoU",
        left=PIXELS,
        right=CONVERTED,
    ),
]

SYSTEMS = {"scenes": {"PatchSegmenter": of_scenes("PatchSegmenter", 15, SMALL)}}
