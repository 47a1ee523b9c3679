"""What every method of `cvlib.proposals` takes and gives."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Proposals:
    """The proposals of one image, the best first.

    Attributes:
        boxes: (N, 4) float32 xyxy in pixels, inside the image, no two equal.
        scores: (N,) float32, falling; comparable within one image only.
        masks: N run-length masks (`cvlib.masks`) whose smallest boxes are `boxes`, or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    masks: list | None = None

    def __len__(self):
        return len(self.boxes)


def ranked(boxes, scores, masks=None):
    """`Proposals` of boxes in any order: the best first, and of equal boxes only the best."""
    boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    order = np.argsort(-scores, kind="stable")
    _, first = np.unique(boxes[order], axis=0, return_index=True)
    order = order[np.sort(first)]
    return Proposals(boxes[order], scores[order], masks and [masks[i] for i in order])


def rgb(image):
    """The image as (H, W, 3) uint8.

    Raises:
        ValueError: it is not uint8 of 1, 3 or 4 channels, or has no pixel.
    """
    image = np.asarray(image)
    shape = image.shape if image.ndim == 3 else (*image.shape, 1)
    if image.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3, 4) or 0 in shape:
        raise ValueError(
            f"the image is {image.dtype} of shape {image.shape}: proposals are made for uint8 "
            "images (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of at least one pixel."
        )
    image = image.reshape(shape)
    return np.repeat(image, 3, axis=2) if shape[2] == 1 else np.ascontiguousarray(image[..., :3])
