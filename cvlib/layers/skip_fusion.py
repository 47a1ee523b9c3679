"""Scores of a coarse map, sharpened by those of a finer one.

Long et al., Fully Convolutional Networks for Semantic Segmentation, 2015, section 4.2.
"""

import keras

from cvlib.layers.bilinear_upsampling import BilinearUpsampling


@keras.saving.register_keras_serializable(package="cvlib")
class SkipFusion(keras.layers.Layer):
    """Adds to coarse scores, upsampled, the scores that a finer map gives.

    The finer map is scored by a 1 x 1 convolution whose weights begin as zeros: at first the sum
    is the coarse scores alone, interpolated, and a network that has learned them loses nothing.

    Args:
        factor: positive integer, how many times finer the finer map is.
        scale: factor of the finer map before it is scored. Networks without normalisation have
            early maps of large values; the release of FCN-8s has 0.01 and 0.0001 for VGG's.
        learned: whether the upsampling is learned or stays bilinear.

    Call arguments:
        scores: (B, h, w, C) floats.
        features: (B, H, W, D) floats, H <= factor * h and W <= factor * w.

    Returns:
        (B, H, W, C), scores. They have no activation: half of them must be able to fall.
    """

    def __init__(self, factor=2, scale=1.0, learned=True, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.scale = scale
        self.learned = learned

    def build(self, scores_shape, features_shape):
        shared = {"dtype": self.dtype_policy}
        classes = scores_shape[-1]
        self.upsampling = BilinearUpsampling(self.factor, self.learned, name="upsampling", **shared)
        self.score = keras.layers.Conv2D(
            classes,
            1,
            data_format="channels_last",
            kernel_initializer="zeros",
            name="score",
            **shared,
        )
        self.upsampling.build(scores_shape)
        self.score.build(features_shape)

    def call(self, scores, features):
        return self.upsampling(scores, features) + self.score(self.scale * features)

    def compute_output_shape(self, scores_shape, features_shape):
        return (*features_shape[:-1], scores_shape[-1])

    def get_config(self):
        config = {"factor": self.factor, "scale": self.scale, "learned": self.learned}
        return {**super().get_config(), **config}
