"""A bilinear crop of a map whose gradient moves the box, for boxes that a later loss corrects."""

import keras
from keras import ops

from cvlib.layers.crop_and_resize import CropAndResize, extended, resample
from cvlib.sizes import positive_stride


@keras.saving.register_keras_serializable(package="cvlib")
class RoIWarping(CropAndResize):
    """`CropAndResize` of a map, for boxes in pixels of the image.

    One plain bilinear sample in each cell, half-pixel aligned. Outside the map the border goes on:
    with 0 there, a box at the image's border would fade, and pull away from it. No coordinate is
    rounded, so that the gradient of the boxes is the true one; that of the cascades' release
    rounds forward and is not. The paper's equation (8) leaves the scale of its kernel open.

    Args:
        size: (height, width) of the crops; one number stands for both.
        stride: pixels of the image between neighbouring cells of the map.

    Call arguments:
        features: (B, H, W, C) floats.
        boxes: (B, R, 4) floats, `xyxy` in pixels of the image; float32 or more under any policy.

    Returns:
        (B, R, height, width, C) in the layer's compute type.

    Raises:
        ValueError: `stride` is not above 0.

    Source: Dai et al. 2016 (Multi-task Network Cascades), section 3.2.
    """

    def __init__(self, size=(28, 28), stride=16, **kwargs):
        super().__init__(size, **kwargs)
        self.stride = positive_stride(stride)

    def call(self, features, boxes):
        return super().call(features, boxes / self.stride)

    def _crops(self, features, boxes):
        height, width = ops.shape(features)[1:3]
        rows = extended(boxes[..., 1], boxes[..., 3], self.size[0], height)
        columns = extended(boxes[..., 0], boxes[..., 2], self.size[1], width)
        return resample(features, rows, columns)

    def compute_output_shape(self, features_shape, boxes_shape):
        return super().compute_output_shape(features_shape, boxes_shape)

    def get_config(self):
        return {**super().get_config(), "stride": self.stride}
