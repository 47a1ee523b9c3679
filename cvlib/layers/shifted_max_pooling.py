"""Max pooling at every offset, so that a classifier's output is as fine as the map it pools.

Sermanet et al., OverFeat, 2013, section 3.3 and figure 3: a map is pooled p x p without overlap,
once for each of the p * p offsets of the pooling grid; the classifier reads every pooled map; and
its outputs are interleaved, which makes them p times finer than those of one pooled map.

    finer = InterleaveOffsets(3)(head(ShiftedMaxPooling2D(3)(features)))
"""

import keras
from keras import ops

from cvlib.sizes import positive_integer


@keras.saving.register_keras_serializable(package="cvlib")
class ShiftedMaxPooling2D(keras.layers.Layer):
    """Non-overlapping max pooling at each of the p * p offsets of its grid.

    The offsets are folded into the batch, so that any head for pooled maps reads them as they are:
    map `(b * p + dy) * p + dx` of the output pools image `b` from row `dy` and column `dx` on.
    All offsets have the size of the smallest, `h = (H - p + 1) // p` and `w` likewise.

    Args:
        pool_size: positive integer, p.

    Call arguments:
        inputs: (B, H, W, C) floats, H and W at least 2 p - 1.

    Returns:
        (B * p * p, h, w, C).

    Raises:
        ValueError: `pool_size` is not a positive integer, or the map is too small for one window
            at every offset.
    """

    def __init__(self, pool_size=3, **kwargs):
        super().__init__(**kwargs)
        self.pool_size = positive_integer("pool_size", pool_size)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def _windows(self, size):
        if isinstance(size, int) and size < 2 * self.pool_size - 1:
            raise ValueError(
                f"A map of {size} rows or columns has no {self.pool_size} x {self.pool_size} "
                "window at every offset."
            )
        return (size - self.pool_size + 1) // self.pool_size

    def call(self, inputs):
        p = self.pool_size
        _, height, width, channels = ops.shape(inputs)
        h, w = self._windows(height), self._windows(width)
        # Pooling with stride 1 holds the windows of every offset: (p i + dy, p j + dx).
        dense = ops.max_pool(inputs, p, strides=1, data_format="channels_last")
        dense = ops.reshape(dense[:, : p * h, : p * w], (-1, h, p, w, p, channels))
        return ops.reshape(ops.transpose(dense, (0, 2, 4, 1, 3, 5)), (-1, h, w, channels))

    def compute_output_shape(self, input_shape):
        batch, *size, channels = input_shape
        size = [None if n is None else self._windows(n) for n in size]
        return (batch and batch * self.pool_size**2, *size, channels)

    def get_config(self):
        return {**super().get_config(), "pool_size": self.pool_size}


@keras.saving.register_keras_serializable(package="cvlib")
class InterleaveOffsets(keras.layers.Layer):
    """Undoes the folding of `ShiftedMaxPooling2D`: p * p coarse maps become one fine map.

    Args:
        pool_size: positive integer, p.

    Call arguments:
        inputs: (B * p * p, h, w, C) floats, offsets in the order of `ShiftedMaxPooling2D`.

    Returns:
        (B, p * h, p * w, C): row `p * i + dy`, column `p * j + dx` is row i, column j of the map
        at offset (dy, dx).

    Raises:
        ValueError: `pool_size` is not a positive integer.
    """

    def __init__(self, pool_size=3, **kwargs):
        super().__init__(**kwargs)
        self.pool_size = positive_integer("pool_size", pool_size)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs):
        p = self.pool_size
        _, h, w, channels = ops.shape(inputs)
        maps = ops.reshape(inputs, (-1, p, p, h, w, channels))
        return ops.reshape(ops.transpose(maps, (0, 3, 1, 4, 2, 5)), (-1, p * h, p * w, channels))

    def compute_output_shape(self, input_shape):
        batch, *size, channels = input_shape
        size = [n and n * self.pool_size for n in size]
        return (batch and batch // self.pool_size**2, *size, channels)

    def get_config(self):
        return {**super().get_config(), "pool_size": self.pool_size}
