"""What layers that make detections share: their form, padded to a static number."""

import keras
from keras import ops

_INTEGERS = ("labels", "indices", "num_detections")


class DetectionLayer(keras.layers.Layer):
    """A layer whose output is detections of each image, K at most, by falling confidence.

    Detections are `boxes` (B, K, 4) xyxy and `confidence` (B, K), float32 under any policy, and
    `labels` (B, K) int32; `num_detections` (B,) int32 of them are real, and the others are padded
    with zeros, and with -1 where they are integers. Subclasses give the shapes of it all in
    `compute_output_shape`.
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def pad(self, real, **found):
        """Detections: what is `found`, each (B, K) or (B, K, ...), where `real` (B, K) says so."""
        padded = {"num_detections": ops.sum(ops.cast(real, "int32"), axis=-1)}
        for key, x in found.items():
            where = ops.reshape(real, (*ops.shape(real), *[1] * (len(x.shape) - 2)))
            if key in _INTEGERS:
                padded[key] = ops.where(where, ops.cast(x, "int32"), -1)
            else:
                padded[key] = ops.where(where, x, 0.0)
        return padded

    def compute_output_spec(self, boxes, scores, *_, **__):
        shapes = self.compute_output_shape(boxes.shape, scores.shape)
        return {
            key: keras.KerasTensor(shape, "int32" if key in _INTEGERS else "float32")
            for key, shape in shapes.items()
        }


def by_falling_score(scores, number):
    """The highest scores of (B, M) and their places, (B, number); of equal ones the first first."""
    if keras.backend.backend() == "torch":  # whose top_k leaves the order of equal scores open
        order = ops.argsort(-scores)[:, :number]
        return ops.take_along_axis(scores, order, axis=1), order
    return ops.top_k(scores, number)
