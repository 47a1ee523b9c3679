"""Bilinear samples of each cell of a grid over each box, averaged: pooling that rounds nothing.

He et al., Mask R-CNN, 2017, section 3.
"""

import keras
from keras import ops

from cvlib.layers.crop_and_resize import bilinear, centres, resample
from cvlib.sizes import height_and_width, positive_integer, positive_stride


@keras.saving.register_keras_serializable(package="cvlib")
class RoIAlign(keras.layers.Layer):
    """The mean of `sampling_ratio` x `sampling_ratio` bilinear samples in each cell of each box.

    Half-pixel aligned: a map's cell (i, j) is the image's square of `stride` pixels that begins at
    (i, j) * `stride`, and holds the value of its centre. A sample between the outermost centres
    and one cell beyond them has the value of the border; further out it is 0. Samples are the
    centres of equal parts of the cell. Rows and columns have independent weights, so that a box is
    two matrix products. Differentiable in the features and, where nothing is clipped, in the boxes.

    Memory at the peak, beside input and output: (B, R, height, W, C).

    Args:
        size: (height, width) of the grid; one number stands for both.
        stride: pixels of the image between neighbouring cells of the map.
        sampling_ratio: samples along each side of a cell.

    Call arguments:
        features: (B, H, W, C) floats.
        boxes: (B, R, 4) floats, `xyxy` in pixels of the image; kept in float32 under any policy.

    Returns:
        (B, R, height, width, C) in the layer's compute type.

    Raises:
        ValueError: `stride` or `sampling_ratio` is not above 0.
    """

    def __init__(self, size=(7, 7), stride=16, sampling_ratio=2, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.size = height_and_width(size)
        self.stride = positive_stride(stride)
        self.sampling_ratio = positive_integer("sampling_ratio", sampling_ratio)

    def call(self, features, boxes):
        features = ops.cast(features, self.compute_dtype)
        boxes = ops.cast(boxes, "float32") / self.stride
        height, width = ops.shape(features)[1:3]
        rows = self._weights(boxes[..., 1], boxes[..., 3], self.size[0], height)
        columns = self._weights(boxes[..., 0], boxes[..., 2], self.size[1], width)
        return resample(features, rows, columns)

    def _weights(self, start, end, cells, pixels):
        """Mean weights (B, R, cells, pixels) of the samples in each cell along one side."""
        places = centres(start, end, cells * self.sampling_ratio)
        last = ops.cast(pixels - 1, places.dtype)
        near = ops.logical_and(places >= -1, places <= last + 1)[..., None]
        weights = ops.where(near, bilinear(ops.clip(places, 0, last), pixels), 0.0)
        shape = (*ops.shape(places)[:2], cells, self.sampling_ratio, pixels)
        return ops.mean(ops.reshape(weights, shape), axis=3)

    def compute_output_shape(self, features_shape, boxes_shape):
        return (features_shape[0], boxes_shape[1], *self.size, features_shape[3])

    def get_config(self):
        config = {"size": self.size, "stride": self.stride, "sampling_ratio": self.sampling_ratio}
        return {**super().get_config(), **config}
