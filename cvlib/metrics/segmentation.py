"""Semantic segmentation: how many pixels are right, and how well each class's region fits.

Source: Long et al. 2015, "Fully Convolutional Networks for Semantic Segmentation", section 5; the
intersection over union is that of Pascal VOC's development kit (`VOCevalseg.m`).
"""

import itertools

import keras
import numpy as np
from keras import ops
from scipy.ndimage import distance_transform_cdt

_WORD = 2**24  # float32 counts up to here without a gap


@keras.saving.register_keras_serializable(package="cvlib")
class MeanIoU(keras.metrics.Metric):
    """Mean over the classes of the intersection over union of their pixels in all images, in 0..1.

    One confusion matrix gathers the pixels of the whole set; an IoU of each image, averaged, would
    be another number. Runs inside the graph.

    A class that is neither true nor predicted anywhere is nan and left out of the mean, as in VOC's
    kit and FCN's code; one that is only predicted has the IoU 0 and counts. Everything is nan
    before the first pixel, and from then on where a label was neither a class nor void: a graph
    cannot raise.

    Args:
        num_classes: C, the background among them; labels are 0..C-1.
        void: the true label of pixels that do not count, whatever is predicted there.
    """

    def __init__(self, num_classes, void=255, name="mIoU", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.num_classes = num_classes
        self.void = void
        # One more for the pixels with a label that is none. Counts are high * 2^24 + low, exactly:
        # a single float32 would lose what a batch adds to billions of pixels.
        shape = (num_classes**2 + 1,)
        self.low = self.add_weight(shape=shape, initializer="zeros", name="low", dtype="float32")
        self.high = self.add_weight(shape=shape, initializer="zeros", name="high", dtype="float32")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch.

        Args:
            y_true: (B, H, W) integers, the classes of the pixels or `void`.
            y_pred: (B, H, W) integers, or (B, H, W, C) scores, of which the highest counts.

        Raises:
            ValueError: sample weights are given, or the sizes differ.
        """
        if sample_weight is not None:
            raise ValueError("MeanIoU takes no sample weights: give what must not count as void.")
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        if len(y_pred.shape) == len(y_true.shape) + 1:
            y_pred = ops.argmax(y_pred, axis=-1)
        sizes = itertools.zip_longest(y_true.shape, y_pred.shape, fillvalue=0)
        if any(None not in pair and pair[0] != pair[1] for pair in sizes):
            raise ValueError(
                f"MeanIoU: y_true is {tuple(y_true.shape)}, but the classes of y_pred are "
                f"{tuple(y_pred.shape)}."
            )
        true, found = (ops.reshape(ops.cast(y, "int32"), (-1,)) for y in (y_true, y_pred))
        cells = self.num_classes**2
        known = (true >= 0) & (true < self.num_classes)
        known &= (found >= 0) & (found < self.num_classes)
        cell = ops.where(known, true * self.num_classes + found, cells)
        cell = ops.where(true == self.void, cells + 1, cell)
        counts = ops.segment_sum(ops.ones_like(cell), cell, num_segments=cells + 2)[:-1]
        counts += ops.cast(self.low, "int32")
        self.low.assign(ops.cast(counts % _WORD, "float32"))
        self.high.assign_add(ops.cast(counts // _WORD, "float32"))

    def confusion(self):
        """(C, C) float32: how many pixels of class i, the row, were taken for class j."""
        counts = self.high * float(_WORD) + self.low
        counts = ops.where(counts[-1] > 0, float("nan"), counts[:-1])
        return ops.reshape(counts, (self.num_classes, self.num_classes))

    def per_class(self):
        """(C,) the IoU of each class, nan where it is neither true nor predicted."""
        counts = self.confusion()
        union = ops.sum(counts, axis=0) + ops.sum(counts, axis=1) - ops.diagonal(counts)
        return _quotient(ops.diagonal(counts), union)

    def pixel_accuracy(self):
        """The fraction of pixels that are right."""
        counts = self.confusion()
        return _quotient(ops.sum(ops.diagonal(counts)), ops.sum(counts))

    def class_accuracy(self):
        """The mean over the true classes of the fraction of their pixels that are right."""
        counts = self.confusion()
        return _mean(_quotient(ops.diagonal(counts), ops.sum(counts, axis=1)))

    def result(self):
        return _mean(self.per_class())

    def get_config(self):
        arguments = {"num_classes": self.num_classes, "void": self.void}
        return {**super().get_config(), **arguments}


def _quotient(part, whole):
    """`part / whole`, nan where both are 0."""
    return ops.where(whole == 0, float("nan"), part / ops.where(whole == 0, 1.0, whole))


def _mean(values):
    """The mean of those that are not nan; nan if there are none, or if all the counts are."""
    known = ~ops.isnan(values)
    total = ops.sum(ops.where(known, values, 0.0))
    return _quotient(total, ops.sum(ops.cast(known, "float32")))


def edge_distance(classes):
    """How far each pixel is from a border between two classes, (H, W) integers from 1.

    1 are pixels that touch one of another class, on their left, right, upper or lower side; 2 are
    those around them, and so on. Without any border all are as far as the image is large.

    Args:
        classes: (H, W) integers; void is a class like any other.

    Source: the trimap of Krähenbühl & Koltun 2011, "Efficient Inference in Fully Connected CRFs",
    section 5.
    """
    padded = np.pad(classes, 1, mode="edge")
    sides = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    border = np.any([side != classes for side in sides], axis=0)
    if not border.any():
        return np.full(classes.shape, max(classes.shape))
    return 1 + distance_transform_cdt(~border, "chessboard")
