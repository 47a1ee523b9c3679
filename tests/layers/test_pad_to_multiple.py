import keras
import numpy as np
import pytest

from cvlib.layers import PadToMultiple

from .harness import run_layer_test


def padded_naively(images, multiple):
    batch, height, width, channels = images.shape
    rows, columns = height, width
    while rows % multiple:
        rows += 1
    while columns % multiple:
        columns += 1
    result = np.zeros((batch, rows, columns, channels), images.dtype)
    for y in range(height):
        for x in range(width):
            result[:, y, x] = images[:, y, x]
    return result


@pytest.mark.parametrize("size", [(5, 7), (8, 4), (1, 9)])
def test_layer(size):
    images = np.random.default_rng(0).standard_normal((2, *size, 3)).astype("float32")
    run_layer_test(PadToMultiple, {"multiple": 4}, images, lambda x: padded_naively(x, 4))


def test_unknown_size_feeds_a_convolution():
    inputs = keras.Input((None, None, 3))
    features = keras.layers.Conv2D(4, 3, strides=2, padding="same")(PadToMultiple(32)(inputs))
    model = keras.Model(inputs, features)
    assert model.output_shape == (None, None, None, 4)
    assert model.predict(np.zeros((1, 33, 64, 3)), verbose=0).shape == (1, 32, 32, 4)


@pytest.mark.parametrize("multiple", [0, -32, 2.5, "32"])
def test_multiple_that_is_no_positive_integer(multiple):
    with pytest.raises(ValueError, match="positive integer"):
        PadToMultiple(multiple)
