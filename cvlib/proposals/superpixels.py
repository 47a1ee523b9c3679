"""Boxes around superpixels: what a segmentation gives before any grouping."""

from dataclasses import dataclass

import numpy as np
from skimage.segmentation import felzenszwalb, slic

from cvlib.proposals.proposals import Proposals, ranked, rgb
from cvlib.proposals.regions import label_boxes, label_masks

# From coarse to fine: k of Felzenszwalb and Huttenlocher, and the number of SLIC's segments.
LEVELS = {"felzenszwalb": (800, 400, 200, 100, 50), "slic": (10, 30, 100, 300)}


@dataclass(frozen=True)
class Superpixels:
    """The segments of segmentations from coarse to fine, large ones first.

    Args:
        segmentation: `"felzenszwalb"` (Felzenszwalb and Huttenlocher 2004) or `"slic"` (Achanta et
            al. 2012), both by scikit-image.
        masks: whether the proposals come with their segments.
    """

    segmentation: str = "felzenszwalb"
    masks: bool = False

    def __post_init__(self):
        if self.segmentation not in LEVELS:
            raise ValueError(
                f"segmentation {self.segmentation!r} must be one of {', '.join(LEVELS)}."
            )

    def __call__(self, image) -> Proposals:
        """The segments of all levels; scores are their areas in pixels.

        Raises:
            ValueError: not an image, see `cvlib.proposals`.
        """
        image = rgb(image)
        levels = [segments(image, self.segmentation, level) for level in LEVELS[self.segmentation]]
        return ranked(
            np.concatenate([label_boxes(labels) for labels in levels]),
            np.concatenate([np.bincount(labels.ravel()) for labels in levels]),
            [m for labels in levels for m in label_masks(labels)] if self.masks else None,
        )


def segments(image, segmentation, level):
    """Labels (H, W), 0..R-1, of an image (H, W, 3) uint8.

    `level` is Felzenszwalb's `scale`, or how many regions SLIC is asked for.
    """
    if segmentation == "felzenszwalb":
        return felzenszwalb(image, scale=level, sigma=0.8, min_size=level)
    return slic(image, n_segments=level, start_label=0)
