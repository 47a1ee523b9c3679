import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from cvlib.data import batches
from cvlib.data.augment import MEAN_COLOR, Augment, render
from cvlib.data.sample import Dataset
from cvlib.layers import BilinearUpsampling
from cvlib.metrics import MeanIoU
from cvlib.models import FCN, backbone

from .harness import draw_weights
from .training import compiled

VOID = 255
SIZE = (64, 96)


def make(trunk=None, **arguments):
    keras.utils.set_random_seed(1)
    return FCN(trunk or backbone("tiny"), 3, **{"hidden": 16, **arguments})


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, shape).astype("float32")


def numpy(outputs):
    return {key: ops.convert_to_numpy(x) for key, x in outputs.items()}


def shapes(count, size=SIZE, seed=0):
    """Bright red and green squares on dark ground, and the class of each pixel."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, *size, 3)).astype("uint8")
    segmentation = np.zeros((count, *size), "uint8")
    for image, classes in zip(images, segmentation, strict=True):
        for kind in rng.integers(0, 2, 2):
            side = rng.integers(20, 40)
            top, left = (rng.integers(0, length - side) for length in size)
            part = slice(top, top + side), slice(left, left + side)
            image[part], classes[part] = [230 * (kind == 0), 230 * (kind == 1), 20], kind + 1
    return images, segmentation


def learn(model):
    """Trains on shapes; unseen images, what is found in them, and its mean IoU."""
    images, segmentation = shapes(64, (64, 64))
    model.compile(keras.optimizers.Adam(3e-3))
    model.fit(images, {"segmentation": segmentation}, epochs=8, batch_size=8, verbose=0)
    unseen, truth = shapes(16, (70, 90), seed=9)
    metric = MeanIoU(3)
    found = model.predict(unseen)["segmentation"]
    metric.update_state(truth, found)
    return unseen, found, float(metric.result())


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.slow
def test_scores_have_the_stride_and_classes_are_of_pixels(stride):
    found = numpy(make(stride=stride)(noise(2, *SIZE, 3)))
    assert found["scores"].shape == (2, 64 // stride, 96 // stride, 3)
    upsampled = ops.convert_to_numpy(BilinearUpsampling(stride)(found["scores"]))
    assert found["segmentation"].dtype == "uint8"
    np.testing.assert_array_equal(found["segmentation"], upsampled.argmax(-1))


@pytest.mark.slow
def test_a_stage_begins_as_the_one_before_it():
    fcn32 = make()
    fcn16 = fcn32.copy(stride=16)
    x = noise(1, *SIZE, 3)
    before, after = numpy(fcn32(x)), numpy(fcn16(x))
    upsampled = BilinearUpsampling(2)(before["scores"])
    np.testing.assert_allclose(after["scores"], ops.convert_to_numpy(upsampled), atol=1e-5)

    kernel = noise(*fcn16.skips[0].score.kernel.shape)
    fcn16.skips[0].score.kernel.assign(kernel)
    fcn8 = fcn16.copy(stride=8)
    np.testing.assert_array_equal(ops.convert_to_numpy(fcn8.skips[0].score.kernel), kernel)
    assert not ops.convert_to_numpy(fcn8.skips[1].score.kernel).any()
    # A copy: what the one learns is nothing to the other.
    fcn8.head.get_layer("score").bias.assign([9, 9, 9])
    np.testing.assert_array_equal(numpy(fcn32(x))["scores"], before["scores"])


@pytest.mark.slow
def test_a_copy_of_the_same_stride_keeps_the_learned_upsampling():
    model = make()
    model.upsampling.kernel.assign(noise(*model.upsampling.kernel.shape))
    x = noise(1, *SIZE, 3)
    expected, found = numpy(model(x)), numpy(model.copy(size=SIZE)(x))
    np.testing.assert_array_equal(found["segmentation"], expected["segmentation"])


@pytest.mark.slow
def test_scales_are_of_the_maps_that_are_scored():
    changed = []
    for scales in ((1.0, 1.0), (0.01, 0.0001)):
        model = make(stride=8, scales=scales)
        x = noise(1, *SIZE, 3)
        scores = [numpy(model(x))["scores"]]
        for skip in model.skips:
            skip.score.kernel.assign(np.ones(skip.score.kernel.shape))
            scores.append(numpy(model(x))["scores"])
        changed.append(np.abs(np.diff(scores, axis=0)).max((1, 2, 3, 4)))
    np.testing.assert_allclose(changed[1] / changed[0], [0.01, 0.0001], rtol=0.05)


def test_fixed_upsampling_is_not_learned():
    filters = [w.path for w in make(stride=8).trainable_weights if "upsampling" in w.path]
    assert len(filters) == 3
    fixed = make(stride=8, learned=False)
    for trainable in (True, False, True):
        fixed.trainable = trainable
        assert not [w.path for w in fixed.trainable_weights if "upsampling" in w.path]
    assert len(make(frozen_to="stride8").trainable_variables) == 4 * 3 + 5


def loss_of(segmentation, model=None):
    model = model or make(stride=16)
    found = model(noise(len(segmentation), *segmentation.shape[1:], 3))
    return (
        model,
        found,
        float(model.compute_losses({"segmentation": segmentation}, found)["segmentation"]),
    )


def test_loss():
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 2, VOID], (2, *SIZE)).astype("uint8")
    model, found, loss = loss_of(truth)
    logits = ops.convert_to_numpy(model.upsampling(found["scores"]))
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    images, rows, columns = np.nonzero(truth != VOID)
    each = -log[images, rows, columns, truth[truth != VOID]]
    assert loss == pytest.approx(each.mean(), rel=1e-4)


def test_void_alone_is_no_loss_and_an_unknown_class_is_nan():
    truth = np.full((1, *SIZE), VOID, "uint8")
    model, _, loss = loss_of(truth)
    assert loss == 0
    model.compile(keras.optimizers.SGD(1.0))
    model.fit(noise(1, *SIZE, 3), {"segmentation": truth}, verbose=0)
    assert all(np.isfinite(w).all() for w in model.get_weights())
    truth[0, 0, 0] = 3
    assert np.isnan(loss_of(truth, model)[2])


def test_a_segmentation_of_another_size_is_refused():
    model = make()
    found = model(noise(1, *SIZE, 3))
    with pytest.raises(
        ValueError, match=r"segmentation is \(64, 95\), but the images are \(64, 96\)"
    ):
        model.compute_losses({"segmentation": np.zeros((1, 64, 95), "uint8")}, found)


@pytest.mark.slow
def test_odd_sizes_are_padded_by_the_backbone_and_cropped_back():
    model, x = make(stride=8), noise(1, 50, 77, 3)
    grey = np.full((1, 64, 96, 3), 127.5, "float32")  # 0 behind the normalisation
    grey[:, :50, :77] = x
    expected, found = numpy(model(grey)), numpy(model(x))
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)
    np.testing.assert_array_equal(found["segmentation"], expected["segmentation"][:, :50, :77])
    truth = np.zeros((1, 50, 77), "uint8")
    assert np.isfinite(loss_of(truth, model)[2])


@pytest.mark.slow
def test_images_of_any_sizes_are_looked_at_as_they_are():
    model, images = make(), [noise(40, 64, 3), noise(33, 65, 3), noise(40, 64, 3, seed=1)]
    together = model.predict(images)["segmentation"]
    for image, classes in zip(images, together, strict=True):
        np.testing.assert_array_equal(classes, model.predict(image)["segmentation"][0])
        assert classes.shape == image.shape[:2]


@pytest.mark.slow
def test_images_of_other_sizes_than_the_network_are_resized_and_the_classes_back():
    model = make(size=(64, 64))
    draw_weights(model, 0)
    tall = noise(128, 64, 3).astype("uint8")
    tall[:48] = 0
    canvas = np.full((128, 128, 3), MEAN_COLOR, "uint8")
    canvas[:, 32:96] = tall
    half = np.asarray(Image.fromarray(canvas).resize((64, 64), Image.Resampling.BILINEAR))
    expected = model.predict(half)["segmentation"][0, :, 16:48].repeat(2, 0).repeat(2, 1)
    assert len(np.unique(expected)) > 1
    (found,) = model.predict([tall])["segmentation"]
    np.testing.assert_array_equal(found, expected)


def test_masks_are_resized_to_the_nearest_class():
    """Interpolated, the border between class 4 and the ground would be of classes 1 to 3."""
    image, segmentation = np.zeros((40, 40, 3), "uint8"), np.zeros((40, 40), "uint8")
    segmentation[10:30, 10:30], segmentation[:5] = 4, VOID
    sample = {"image": image, "segmentation": segmentation, "image_id": "0"}
    dataset = Dataset("one", "train", "abcde", ["0"], lambda i: sample, str)
    crops = Augment(scale=(0.5, 1.5), aspect=(0.5, 2))
    for resize in ("stretch", "pad"):
        data = iter(batches(dataset, 4, (64, 48), "segmentation", augment=crops, resize=resize))
        values = np.unique([next(data)[1]["segmentation"] for _ in range(5)])
        assert values.tolist() == [0, 4, VOID]
    interpolated = render(Image.fromarray(segmentation), (0, 0, 40, 40), (64, 48))
    assert set(np.unique(interpolated)) > {0, 4, VOID}


@compiled
@pytest.mark.slow
def test_learns_and_survives_saving(tmp_path):
    model = make(stride=8, dropout=0.0, window=32)
    unseen, found, mean_iou = learn(model)
    assert mean_iou > 0.8
    model.save(tmp_path / "fcn.keras")
    again = FCN.load(tmp_path / "fcn.keras").predict(unseen)["segmentation"]
    np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"stride": 4}, "`stride` is 32, 16 or 8, not 4."),
        ({"window": 64}, "`window` is an odd multiple of 32, not 64."),
        ({"window": 0}, "`window` is an odd multiple of 32, not 0."),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(ValueError) as error:
        make(**arguments)
    assert str(error.value) == sentence


def test_at_most_255_classes():
    # The classes of pixels are written as uint8, where 255 is void.
    with pytest.raises(ValueError, match="at most 255 classes, not 256"):
        FCN(backbone("tiny"), 256, size=(64, 64))
