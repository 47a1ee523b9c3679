"""Classification with localization: is the class right, and how well does the box fit?

The metrics run inside the graph. They compare object k of the truth with object k of the
prediction; both are `{"boxes": (..., 4) xyxy, "labels": (...)}`, and true objects labelled -1 are
padding.
"""

import keras
from keras import ops

from cvlib.boxes import paired_iou


class _ObjectMean(keras.metrics.Mean):
    """The mean of `self.score(y_true, y_pred)` over the objects that are no padding."""

    def update_state(self, y_true, y_pred):
        present = ops.cast(ops.convert_to_tensor(y_true["labels"]) >= 0, "float32")
        super().update_state(self.score(y_true, y_pred), present)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


def _right(y_true, y_pred):
    labels = ops.cast(y_true["labels"], "int32"), ops.cast(y_pred["labels"], "int32")
    return ops.cast(ops.equal(*labels), "float32")


@keras.saving.register_keras_serializable(package="cvlib")
class LabelAccuracy(_ObjectMean):
    """The fraction of objects whose class is right, in 0..1."""

    def __init__(self, name="accuracy", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def score(self, y_true, y_pred):
        return _right(y_true, y_pred)


@keras.saving.register_keras_serializable(package="cvlib")
class BoxIoU(_ObjectMean):
    """The mean IoU of predicted with true boxes, in 0..1, whatever the class."""

    def __init__(self, name="box_iou", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def score(self, y_true, y_pred):
        return paired_iou(y_true["boxes"], y_pred["boxes"])


@keras.saving.register_keras_serializable(package="cvlib")
class LocalizationAccuracy(_ObjectMean):
    """The fraction of objects whose class is right and whose box has IoU > 0.5, in 0..1.

    Source: ILSVRC localization (Russakovsky et al. 2015), section 4.2, with one guess for its five.
    """

    def __init__(self, name="localization_accuracy", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def score(self, y_true, y_pred):
        overlap = paired_iou(y_true["boxes"], y_pred["boxes"]) > 0.5
        return _right(y_true, y_pred) * ops.cast(overlap, "float32")
