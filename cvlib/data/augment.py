"""Random crops, flips and colours, and the one resampling that carries them out.

A **view** is the rectangle `(x1, y1, x2, y2)` of the original image, in continuous pixels, that
becomes the whole output image. A crop is a smaller view, padding a larger one, a mirror image one
with `x1 > x2`: whatever the augmentation, one scale and one offset per axis move pixels, boxes,
joints and masks alike, and the image is resampled once.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

# ITU-R 601: the weights of red, green and blue in the grey that keeps a colour's lightness.
LUMA = np.array([0.299, 0.587, 0.114])

MEAN_COLOR = (124, 116, 104)  # of ImageNet's photographs: what is outside an image


@dataclass(frozen=True)
class Augment:
    """Random augmentation of one sample; the defaults only mirror.

    Args:
        flip: probability of a mirror image, in [0, 1].
        scale: range of the view's side as a multiple of the image's, drawn uniformly. Below 1 the
            view is a crop; above 1 the image shrinks into a padded canvas (the zoom out of SSD,
            Liu et al. 2016, section 2.2).
        aspect: range of the change of the view's width over height, drawn log-uniformly.
        min_visible: objects of which a smaller fraction of the box is left are dropped, in (0, 1].
            A view that would drop all of a sample's objects is drawn again.
        brightness: colours are multiplied by a factor in `1 ± brightness`.
        contrast: their distance from mid-grey is multiplied by a factor in `1 ± contrast`.
        saturation: their distance from their own grey is multiplied by one in `1 ± saturation`.
    """

    flip: float = 0.5
    scale: tuple[float, float] = (1.0, 1.0)
    aspect: tuple[float, float] = (1.0, 1.0)
    min_visible: float = 0.3
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def view(self, size, boxes, rng):
        """A random view of an image.

        Args:
            size: the image's `(height, width)`.
            boxes: (N, 4) objects, at least one of which stays if there are any.
            rng: `numpy.random.Generator`.

        Returns:
            `(x1, y1, x2, y2)`, with `x1 > x2` for a mirror image.
        """
        height, width = size
        view = (0.0, 0.0, width, height)
        for _ in range(20 if self.scale != (1, 1) or self.aspect != (1, 1) else 0):
            scale = rng.uniform(*self.scale)
            stretch = math.exp(rng.uniform(*np.log(self.aspect)) / 2)
            # The aspect alone must not push a crop over the border.
            w = width * min(scale * stretch, max(scale, 1.0))
            h = height * min(scale / stretch, max(scale, 1.0))
            x, y = rng.random(2) * (width - w, height - h)
            drawn = (x, y, x + w, y + h)
            if not len(boxes) or visible_fraction(boxes, drawn).max() >= self.min_visible:
                view = drawn
                break
        x1, y1, x2, y2 = view
        return (x2, y1, x1, y2) if rng.random() < self.flip else (x1, y1, x2, y2)

    def color(self, image, rng):
        """`image` (a PIL image in RGB) with its colours changed."""
        ranges = np.array([self.brightness, self.contrast, self.saturation])
        if not ranges.any():
            return image
        brightness, contrast, saturation = rng.uniform(1 - ranges, 1 + ranges)
        mix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * LUMA)
        shift = np.full((3, 1), 128 * (1 - contrast))
        return image.convert("RGB", np.hstack([mix, shift]).ravel().tolist())


def letterbox(view, size):
    """The smallest view around `view` with the proportions of `size` `(height, width)`."""
    x1, y1, x2, y2 = view
    height, width = size
    scale = max(abs(x2 - x1) / width, (y2 - y1) / height)
    dx, dy = math.copysign(scale * width, x2 - x1) / 2, scale * height / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return (x - dx, y - dy, x + dx, y + dy)


def view_geometry(view, size):
    """`(scale_x, scale_y, offset_x, offset_y)`: `view` becomes the image of `size` (height, width).

    Coordinates are continuous (the first pixel's centre is at 0.5), so `x * scale_x + offset_x`
    needs no correction by half a pixel. `scale_x` is negative in a mirror image.
    """
    x1, y1, x2, y2 = view
    scale_x, scale_y = size[1] / (x2 - x1), size[0] / (y2 - y1)
    return np.array([scale_x, scale_y, -x1 * scale_x, -y1 * scale_y])


def clip_to_view(boxes, view):
    """The part of `boxes` (N, 4) inside `view`; zero-sized on its border when there is none."""
    x1, y1, x2, y2 = min(view[0], view[2]), view[1], max(view[0], view[2]), view[3]
    return np.clip(boxes, (x1, y1, x1, y1), (x2, y2, x2, y2))


def visible_fraction(boxes, view):
    """(N,) fraction of each box's area inside `view`."""
    return areas(clip_to_view(boxes, view)) / areas(boxes)


def areas(boxes):
    """(N,) areas of `boxes` (N, 4)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def render(image, view, size, resample=Image.Resampling.BILINEAR, fill=0):
    """Resample `view` of an image.

    Args:
        image: PIL image.
        view: `(x1, y1, x2, y2)`; outside the image it shows `fill`.
        size: `(height, width)` of the result.
        resample: `BILINEAR`, which averages all the pixels it shrinks, or `NEAREST`, which keeps
            class indices what they are.
        fill: colour outside the image.

    Returns:
        PIL image.
    """
    x1, y1, x2, y2 = min(view[0], view[2]), view[1], max(view[0], view[2]), view[3]
    left, top = max(0, math.ceil(-x1)), max(0, math.ceil(-y1))
    right, bottom = max(0, math.ceil(x2 - image.width)), max(0, math.ceil(y2 - image.height))
    if left or top or right or bottom:
        shape = (image.width + left + right, image.height + top + bottom)
        canvas = Image.new(image.mode, shape, fill)
        canvas.paste(image, (left, top))
        image = canvas
    box = (x1 + left, y1 + top, x2 + left, y2 + top)
    image = image.resize(size[::-1], resample, box, reducing_gap=3.0)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view[0] > view[2] else image
