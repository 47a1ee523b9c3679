"""Padding to a size that a network's strides divide."""

import keras
from keras import ops

from cvlib.sizes import positive_integer


@keras.saving.register_keras_serializable(package="cvlib")
class PadToMultiple(keras.layers.Layer):
    """Pads a map with zeros at the bottom and the right until `multiple` divides its size.

    A network of total stride `multiple` then gives maps of exactly 1/2, 1/4, ... of the padded
    size, and pixel (0, 0) stays where it was.

    Args:
        multiple: positive integer, the network's largest stride.

    Call arguments:
        inputs: (B, H, W, C) floats; H and W may be unknown until the call.

    Returns:
        (B, ceil(H / multiple) * multiple, ceil(W / multiple) * multiple, C).

    Raises:
        ValueError: `multiple` is not a positive integer.
    """

    def __init__(self, multiple=32, **kwargs):
        super().__init__(**kwargs)
        self.multiple = positive_integer("multiple", multiple)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs):
        _, height, width, _ = ops.shape(inputs)
        missing = [(0, 0), (0, -height % self.multiple), (0, -width % self.multiple), (0, 0)]
        return ops.pad(inputs, missing)

    def compute_output_shape(self, input_shape):
        batch, *size, channels = input_shape
        size = [None if n is None else n + -n % self.multiple for n in size]
        return (batch, *size, channels)

    def get_config(self):
        return {**super().get_config(), "multiple": self.multiple}
