"""Losses of the papers, per element or per box; the caller weighs and averages them."""

from keras import ops

from cvlib import boxes


def mean_where(counted, values):
    """The mean of those values that count, 0 where none does; both are of one shape.

    What does not count must be finite all the same, for its gradient is 0 times what it would be.
    """
    counted = ops.cast(counted, "float32")
    return ops.sum(ops.multiply(counted, values)) / ops.maximum(ops.sum(counted), 1)


def l2(y_true, y_pred):
    """Squared error of each box: (..., 4) and (..., 4) to (...), the mean over coordinates.

    Source: OverFeat (Sermanet et al. 2013), section 4.2; DeepPose (Toshev & Szegedy 2014),
    section 3.1.
    """
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


def smooth_l1(y_true, y_pred, beta=1.0):
    """Smooth L1 of each box: (..., 4) and (..., 4) to (...), the mean over coordinates.

    Quadratic below `beta` and linear above, in the units of the coordinates: with coordinates
    relative to the image, `beta=1` would hardly ever leave the quadratic part.

    Source: Fast R-CNN (Girshick 2015), eq. 3, which sums over the coordinates: four times this.
    `beta` is 1 / sigma^2 of Faster R-CNN's code.
    """
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
