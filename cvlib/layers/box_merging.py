"""Greedy merging: boxes that many windows agree on become one, surer than any of them."""

import keras
from keras import ops

from cvlib.boxes import paired_iou
from cvlib.layers.detections import DetectionLayer, by_falling_score


@keras.saving.register_keras_serializable(package="cvlib")
class BoxMerging(DetectionLayer):
    """Merges the two boxes of a class that are most alike, again and again, while any are.

    How unlike two boxes are is their match score: the distance of their centres, divided by the
    mean of their diagonals, plus 1 - IoU. It is 0 for equal boxes and over 1 for boxes that do not
    overlap. (The paper adds the distance and "the intersection area"; unit and sign are ours.)

    The scores of merged boxes are added up, so that boxes on which many windows agree come first.
    The merged box is the mean of the boxes that went into it, weighted by their scores. (The paper
    says "the average"; with the plain mean of two, one box could outvote twenty merged before.)

    Args:
        threshold: boxes with a greater match score are not merged; below 0 none are.
        max_windows: K, how many boxes of an image are looked at, those of the highest scores.
        confidence_threshold: boxes of a lower score are not looked at.

    Call arguments:
        boxes: (B, N, 4) xyxy, in float32.
        scores: (B, N, C), one score in 0..1 for each class; a box belongs to the class of its
            highest.

    Returns:
        Detections in float32, by falling confidence, K or N of them if N is less: `boxes`
        (B, K, 4), `confidence` (B, K), `labels` (B, K), -1 where padded, `num_detections` (B,).
        A sum of scores s becomes the confidence s / (1 + s), which is below 1. No gradient passes.

    Source: OverFeat (Sermanet et al. 2013), section 4.3.
    """

    def __init__(self, threshold=0.7, max_windows=100, confidence_threshold=0.1, **kwargs):
        super().__init__(**kwargs)
        self.threshold = threshold
        self.max_windows = max_windows
        self.confidence_threshold = confidence_threshold

    def call(self, boxes, scores):
        scores = ops.stop_gradient(ops.cast(scores, "float32"))
        boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
        K = min(self.max_windows, boxes.shape[1])
        # An argmax of floats cannot be exported to ONNX.
        scores, labels = (x[..., 0] for x in ops.top_k(scores, 1))
        # From here on a box with the score 0 does not exist.
        real = ops.all(ops.isfinite(boxes), axis=-1) & (scores >= self.confidence_threshold)
        scores, boxes = ops.where(real, scores, 0.0), ops.where(real[..., None], boxes, 0.0)
        scores, order = by_falling_score(scores, K)
        boxes = ops.take_along_axis(boxes, order[..., None], axis=1)
        labels = ops.take_along_axis(labels, order, axis=1)
        same_class = ops.equal(labels[:, :, None], labels[:, None])
        pairs = same_class & (scores[:, :, None] > 0) & (scores[:, None] > 0)
        pairs = pairs & ~ops.eye(K, dtype="bool")
        match = ops.where(pairs, match_score(boxes[:, :, None], boxes[:, None]), float("inf"))

        def any_left(boxes, scores, match):
            return ops.any(match <= self.threshold)

        def merge(boxes, scores, match):
            """Box j becomes a part of box i in every image where there is such a pair."""
            flat = ops.reshape(match, (-1, K * K))
            best = ops.top_k(-flat, 1)[1][..., 0]
            found = ops.min(flat, axis=-1)[:, None] <= self.threshold
            # On accelerators, a mask over all boxes is faster than writing to one of them.
            at_i = ops.equal(ops.arange(K), ops.cast(best // K, "int32")[:, None]) & found
            at_j = ops.equal(ops.arange(K), ops.cast(best % K, "int32")[:, None]) & found
            weights = ops.where(at_i | at_j, scores, 0.0)
            total = ops.sum(weights, axis=1, keepdims=True)
            merged = ops.sum(weights[..., None] * boxes, axis=1) / ops.where(total > 0, total, 1)
            boxes = ops.where(at_i[..., None], merged[:, None], boxes)
            scores = ops.where(at_i, total, ops.where(at_j, 0.0, scores))
            # Box i has moved, so its row and its column change; where a pair was impossible
            # (another class, a box that is gone), it stays so.
            row = match_score(boxes, merged[:, None])
            changed = ops.where(at_i[..., None], row[:, None], match)
            changed = ops.where(at_i[:, None], row[..., None], changed)
            gone = at_j[..., None] | at_j[:, None] | ops.isinf(match)
            return boxes, scores, ops.where(gone, float("inf"), changed)

        boxes, scores, _ = ops.while_loop(any_left, merge, (boxes, scores, match), K)
        scores, order = by_falling_score(scores, K)
        return self.pad(
            scores > 0,
            boxes=ops.take_along_axis(boxes, order[..., None], axis=1),
            confidence=scores / (1 + scores),
            labels=ops.take_along_axis(labels, order, axis=1),
        )

    def compute_output_shape(self, boxes_shape, scores_shape):
        batch, number, _ = boxes_shape
        K = min(self.max_windows, number)
        return {
            "boxes": (batch, K, 4),
            "confidence": (batch, K),
            "labels": (batch, K),
            "num_detections": (batch,),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "threshold": self.threshold,
            "max_windows": self.max_windows,
            "confidence_threshold": self.confidence_threshold,
        }


def match_score(a, b):
    """How unlike `xyxy` boxes a (..., 4) and b (..., 4) are, (...): see `BoxMerging`."""
    centres = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    diagonals = _length(a[..., 2:] - a[..., :2]) + _length(b[..., 2:] - b[..., :2])
    distance = 2 * _length(centres) / ops.where(diagonals > 0, diagonals, 1)
    return distance + 1 - paired_iou(a, b)


def _length(vectors):
    return ops.sqrt(ops.sum(ops.square(vectors), axis=-1))
