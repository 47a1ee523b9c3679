"""How well proposals survive small changes of their image.

Source: Hosang et al. 2015, "What Makes for Effective Detection Proposals?", section 3.
"""

import io

import numpy as np
from PIL import Image
from pycocotools import mask as rle
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.optimize import linear_sum_assignment


def repeatability(before, after):
    """How well the boxes of a changed image repeat those of the image: 1 is exactly.

    It is the area under the recall of `before` by `after` over all IoU thresholds in 0..1, which is
    the mean IoU where boxes are paired one to one so that their IoU is largest in all.

    Args:
        before: (N, 4) xyxy, the boxes of the image, N > 0.
        after: (M, 4), those of the changed image, brought back into the image.
    """
    a, b = (np.hstack([x[:, :2], x[:, 2:] - x[:, :2]]).astype(float) for x in (before, after))
    iou = np.reshape(rle.iou(a, b, np.zeros(len(b))), (len(a), len(b)))
    return iou[linear_sum_assignment(iou, maximize=True)].sum() / len(before)


def scaled(image, factor):
    """The image in `factor` times its size, and the way back."""
    height, width = image.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    changed = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    back = np.array([width / size[0], height / size[1]])
    return changed, lambda boxes: boxes * np.tile(back, 2)


def rotated(image, degrees):
    """The image turned about its centre, mirrored at its borders, and the way back.

    The way back turns the centre of a box and keeps its width and height.
    """
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array(image.shape[:2]) / 2
    offset = middle - 0.5 - turn @ (middle - 0.5)
    channels = [
        affine_transform(channel, turn, offset, order=1, mode="mirror")
        for channel in np.moveaxis(image, 2, 0)
    ]

    def back(boxes):
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        centre = (middle + (centre[:, ::-1] - middle) @ turn.T)[:, ::-1]
        return np.hstack([centre - half, centre + half])

    return np.stack(channels, axis=2), back


def blurred(image, sigma):
    """The image smoothed by a Gaussian of `sigma` pixels, and the way back."""
    smoothed = gaussian_filter(image.astype(np.float32), (sigma, sigma, 0))
    return np.rint(smoothed).astype(np.uint8), np.asarray


def compressed(image, quality):
    """The image after JPEG, and the way back."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream)), np.asarray


def darkened(image, factor):
    """The image with `factor` of its brightness, and the way back."""
    return np.rint(image * factor).astype(np.uint8), np.asarray


# Each takes an image (H, W, 3) uint8 and gives the changed one, and a function that takes boxes
# (N, 4) of the changed image back into the image.
CHANGES = {
    "scale 0.8": (scaled, 0.8),
    "rotation 5 degrees": (rotated, 5),
    "blur 1 pixel": (blurred, 1),
    "JPEG quality 30": (compressed, 30),
    "brightness 0.8": (darkened, 0.8),
}
