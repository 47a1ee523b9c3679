"""Upsampling by a transposed convolution that begins as bilinear interpolation.

Long et al., Fully Convolutional Networks for Semantic Segmentation, 2015, section 3.3.
"""

import keras
import numpy as np
from keras import ops

from cvlib.sizes import positive_integer


@keras.saving.register_keras_serializable(package="cvlib")
class BilinearUpsampling(keras.layers.Layer):
    """Makes a map `factor` times as large, each channel with a filter of its own.

    A transposed convolution of stride f = `factor` with kernels of 2f - f % 2 rows and columns,
    which begin as those of bilinear interpolation: exactly that of `keras.ops.image.resize`. As
    there, the map goes on beyond its border as it ends.

    Args:
        factor: positive integer, f.
        learned: whether the filters are learned or stay those of the interpolation, which
            `trainable = True` does not change.

    Call arguments:
        inputs: (B, h, w, C) floats, such as scores of C classes.
        like: None, or a map (B, H, W, D), H <= f * h and W <= f * w, to whose size the output is
            cropped, at the bottom and the right: there a network pads what its stride does not
            divide.

    Returns:
        (B, f * h, f * w, C), or (B, H, W, C).

    Memory: the filters become those of one convolution, 4 f^2 C^2 numbers (370 MB for f = 32 and
    150 classes).

    Raises:
        ValueError: `factor` is not a positive integer, or `like` is larger than the output.
    """

    def __init__(self, factor, learned=True, **kwargs):
        super().__init__(**kwargs)
        self.factor = positive_integer("factor", factor)
        self.learned = learned

    def build(self, inputs_shape, like_shape=None):
        kernel = bilinear_kernel(self.factor)
        self.kernel = self.add_weight(
            shape=(*kernel.shape, inputs_shape[-1]),
            initializer=lambda shape, dtype=None: np.tile(kernel[..., None], shape[-1]),
            trainable=self.learned,
            name="kernel",
        )

    def call(self, inputs, like=None):
        f = self.factor
        _, height, width, channels = ops.shape(inputs)
        # A cell more on each side, the same as at the border, so that no weight falls outside.
        padded = ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
        # The f x f pixels between the middles of four cells are sums over these four: an ordinary
        # convolution, which is faster than a transposed one, makes such blocks as its channels.
        blocks = ops.conv(
            padded, self._block_kernel(), padding="valid", data_format="channels_last"
        )
        rows = ops.reshape(blocks, (-1, height + 1, width + 1, f, f * channels))
        rows = ops.transpose(rows, (0, 1, 3, 2, 4))
        larger = ops.reshape(rows, (-1, f * (height + 1), f * (width + 1), channels))
        like_shape = None if like is None else ops.shape(like)
        height, width = self._size((height, width), like_shape)
        return larger[:, f // 2 : f // 2 + height, f // 2 : f // 2 + width]

    def _block_kernel(self):
        """The kernel (k, k, C) as that of the convolution that makes blocks, (2, 2, C, f * f * C).

        Output (p, q, c) reads channel c alone: no channel sees another.
        """
        f, (size, _, channels) = self.factor, self.kernel.shape
        filled = ops.pad(self.kernel, ((0, 2 * f - size), (0, 2 * f - size), (0, 0)))
        # The cell before a pixel weighs it with the later half of its filter.
        halves = ops.flip(ops.reshape(filled, (2, f, 2, f, channels)), (0, 2))
        taps = ops.transpose(halves, (0, 2, 1, 3, 4))[:, :, None]
        own = ops.eye(channels, dtype=self.compute_dtype)[:, None, None]
        return ops.reshape(taps * own, (2, 2, channels, f * f * channels))

    def _size(self, size, like_shape):
        largest = [None if n is None else n * self.factor for n in size]
        if like_shape is None:
            return largest
        wanted = like_shape[1:3]
        for have, want in zip(largest, wanted, strict=True):
            if isinstance(have, int) and isinstance(want, int) and want > have:
                raise ValueError(f"A map {size} is not made {wanted} by a factor {self.factor}.")
        return wanted

    def compute_output_shape(self, inputs_shape, like_shape=None):
        batch, *size, channels = inputs_shape
        return (batch, *self._size(size, like_shape), channels)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor, "learned": self.learned}


def bilinear_kernel(factor):
    """(k, k) float32, k = 2 `factor` - `factor` % 2: how much of a cell each pixel around it gets.

    It falls by 1 / `factor` a pixel from the cell's centre, in both directions.
    """
    size = 2 * factor - factor % 2
    along = 1 - np.abs(np.arange(size) - (size - 1) / 2) / factor
    return np.outer(along, along).astype("float32")
