import keras
import numpy as np
import pytest
from keras import ops

from cvlib.layers import dense_to_conv
from cvlib.models import PatchSegmenter, backbone
from cvlib.models.patch_segmenter import _windows

from .test_fcn import noise, numpy

VOID = 255


def make(trunk=None, **arguments):
    keras.utils.set_random_seed(1)
    arguments = {"size": (128, 160), "hidden": 16, **arguments}
    return PatchSegmenter(trunk or backbone("tiny"), 3, **arguments)


def valid_trunk(channels=4):
    """A trunk without padding: a cell of its map at stride 32 sees its own 32 x 32 pixels."""
    x = image = keras.Input((None, None, 3))
    maps = {}
    for stride in (2, 4, 8, 16, 32):
        x = keras.layers.Conv2D(channels, 2, strides=2, activation="relu")(x)
        maps[f"stride{stride}"] = x
    return keras.Model(image, maps)


@pytest.mark.parametrize("stride", [1, 8, 9, 32])
def test_the_pixel_in_the_middle_of_each_window(stride):
    images, window = noise(2, 40, 50, 3), 32
    found = ops.convert_to_numpy(_windows(ops.convert_to_tensor(images), window, stride))
    rows, columns = -(-40 // stride), -(-50 // stride)
    assert found.shape == (2, rows, columns, window, window, 3)
    padded = np.pad(images, ((0, 0), (64, 64), (64, 64), (0, 0)))
    for i in range(rows):
        for j in range(columns):
            top, left = (64 + stride * k + stride // 2 - window // 2 for k in (i, j))
            expected = padded[:, top : top + window, left : left + window]
            np.testing.assert_array_equal(found[:, i, j], expected)


def test_every_window_says_the_class_of_the_pixels_in_its_middle():
    model, x = make(stride=16, size=(50, 70)), noise(2, 50, 70, 3)
    found = numpy(model(x))
    assert found["scores"].shape == (2, 4, 5, 3)
    windows = ops.convert_to_numpy(_windows(ops.convert_to_tensor(x), 96, 16))
    scores = ops.convert_to_numpy(model.classifier(windows[1, 2, 3][None]))
    np.testing.assert_allclose(found["scores"][1, 2, 3], scores[0], atol=1e-4)
    assert (found["segmentation"][1, 32:48, 48:64] == scores.argmax()).all()
    assert found["segmentation"].shape == (2, 50, 70)


@pytest.mark.slow
def test_agrees_with_the_convolutional_form_for_a_network_without_padding():
    model, x = make(valid_trunk()), noise(2, 128, 160, 3)
    scores = numpy(model(x))["scores"]
    assert scores.std() > 0.1
    convolution = ops.convert_to_numpy(dense_to_conv(model.classifier)(x))
    np.testing.assert_allclose(convolution, scores[:, 1:-1, 1:-1], atol=1e-4)
    fcn = numpy(model.to_fcn(stride=32)(x))
    # At the border too, while biases are zero: black makes the zeros that the other is padded with.
    np.testing.assert_allclose(fcn["scores"], scores, atol=1e-4)
    # In the middle of a window, between four pixels, the interpolated scores are the window's own.
    upsampled = ops.convert_to_numpy(model.to_fcn().upsampling(scores))
    middle = upsampled[:, 15::32, 15::32] + upsampled[:, 16::32, 16::32]
    middle += upsampled[:, 15::32, 16::32] + upsampled[:, 16::32, 15::32]
    spread = np.abs(middle / 4 - scores)[:, 1:-1, 1:-1].max()
    assert spread < np.abs(np.diff(scores, axis=1)).max() / 16


def multiply_adds(model, side):
    """Of the convolutions and fully connected layers for one image."""
    fixed = dense_to_conv(model)
    fixed = keras.models.clone_model(fixed, input_tensors=keras.Input((side, side, 3)))
    return sum(
        int(np.prod(layer.output.shape[1:-1]) * np.prod(layer.kernel.shape))
        for layer in fixed.layers
        if hasattr(layer, "kernel")
    )


def test_windows_cost_more_by_how_often_they_see_a_pixel():
    """16 x 16 windows of 3 x 3 cells in an image of 18 x 18 cells, all inside."""
    model = make(valid_trunk())
    one, all_at_once = (multiply_adds(model.classifier, side) for side in (96, 18 * 32))
    assert 16 * 16 * one / all_at_once == pytest.approx(16 * 16 * 9 / 18**2, rel=0.1)


def test_loss_is_of_the_middle_pixels_that_are_not_void():
    model, x = make(stride=32, size=(60, 70)), noise(1, 60, 70, 3)
    truth = np.full((1, 60, 70), VOID, "uint8")
    # Of 2 x 3 windows those of the last column have their middle outside of the image.
    truth[0, 16, 16], truth[0, 48, 48] = 2, 1
    truth[0, 17, 17] = 0
    found = model(x)
    logits = numpy(found)["scores"]
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = model.compute_losses({"segmentation": truth}, found)["segmentation"]
    assert float(loss) == pytest.approx(-(log[0, 0, 0, 2] + log[0, 1, 1, 1]) / 2, rel=1e-4)
    truth[:] = VOID
    assert float(model.compute_losses({"segmentation": truth}, found)["segmentation"]) == 0
    with pytest.raises(ValueError, match=r"segmentation is \(60, 60\), but the images are"):
        model.compute_losses({"segmentation": truth[:, :, :60]}, found)


@pytest.mark.slow
def test_sliding_shares_the_weights():
    model, x = make(), noise(1, 128, 160, 3)
    finer = model.slide(stride=16)
    coarse, fine = numpy(model(x))["scores"], numpy(finer(x))["scores"]
    assert fine.shape == (1, 8, 10, 3)
    model.classifier.get_layer("score").bias.assign([5, 0, 0])
    np.testing.assert_allclose(
        numpy(finer(x))["scores"] - fine, [[[[5, 0, 0]] * 10] * 8], atol=1e-4
    )
    assert coarse.shape == (1, 4, 5, 3)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"window": 64}, "`window` is an odd multiple of 32, not 64."),
        ({"stride": 0}, "`stride` is between 1 and the window's 96, not 0."),
        ({"stride": 97}, "`stride` is between 1 and the window's 96, not 97."),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(ValueError) as error:
        make(**arguments)
    assert str(error.value) == sentence
