"""The head of a region proposal network: what is an object, and where exactly, at every anchor."""

import keras
from keras import layers


@keras.saving.register_keras_serializable(package="cvlib")
class RPNHead(keras.layers.Layer):
    """A window of 3 x 3 cells that slides over a map and says two things of each of k anchors.

    As convolutions: 3 x 3 with ReLU, then two of 1 x 1 beside each other. All weights begin with a
    standard deviation of 0.01.

    Args:
        channels: of the 3 x 3 convolution.
        anchors_per_location: k.

    Call arguments:
        features: (B, H, W, C) floats.

    Returns:
        A dict: `objectness` (B, H, W, 2k), for each anchor the logits of background and, second,
        object, and `deltas` (B, H, W, 4k), as `boxes.decode` takes them. Reshaped to
        (B, H * W * k, 2) and (B, H * W * k, 4), both are in the order of `AnchorGrid`.

    Source: Faster R-CNN (Ren et al. 2015), section 3.1.
    """

    def __init__(self, channels=512, anchors_per_location=9, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.anchors_per_location = anchors_per_location

        def convolution(filters, size, name, activation=None):
            small = keras.initializers.RandomNormal(stddev=0.01)
            return layers.Conv2D(
                filters,
                size,
                padding="same",
                data_format="channels_last",
                activation=activation,
                kernel_initializer=small,
                name=name,
                dtype=self.dtype_policy,
            )

        self.window = convolution(channels, 3, "window", "relu")
        self.objectness = convolution(2 * anchors_per_location, 1, "objectness")
        self.deltas = convolution(4 * anchors_per_location, 1, "deltas")

    def build(self, features_shape):
        self.window.build(features_shape)
        seen = (*features_shape[:-1], self.channels)
        self.objectness.build(seen)
        self.deltas.build(seen)

    def call(self, features):
        seen = self.window(features)
        return {"objectness": self.objectness(seen), "deltas": self.deltas(seen)}

    def compute_output_shape(self, features_shape):
        k = self.anchors_per_location
        return {
            "objectness": (*features_shape[:-1], 2 * k),
            "deltas": (*features_shape[:-1], 4 * k),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "anchors_per_location": self.anchors_per_location,
        }
