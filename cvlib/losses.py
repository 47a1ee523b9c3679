"""Losses of the papers, per element or per box; the caller weighs and averages them."""

import keras
from keras import ops

from cvlib import boxes


def mean_where(counted, values):
    """The mean of those values that count, 0 where none does; both are of one shape.

    What does not count must be finite all the same, for its gradient is 0 times what it would be.
    """
    counted = ops.cast(counted, "float32")
    return ops.sum(ops.multiply(counted, values)) / ops.maximum(ops.sum(counted), 1)


def pixel_cross_entropy(segmentation, logits, void=255):
    """The mean cross-entropy of the pixels that are not void, 0 where all are.

    It is nan where a label is neither a class nor void: a graph cannot raise.

    Args:
        segmentation: (B, H, W) integers, the classes of the pixels or `void`.
        logits: (B, H, W, C).
        void: label of the pixels that do not count.

    Source: FCN (Long et al. 2015), section 4, whose code takes the sum, with a learning rate that
    is smaller by the number of pixels.
    """
    labels = ops.cast(segmentation, "int32")
    classes = logits.shape[-1]
    counted = ops.not_equal(labels, void)
    known = ops.logical_and(labels >= 0, labels < classes)
    each = keras.losses.sparse_categorical_crossentropy(
        ops.where(known, labels, 0), logits, from_logits=True
    )
    each = ops.where(ops.logical_or(known, ~counted), each, float("nan"))
    return mean_where(counted, each)


def l2(y_true, y_pred):
    """Squared error of each box: (..., 4) and (..., 4) to (...), the mean over coordinates.

    Source: OverFeat (Sermanet et al. 2013), section 4.2; DeepPose (Toshev & Szegedy 2014),
    section 3.1.
    """
    y_true, y_pred = (ops.cast(y, "float32") for y in (y_true, y_pred))
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


def smooth_l1(y_true, y_pred, beta=1.0):
    """Smooth L1 of each box: (..., 4) and (..., 4) to (...), the mean over coordinates.

    Quadratic below `beta` and linear above, in the units of the coordinates: with coordinates
    relative to the image, `beta=1` would hardly ever leave the quadratic part.

    Source: Fast R-CNN (Girshick 2015), eq. 3, which sums over the coordinates: four times this.
    `beta` is 1 / sigma^2 of Faster R-CNN's code.
    """
    y_true, y_pred = (ops.cast(y, "float32") for y in (y_true, y_pred))
    error = ops.abs(y_true - y_pred)
    return ops.mean(
        ops.where(error < beta, ops.square(error) / (2 * beta), error - beta / 2), axis=-1
    )


def iou_loss(y_true, y_pred):
    """1 - IoU of each pair of `xyxy` boxes: (..., 4) and (..., 4) to (...), in 0..1.

    It is flat where boxes do not touch, so it needs a start that overlaps.

    Source: UnitBox (Yu et al. 2016), section 3, with 1 - IoU in place of -ln IoU.
    """
    return 1 - boxes.paired_iou(y_true, y_pred)
