import keras
import numpy as np
import pytest
from keras import ops

from cvlib.layers import BilinearUpsampling
from cvlib.models import MultiScaleParser, backbone

from .harness import draw_weights
from .test_fcn import learn, noise, numpy
from .training import compiled

VOID = 255
SIZE = (64, 96)


def make(trunk=None, **arguments):
    keras.utils.set_random_seed(1)
    return MultiScaleParser(trunk or backbone("tiny"), 3, **{"hidden": 16, **arguments})


@pytest.fixture(scope="module")
def parser():
    model = make(levels=2)
    for part in (model.backbone, model.head):  # but not the kernels that interpolate
        draw_weights(part, 0)
    return model


def test_a_place_is_described_at_every_scale(parser):
    x = noise(2, *SIZE, 3)
    found = numpy(parser(x))
    assert found["features"].shape == (2, 8, 12, 128)
    assert found["scores"].shape == (2, 8, 12, 3)
    half = x.reshape(2, 32, 2, 48, 2, 3).mean(axis=(2, 4))
    fine, coarse = (numpy(parser.backbone(image))["stride8"] for image in (x, half))
    assert coarse.shape == (2, 4, 8, 64)  # 48 columns are padded to 64.
    enlarged = ops.convert_to_numpy(BilinearUpsampling(2)(coarse))[:, :, :12]
    expected = np.concatenate([fine, enlarged], axis=-1)
    np.testing.assert_allclose(found["features"], expected, atol=1e-4)
    upsampled = ops.convert_to_numpy(BilinearUpsampling(8)(found["scores"]))
    np.testing.assert_array_equal(found["segmentation"], upsampled.argmax(-1))


def test_scales_share_their_weights():
    one, three = (make(levels=levels) for levels in (1, 3))
    # Five convolutions in the trunk and two in the head, which alone reads more channels.
    assert len(one.trainable_weights) == len(three.trainable_weights) == 5 + 4
    assert one.backbone.count_params() == three.backbone.count_params()


def test_normalisation_keeps_its_statistics(parser):
    x = noise(2, *SIZE, 3)
    trained, not_trained = (numpy(parser(x, training=t))["scores"] for t in (True, False))
    np.testing.assert_array_equal(trained, not_trained)


def test_odd_sizes(parser):
    x = noise(1, 50, 77, 3)
    found = numpy(parser(x))
    assert found["segmentation"].shape == (1, 50, 77)
    truth = np.zeros((1, 50, 77), "uint8")
    assert np.isfinite(float(parser.compute_losses({"segmentation": truth}, found)["segmentation"]))


def test_loss_leaves_out_void(parser):
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 2, VOID], (2, *SIZE)).astype("uint8")
    found = parser(noise(2, *SIZE, 3))
    loss = float(parser.compute_losses({"segmentation": truth}, found)["segmentation"])
    logits = ops.convert_to_numpy(BilinearUpsampling(8)(found["scores"])).astype("float64")
    logits -= logits.max(-1, keepdims=True)
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    images, rows, columns = np.nonzero(truth != VOID)
    each = -log[images, rows, columns, truth[truth != VOID]]
    assert loss == pytest.approx(each.mean(), rel=1e-4)
    nothing = {"segmentation": np.full_like(truth, VOID)}
    assert float(parser.compute_losses(nothing, found)["segmentation"]) == 0


def test_a_segmentation_of_another_size_is_refused(parser):
    found = parser(noise(1, *SIZE, 3))
    with pytest.raises(ValueError, match=r"segmentation is \(64, 95\), but the images are"):
        parser.compute_losses({"segmentation": np.zeros((1, 64, 95), "uint8")}, found)


def test_pixels_and_regions_are_described_on_the_host(parser):
    image = noise(50, 77, 3).astype("uint8")
    pixels, found = parser.describe(image), numpy(parser(image[None].astype("float32")))
    assert pixels["features"].shape == (50, 77, 128)
    assert pixels["probabilities"].shape == (50, 77, 3)
    np.testing.assert_allclose(pixels["probabilities"].sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(pixels["probabilities"].argmax(-1), found["segmentation"][0])
    enlarged = ops.convert_to_numpy(BilinearUpsampling(8)(found["features"]))
    np.testing.assert_allclose(pixels["features"], enlarged[0, :50, :77], atol=1e-4)
    cells = found["features"][0, 2, :4]
    expected = ops.convert_to_numpy(ops.softmax(found["scores"][0, 2, :4]))
    np.testing.assert_allclose(parser.classify(cells), expected, atol=1e-5)


@compiled
@pytest.mark.slow
def test_learns():
    *_, mean_iou = learn(make(dropout=0.0))
    assert mean_iou > 0.8


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"levels": 0}, "`levels` must be a positive integer, not 0."),
        ({"feature_map": "stride64"}, "`feature_map` is one of"),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**arguments)
