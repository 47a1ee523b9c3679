"""What a classifier sees of an object: the features of its box, where its mask is."""

import keras
from keras import ops

from cvlib.layers.crop_and_resize import extended
from cvlib.sizes import height_and_width


@keras.saving.register_keras_serializable(package="cvlib")
class MaskPooling(keras.layers.Layer):
    """Crops of a map, multiplied by the masks of what they show, then pooled to a coarser grid.

    A mask has the frame of its crop. It is resampled to the crop's cells, bilinearly and half-pixel
    aligned, its border extended, and multiplies all channels. Each cell of `size` is the largest of
    the cells that it covers. Differentiable in the features and in the masks.

    Args:
        size: (height, width) of the grid, of whose sides those of the crops are multiples; one
            number stands for both.

    Call arguments:
        features: (B, R, h, w, C) floats.
        masks: (B, R, M, N) floats in 0..1; without them nothing is masked.

    Returns:
        (B, R, height, width, C) in the layer's compute type.

    Raises:
        ValueError: the crops cannot be divided into the grid.

    Source: Dai et al. 2016 (Multi-task Network Cascades), equation (3); the pooling after it is of
    the authors' release, which masks 14 x 14 cells and classifies 7 x 7.
    """

    def __init__(self, size=(7, 7), **kwargs):
        super().__init__(**kwargs)
        self.size = height_and_width(size)

    def call(self, features, masks=None):
        batch, regions, *cells, channels = ops.shape(features)
        if any(cell % side for cell, side in zip(cells, self.size, strict=True)):
            raise ValueError(f"Crops of {cells[0]}x{cells[1]} have no {self.size} equal parts.")
        if masks is not None:
            rows, columns = map(self._weights, cells, ops.shape(masks)[2:])
            masks = ops.matmul(ops.matmul(rows, masks), ops.transpose(columns))
            features = features * masks[..., None]
        covered = tuple(cell // side for cell, side in zip(cells, self.size, strict=True))
        flat = ops.reshape(features, (-1, *cells, channels))
        pooled = ops.max_pool(flat, covered, covered, data_format="channels_last")
        return ops.reshape(pooled, (batch, regions, *self.size, channels))

    def _weights(self, cells, pixels):
        """Bilinear weights (cells, pixels) of a mask's `pixels` at the centres of equal cells."""
        frame = ops.convert_to_tensor([0.0, pixels], "float32")
        return ops.cast(extended(frame[0], frame[1], cells, pixels), self.compute_dtype)

    def compute_output_shape(self, features_shape, masks_shape=None):
        return (*features_shape[:2], *self.size, features_shape[-1])

    def get_config(self):
        return {**super().get_config(), "size": self.size}
