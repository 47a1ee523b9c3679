"""Box arithmetic on tensors: any leading shape, any backend, under jit.

A box is `xyxy` in continuous pixels: pixel (row, column) covers [column, column + 1) x
[row, row + 1), so a box is x2 - x1 wide, without the + 1 of integer pixel boxes.
"""

import keras
from keras import ops


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
    return keras.utils.bounding_boxes.convert_format(
        boxes, source=source, target=target, height=height, width=width
    )


def area(boxes):
    """Areas (...) of `xyxy` boxes (..., 4); 0 where x2 < x1 or y2 < y1."""
    size = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return size[..., 0] * size[..., 1]


def paired_iou(a, b):
    """IoU (...) of `xyxy` boxes, each in a (..., 4) with its partner in b (..., 4); 0 if empty."""
    a, b = ops.convert_to_tensor(a, "float32"), ops.convert_to_tensor(b, "float32")
    corners = (ops.maximum(a[..., :2], b[..., :2]), ops.minimum(a[..., 2:], b[..., 2:]))
    intersection = area(ops.concatenate(corners, axis=-1))
    union = area(a) + area(b) - intersection
    return intersection / ops.where(union > 0, union, 1)


def iou(a, b):
    """IoU (..., N, M) of `xyxy` boxes, each in a (..., N, 4) with each in b (..., M, 4)."""
    a, b = ops.convert_to_tensor(a, "float32"), ops.convert_to_tensor(b, "float32")
    return paired_iou(a[..., :, None, :], b[..., None, :, :])
