"""Boxes, and segments where there are some, that may hold an object of any class.

A method is a frozen dataclass of its settings, called with one image:

    SelectiveSearch("fast")(image).boxes[:1000]

Images are uint8: (H, W, 3) as in `cvlib.data`; grey ones, (H, W) or (H, W, 1), become three equal
channels, and the alpha of (H, W, 4) is dropped, as where `cvlib.data` reads files.
"""

import importlib

# Importing one method loads nothing of another.
_HOME = {
    "CHANGES": "changes",
    "EdgeBoxes": "edge_boxes",
    "OpenCVSelectiveSearch": "opencv",
    "Proposals": "proposals",
    "RandomBoxes": "windows",
    "SelectiveSearch": "selective_search",
    "SlidingWindows": "windows",
    "Superpixels": "superpixels",
    "propose": "batch",
    "repeatability": "changes",
}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"cvlib.proposals.{_HOME[name]}"), name)
