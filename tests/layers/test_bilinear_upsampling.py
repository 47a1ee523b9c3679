import keras
import numpy as np
import pytest
from keras import ops

from cvlib.layers import BilinearUpsampling, bilinear_kernel

from .harness import run_layer_test


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def upsampled_naively(inputs, factor, weights, size=None):
    """Each cell, and those repeated beyond the border, adds its filter around its own place."""
    (kernel,) = weights
    batch, h, w, channels = inputs.shape
    padded = np.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    k = len(kernel)
    canvas = np.zeros((batch, factor * (h + 2) + k, factor * (w + 2) + k, channels), "float32")
    for i in range(h + 2):
        for j in range(w + 2):
            top, left = factor * i, factor * j
            canvas[:, top : top + k, left : left + k] += padded[:, i, j, None, None] * kernel
    # The first filter begins (k - factor) / 2 pixels before its cell.
    start = factor + (k - factor) // 2
    height, width = size or (factor * h, factor * w)
    return canvas[:, start : start + height, start : start + width]


@pytest.mark.parametrize("factor", [2, 3])
def test_layer(factor):
    run_layer_test(
        BilinearUpsampling,
        {"factor": factor},
        noise(2, 3, 4, 2),
        lambda x, weights: upsampled_naively(x, factor, weights),
    )


def test_layer_cropped_to_another_map():
    run_layer_test(
        BilinearUpsampling,
        {"factor": 2, "learned": False},
        {"inputs": noise(2, 4, 4, 2), "like": noise(2, 7, 8, 1)},
        lambda inputs, like, weights: upsampled_naively(inputs, 2, weights, like.shape[1:3]),
        differentiable=["inputs"],
    )


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8])
def test_begins_as_bilinear_interpolation_up_to_the_border(factor):
    x = noise(2, 4, 3, 5)
    expected = ops.image.resize(x, (4 * factor, 3 * factor), "bilinear", antialias=False)
    found = BilinearUpsampling(factor)(x)
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), ops.convert_to_numpy(expected), atol=1e-5
    )


def test_kernel_by_hand():
    np.testing.assert_allclose(bilinear_kernel(2)[0], np.array([1, 3, 3, 1]) / 16)
    np.testing.assert_allclose(bilinear_kernel(3)[2], np.array([1, 2, 3, 2, 1]) / 3, rtol=1e-6)
    for factor in (1, 2, 3, 8, 32):
        assert bilinear_kernel(factor).shape == (2 * factor - factor % 2,) * 2
        assert bilinear_kernel(factor).sum() == pytest.approx(factor**2)


@pytest.mark.parametrize("factor", [2, 3])
def test_the_forward_pass_is_the_gradient_of_a_convolution(factor):
    """d <conv(z), x> / d z, with x continued beyond its border, is the layer's output for x."""
    layer, x = BilinearUpsampling(factor), noise(2, 3, 4, 2)
    layer.build(x.shape)
    layer.kernel.assign(noise(*layer.kernel.shape, seed=1))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    depthwise = layer.kernel[..., None]

    def objective(z):
        y = ops.depthwise_conv(z, depthwise, factor, "same", data_format="channels_last")
        return float(ops.sum(ops.multiply(padded, y)))

    z = noise(2, factor * 5, factor * 6, 2, seed=2)
    # The objective is linear in z: differences over a whole step are exact but for rounding.
    rows, columns = np.random.default_rng(3).integers(factor, 4 * factor, (2, 12))
    expected = ops.convert_to_numpy(layer(x))
    for row, column in zip(rows, columns, strict=True):
        z[1, row, column, 1] += 1
        above = objective(z)
        z[1, row, column, 1] -= 2
        gradient = (above - objective(z)) / 2
        z[1, row, column, 1] += 1
        want = expected[1, row - factor, column - factor, 1]
        assert gradient == pytest.approx(want, abs=1e-3)


def test_a_channel_sees_no_other():
    layer, x = BilinearUpsampling(2), noise(1, 3, 3, 2)
    before = ops.convert_to_numpy(layer(x))
    layer.kernel.assign(noise(*layer.kernel.shape))
    after = ops.convert_to_numpy(layer(x * [1, 0]))
    assert before[..., 1].any() and not after[..., 1].any()


def test_odd_sizes_are_cropped_at_the_bottom_and_the_right():
    layer, x = BilinearUpsampling(4), noise(1, 3, 3, 1)
    whole, part = (ops.convert_to_numpy(layer(x, y)) for y in (None, np.zeros((1, 9, 11, 3))))
    np.testing.assert_array_equal(part, whole[:, :9, :11])
    any_size = keras.Input((None, None, 1))
    assert layer(any_size).shape == (None, None, None, 1)
    with pytest.raises(ValueError, match=r"A map \(3, 3\) is not made \(9, 13\) by a factor 4"):
        layer(x, np.zeros((1, 9, 13, 3)))


@pytest.mark.parametrize("factor", [0, 2.0, "2"])
def test_factor_that_is_no_positive_integer(factor):
    with pytest.raises(ValueError, match="positive integer"):
        BilinearUpsampling(factor)
