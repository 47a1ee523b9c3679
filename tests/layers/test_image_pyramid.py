import keras
import numpy as np
import pytest
from keras import ops

from cvlib.layers import ImagePyramid

from .harness import run_layer_test


def halved_naively(images):
    batch, height, width, channels = images.shape
    result = np.zeros((batch, -(-height // 2), -(-width // 2), channels), images.dtype)
    for y in range(result.shape[1]):
        for x in range(result.shape[2]):
            rows = [2 * y, min(2 * y + 1, height - 1)]
            columns = [2 * x, min(2 * x + 1, width - 1)]
            result[:, y, x] = images[:, rows][:, :, columns].mean(axis=(1, 2))
    return result


@pytest.mark.parametrize("size", [(8, 4), (5, 7)])
def test_layer(size):
    def reference(images):
        pyramid = [images]
        while len(pyramid) < 3:
            pyramid.append(halved_naively(pyramid[-1]))
        return pyramid

    images = np.random.default_rng(0).standard_normal((2, *size, 3)).astype("float32")
    run_layer_test(ImagePyramid, {"levels": 3}, images, reference)


def test_a_pixel_of_a_level_covers_a_square_of_the_image():
    """Not a pixel more or less: what is enlarged by 2 ** level lies where it was."""
    image = np.zeros((1, 16, 24, 1), "float32")
    image[0, 8:12, 4:8] = 1
    last = ops.convert_to_numpy(ImagePyramid(3)(image)[2])
    assert last.shape == (1, 4, 6, 1)
    assert last[0, 2, 1, 0] == last.sum() == 1


def test_unknown_size_and_one_level():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, ImagePyramid(2)(inputs))
    assert model.output_shape == [(None, None, None, 3)] * 2
    found = model.predict(np.zeros((1, 33, 64, 3)), verbose=0)
    assert [x.shape for x in found] == [(1, 33, 64, 3), (1, 17, 32, 3)]
    assert len(ImagePyramid(1)(np.zeros((1, 3, 3, 3), "float32"))) == 1


@pytest.mark.parametrize("levels", [0, -1, 2.0, "3"])
def test_levels_that_are_no_positive_integer(levels):
    with pytest.raises(ValueError, match="positive integer"):
        ImagePyramid(levels)
