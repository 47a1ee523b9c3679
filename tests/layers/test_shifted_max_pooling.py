import keras
import numpy as np
import pytest

from cvlib.layers import InterleaveOffsets, ShiftedMaxPooling2D

from .harness import run_layer_test


def distinct(*shape):
    """Values that differ by at least 0.1, so that no maximum is near a tie."""
    values = np.random.default_rng(0).permutation(int(np.prod(shape)))
    return (0.1 * values).reshape(shape).astype("float32")


def pooled_naively(images, p):
    batch, height, width, channels = images.shape
    h, w = (height - p + 1) // p, (width - p + 1) // p
    result = np.zeros((batch * p * p, h, w, channels), images.dtype)
    for b in range(batch):
        for dy in range(p):
            for dx in range(p):
                for i in range(h):
                    for j in range(w):
                        top, left = dy + p * i, dx + p * j
                        window = images[b, top : top + p, left : left + p]
                        result[b * p * p + dy * p + dx, i, j] = window.max((0, 1))
    return result


def interleaved_naively(maps, p):
    count, h, w, channels = maps.shape
    result = np.zeros((count // p**2, p * h, p * w, channels), maps.dtype)
    for index in range(count):
        b, dy, dx = index // p**2, index // p % p, index % p
        result[b, dy::p, dx::p] = maps[index]
    return result


@pytest.mark.parametrize(("p", "height", "width"), [(2, 5, 6), (3, 8, 5)])
def test_shifted_max_pooling(p, height, width):
    inputs = distinct(2, height, width, 2)
    run_layer_test(ShiftedMaxPooling2D, {"pool_size": p}, inputs, lambda x: pooled_naively(x, p))


def test_interleave_offsets():
    inputs = distinct(8, 3, 2, 2)
    run_layer_test(
        InterleaveOffsets,
        {"pool_size": 2},
        inputs,
        lambda x: interleaved_naively(x, 2),
        examples=2,
    )


def test_size_of_the_paper():
    # OverFeat, figure 3: 20 values, pooled by 3, are 6 per offset; a classifier that
    # reads 5 of them gives 2 per offset, 6 interleaved.
    assert ShiftedMaxPooling2D(3).compute_output_shape((1, 20, 20, 4)) == (9, 6, 6, 4)
    assert InterleaveOffsets(3).compute_output_shape((9, 2, 2, 4)) == (1, 6, 6, 4)


def test_head_between_is_applied_at_every_position():
    """A 2x2 head on the pooled maps equals the head on pixels p apart of dense pooling."""
    inputs = keras.Input((None, None, 3))
    head = keras.layers.Conv2D(4, 2)
    outputs = InterleaveOffsets(3)(head(ShiftedMaxPooling2D(3)(inputs)))
    dense = keras.layers.MaxPooling2D(3, strides=1)(inputs)
    atrous = keras.layers.Conv2D(4, 2, dilation_rate=3)
    model = keras.Model(inputs, [outputs, atrous(dense)])
    atrous.set_weights(head.get_weights())
    fine, expected = model.predict(distinct(2, 14, 11, 3), verbose=0)
    assert fine.shape == (2, 9, 6, 4)
    np.testing.assert_allclose(fine, expected[:, :9, :6], rtol=1e-5, atol=1e-4)


def test_map_smaller_than_the_windows():
    with pytest.raises(ValueError, match="A map of 4 rows or columns has no 3 x 3 window"):
        ShiftedMaxPooling2D(3)(np.zeros((1, 9, 4, 1), "float32"))
