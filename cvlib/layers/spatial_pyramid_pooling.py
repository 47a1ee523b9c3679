"""The maxima of a pyramid of grids over a map or a box: vectors of one length from any size.

He et al., Spatial Pyramid Pooling in Deep Convolutional Networks, 2014, sections 2.2 and 3, and
appendix A.
"""

import keras
from keras import ops

from cvlib.layers.roi_pooling import bins, max_of_bins, whole
from cvlib.sizes import positive_integer, positive_stride


@keras.saving.register_keras_serializable(package="cvlib")
class SpatialPyramidPooling(keras.layers.Layer):
    """Max pooling over grids of n x n bins for each n of `levels`, of the whole map or of boxes.

    Bin i of n over `extent` cells runs from cell floor(i * extent / n) up to, not including,
    ceil((i + 1) * extent / n). The cells of a box are those whose centre, `stride` times their
    index, lies inside it: from floor(x / stride) + 1 to ceil(x / stride) - 1; of a box between two
    centres the cell before it. Beyond the map the last cell counts, as in the authors' release. The
    gradient of a bin goes to its first maximum in row-major order.

    Args:
        levels: bins along each side, level by level.
        stride: pixels of the image between neighbouring cells of the map; for boxes only.

    Call arguments:
        features: (B, H, W, C) floats.
        boxes: (B, R, 4) floats, `xyxy` in pixels of the image; kept in float32 under any policy.
            None pools the whole map.

    Returns:
        (B, sum(n * n) * C), or (B, R, sum(n * n) * C) for boxes, in the layer's compute type:
        levels in their order, bins row by row, channels last.

    Raises:
        ValueError: one of the `levels` is not a positive integer, or `stride` is not above 0.
    """

    def __init__(self, levels=(4, 2, 1), stride=16, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.levels = tuple(positive_integer("levels", n) for n in levels)
        self.stride = positive_stride(stride)

    def call(self, features, boxes=None):
        features = ops.cast(features, self.compute_dtype)
        height, width = ops.shape(features)[1:3]
        if boxes is None:
            first = ops.zeros((ops.shape(features)[0], 1, 2), "int32")
            last = first + ops.convert_to_tensor([width, height], "int32") - 1
        else:
            places = ops.stop_gradient(ops.cast(boxes, "float32")) / self.stride
            first = whole(ops.floor(places[..., :2]) + 1)
            last = whole(ops.ceil(places[..., 2:]) - 1)
            between, middle = first > last, (first + last) // 2
            first, last = (
                ops.minimum(ops.maximum(ops.where(between, middle, x), 0), [width - 1, height - 1])
                for x in (first, last)
            )
        pooled = []
        for n in self.levels:
            rows = bins(first[..., 1], last[..., 1], n, height)
            columns = bins(first[..., 0], last[..., 0], n, width)
            maxima = max_of_bins(features, rows, columns)
            flat = n * n * ops.shape(features)[3]
            pooled.append(ops.reshape(maxima, (-1, ops.shape(maxima)[1], flat)))
        vectors = ops.concatenate(pooled, axis=-1)
        return ops.squeeze(vectors, axis=1) if boxes is None else vectors

    def compute_output_shape(self, features_shape, boxes_shape=None):
        length = sum(n * n for n in self.levels) * features_shape[3]
        boxes = () if boxes_shape is None else (boxes_shape[1],)
        return (features_shape[0], *boxes, length)

    def get_config(self):
        return {**super().get_config(), "levels": self.levels, "stride": self.stride}
