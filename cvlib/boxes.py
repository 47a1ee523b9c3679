"""Box arithmetic on tensors: any leading shape, any backend, under jit, on symbolic tensors too.

A box is `xyxy` in continuous pixels: pixel (row, column) covers [column, column + 1) x
[row, row + 1), so a box is x2 - x1 wide, without the + 1 of integer pixel boxes. What comes out is
float32, but for `area` and `enlarge`, which keep the type.

Where a symbolic tensor may meet an array, `ops.multiply(a, b)` stands for `a * b`, which fails with
an array of JAX on its left. `ops.add` is not used: on TensorFlow it adds whatever looks like a bias
along the last axis, (N, 1) to (N, N) too.
"""

import math

import keras
import numpy as np
from keras import ops

CENTRAL_HALF = (0.25, 0.25, 0.75, 0.75)  # of a frame, where a regressed box may start

_LARGEST_LOG = math.log(1000 / 16)  # of a size over its anchor's, so that exp stays finite


def convert(boxes, source, target, height=None, width=None):
    """Boxes from one format to another.

    Args:
        boxes: (..., 4).
        source, target: `"xyxy"`, `"xywh"` (left, top, width, height), `"center_xywh"`, and, with
            `rel_` before them, the same divided by the image's `width` and `height`; `"yxyx"` too.

    Returns:
        (..., 4) in the target format.

    Raises:
        ValueError: a format is unknown, or a relative one comes without the image's size.
    """
    return _Convert(source, target, height, width)(boxes)


@keras.saving.register_keras_serializable(package="cvlib")
class _Convert(keras.Operation):
    """Keras's conversion, which by itself takes no symbolic tensors."""

    def __init__(self, source, target, height, width, name=None):
        super().__init__(name=name)
        self.arguments = {"source": source, "target": target, "height": height, "width": width}

    def call(self, boxes):
        return keras.utils.bounding_boxes.convert_format(boxes, **self.arguments)


def area(boxes):
    """Areas (...) of `xyxy` boxes (..., 4); 0 where x2 < x1 or y2 < y1."""
    size = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return size[..., 0] * size[..., 1]


def paired_iou(a, b):
    """IoU (...) of `xyxy` boxes, each in a (..., 4) with its partner in b (..., 4); 0 if empty."""
    a, b = ops.cast(a, "float32"), ops.cast(b, "float32")
    # By coordinate: in `iou`, corners would be arrays four times as large.
    width = ops.minimum(a[..., 2], b[..., 2]) - ops.maximum(a[..., 0], b[..., 0])
    height = ops.minimum(a[..., 3], b[..., 3]) - ops.maximum(a[..., 1], b[..., 1])
    intersection = ops.maximum(width, 0) * ops.maximum(height, 0)
    # |a| + |b| - |a and b|, by differences alone: the top of this file says why.
    union = ops.subtract(area(a), intersection - area(b))
    return intersection / ops.where(union > 0, union, 1)


def iou(a, b):
    """IoU (..., N, M) of `xyxy` boxes, each in a (..., N, 4) with each in b (..., M, 4)."""
    a, b = ops.cast(a, "float32"), ops.cast(b, "float32")
    return paired_iou(a[..., :, None, :], b[..., None, :, :])


def covered(a, b):
    """Share (..., N, M) of each `xyxy` box of a (..., N, 4) that each of b (..., M, 4) covers."""
    a, b = ops.cast(a, "float32")[..., :, None, :], ops.cast(b, "float32")[..., None, :, :]
    # By coordinate, as in `paired_iou`, whose source chapter 01 prints and which thus has no parts.
    width = ops.minimum(a[..., 2], b[..., 2]) - ops.maximum(a[..., 0], b[..., 0])
    height = ops.minimum(a[..., 3], b[..., 3]) - ops.maximum(a[..., 1], b[..., 1])
    whole = area(a)
    return ops.maximum(width, 0) * ops.maximum(height, 0) / ops.where(whole > 0, whole, 1)


def clip(boxes, height, width):
    """The parts of `xyxy` boxes (..., 4) inside an image: empty boxes where they are outside."""
    limits = np.float32([width, height, width, height])
    return ops.minimum(ops.maximum(ops.cast(boxes, "float32"), 0), limits)


def enlarge(boxes, factor):
    """`xyxy` boxes (..., 4) with the same centres, and sides that are `factor` times as long."""
    middle, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
    return ops.concatenate([middle - factor * half, middle + factor * half], axis=-1)


def encode(boxes, anchors, scale=(0.1, 0.1, 0.2, 0.2)):
    """What a head must say at anchors so that `decode` gives these boxes.

    The shift of the centre in units of the anchor's sides, and the logarithms of the ratios of
    sides, each divided by its `scale`, which brings them near to unit variance. Where the box or
    the anchor is empty, padded or NaN, all are 0: a masked loss still multiplies what it masks, in
    its gradient too, and 0 times infinity is NaN.

    Args:
        boxes, anchors: (..., 4) xyxy; either may be broadcast.
        scale: what the four are divided by; all 1 as in the papers' equations.

    Returns:
        (..., 4).

    Source: R-CNN (Girshick et al. 2014), appendix C; the scale is of Fast R-CNN's code.
    """
    boxes, anchors = ops.cast(boxes, "float32"), ops.cast(anchors, "float32")
    real = ops.logical_and(_has_area(boxes), _has_area(anchors))
    unit = np.float32([0, 0, 1, 1])
    boxes, anchors = ops.where(real, boxes, unit), ops.where(real, anchors, unit)
    centre, size = _centre_and_size(boxes)
    anchor_centre, anchor_size = _centre_and_size(anchors)
    moved = ops.divide(ops.subtract(centre, anchor_centre), anchor_size)
    deltas = [moved, ops.log(ops.divide(size, anchor_size))]
    return ops.divide(ops.concatenate(deltas, axis=-1), np.float32(scale))


def decode(deltas, anchors, scale=(0.1, 0.1, 0.2, 0.2)):
    """The boxes that a head means by what it says at anchors; undoes `encode`.

    A side grows to 1000 / 16 of its anchor's at most, so that nothing overflows. An anchor without
    area stays without.

    Args:
        deltas: (..., 4).
        anchors: (..., 4) xyxy; either may be broadcast.
        scale: as in `encode`.

    Returns:
        (..., 4) xyxy.
    """
    deltas = ops.multiply(ops.cast(deltas, "float32"), np.float32(scale))
    anchor_centre, anchor_size = _centre_and_size(ops.cast(anchors, "float32"))
    anchor_size = ops.maximum(anchor_size, 0)
    centre = ops.subtract(anchor_centre, ops.multiply(-deltas[..., :2], anchor_size))
    size = ops.multiply(anchor_size, ops.exp(ops.minimum(deltas[..., 2:], _LARGEST_LOG)))
    return ops.concatenate([centre - size / 2, centre + size / 2], axis=-1)


def _centre_and_size(boxes):
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def _has_area(boxes):
    """(..., 1): whether both sides are positive and finite, not so short that a ratio overflows."""
    size = boxes[..., 2:] - boxes[..., :2]
    return ops.all((size > keras.config.epsilon()) & ops.isfinite(size), axis=-1, keepdims=True)
