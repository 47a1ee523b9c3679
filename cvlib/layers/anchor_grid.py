"""Anchors: boxes of several sizes and shapes at every cell of a map."""

import keras
import numpy as np
from keras import ops

from cvlib.sizes import positive_numbers, positive_stride


@keras.saving.register_keras_serializable(package="cvlib")
class AnchorGrid(keras.layers.Layer):
    """The anchors of a map, in pixels of the image, whether they lie in it or not.

    All k anchors of a cell have their centre in the middle of the cell's pixels: cell (i, j) of a
    map of stride s at x = (j + 0.5) s, y = (i + 0.5) s. They are as in the paper's code, but for
    its rounding: its first of nine is 184 x 96, this one 181.02 x 90.51.

    Args:
        sizes: square roots of the anchors' areas, in pixels.
        ratios: height over width.
        stride: pixels of the image to a cell of the map.

    Call arguments:
        features: (B, H, W, C), of which only H and W matter.

    Returns:
        (H * W * k, 4) float32, xyxy, in the order row, column, anchor, of which k = ratios x sizes:
        all sizes of the first ratio come first. Heads of k numbers or groups of numbers to a cell
        are in this order when they are reshaped.

    Raises:
        ValueError: `stride`, or one of `sizes` or `ratios`, is not above 0; or there is none.

    Source: Faster R-CNN (Ren et al. 2015), section 3.1.1.
    """

    def __init__(self, sizes=(128, 256, 512), ratios=(0.5, 1, 2), stride=16, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.sizes = positive_numbers("sizes", sizes)
        self.ratios = positive_numbers("ratios", ratios)
        self.stride = positive_stride(stride)

    def call(self, features):
        height, width = ops.shape(features)[1:3]
        y, x = ((ops.arange(n, dtype="float32") + 0.5) * self.stride for n in (height, width))
        x, y = (axis[..., None] for axis in ops.meshgrid(x, y))
        roots, sizes = np.meshgrid(np.sqrt(self.ratios), self.sizes, indexing="ij")
        # Half the sides of the k anchors of a cell.
        halves = np.float32([sizes / roots, sizes * roots]) / 2
        w, h = (ops.convert_to_tensor(half.ravel()) for half in halves)
        return ops.reshape(ops.stack([x - w, y - h, x + w, y + h], axis=-1), (-1, 4))

    def compute_output_shape(self, features_shape):
        _, height, width, _ = features_shape
        k = len(self.sizes) * len(self.ratios)
        return (None if None in (height, width) else height * width * k, 4)

    def compute_output_spec(self, features):
        return keras.KerasTensor(self.compute_output_shape(features.shape), "float32")

    def get_config(self):
        return {
            **super().get_config(),
            "sizes": self.sizes,
            "ratios": self.ratios,
            "stride": self.stride,
        }
