"""An image at several scales.

Farabet et al., Learning Hierarchical Features for Scene Labeling, 2013, section 3.1.
"""

import keras
from keras import ops

from cvlib.sizes import positive_integer


@keras.saving.register_keras_serializable(package="cvlib")
class ImagePyramid(keras.layers.Layer):
    """The image itself, half of it, a quarter of it, and so on.

    A pixel of one level is the mean of 2 x 2 of the level before; where its height or width is odd,
    the last row or column counts twice. So pixel (i, j) of level k covers exactly the rows
    2^k i to 2^k (i + 1) of the image, and the like columns.

    The paper's levels are the bands of a Laplacian pyramid, each with its mean and contrast made
    equal everywhere. These are pictures, such as a pretrained trunk has learned from.

    Args:
        levels: positive integer, how many scales there are.

    Call arguments:
        images: (B, H, W, C) floats; H and W may be unknown until the call.

    Returns:
        A list of `levels` maps: (B, H, W, C), (B, ceil(H / 2), ceil(W / 2), C), and so on.

    Raises:
        ValueError: `levels` is not a positive integer.
    """

    def __init__(self, levels=3, **kwargs):
        super().__init__(**kwargs)
        self.levels = positive_integer("levels", levels)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, images):
        pyramid = [images]
        while len(pyramid) < self.levels:
            pyramid.append(_halved(pyramid[-1]))
        return pyramid

    def compute_output_shape(self, images_shape):
        shapes = [tuple(images_shape)]
        while len(shapes) < self.levels:
            batch, *size, channels = shapes[-1]
            shapes.append((batch, *(n and (n + 1) // 2 for n in size), channels))
        return shapes

    def get_config(self):
        return {**super().get_config(), "levels": self.levels}


def _halved(images):
    _, height, width, _ = ops.shape(images)
    # The last row and column once more where they have no other beside them; else nothing.
    even = ops.concatenate([images, images[:, height - height % 2 :]], axis=1)
    even = ops.concatenate([even, even[:, :, width - width % 2 :]], axis=2)
    return ops.average_pool(even, 2, 2, "valid", data_format="channels_last")
