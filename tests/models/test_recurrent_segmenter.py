import keras
import numpy as np
import pytest
from keras import ops

from cvlib.layers import BilinearUpsampling
from cvlib.metrics import MeanIoU
from cvlib.models import RecurrentSegmenter, backbone

from .harness import draw_weights
from .test_fcn import noise, shapes
from .training import compiled

VOID = 255
SIZE = (64, 128)


def make(trunk=None, **arguments):
    keras.utils.set_random_seed(1)
    arguments = {"iterations": 2, "kernel": 3, "hidden": 16, **arguments}
    return RecurrentSegmenter(trunk or backbone("tiny"), 3, **arguments)


@pytest.fixture(scope="module")
def segmenter():
    model = make()
    for part in (model.backbone, model.network):  # but not the kernels that interpolate
        draw_weights(part, 0)
    return model


def outputs(model, x):
    found = model(x)
    scores = [ops.convert_to_numpy(y) for y in found["scores"]]
    return scores, ops.convert_to_numpy(found["segmentation"])


def halved(x):
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def test_each_iteration_sees_the_last_answer_and_half_of_the_image(segmenter):
    x = noise(2, *SIZE, 3)
    (first, second), segmentation = outputs(segmenter, x)
    assert first.shape == second.shape == (2, 16, 32, 3)

    def answer(image, last, factor=1):
        features = segmenter.backbone(image, training=False)["stride4"]
        features = BilinearUpsampling(factor)(features)
        return ops.convert_to_numpy(segmenter.network([features, ops.convert_to_tensor(last)]))

    np.testing.assert_allclose(answer(x, np.zeros_like(first)), first, atol=1e-4)
    again = answer(halved(x), first, 2)
    np.testing.assert_allclose(again, second, atol=1e-4)
    assert np.abs(again - answer(halved(x), np.zeros_like(first), 2)).max() > 0.1
    upsampled = ops.convert_to_numpy(BilinearUpsampling(4)(second))
    np.testing.assert_array_equal(segmentation, upsampled.argmax(-1))


def test_more_iterations_have_no_more_weights(segmenter):
    counts = [len(model.trainable_weights) for model in (segmenter, make(iterations=1))]
    assert counts == [3 + 4, 3 + 4]  # convolutions without and with a bias
    x = noise(1, *SIZE, 3)
    two, _ = outputs(segmenter, x)
    one, _ = outputs(segmenter.repeat(1), x)
    np.testing.assert_allclose(one[0], two[0], atol=1e-5)
    # Shared, not copied.
    assert segmenter.repeat(3).trainable_weights[-1] is segmenter.trainable_weights[-1]


def test_normalisation_keeps_its_statistics(segmenter):
    x = noise(2, *SIZE, 3)
    trained, not_trained = (segmenter(x, training=t)["scores"][1] for t in (True, False))
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (trained, not_trained)))


def test_loss_is_that_of_every_iteration(segmenter):
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 2, VOID], (2, *SIZE)).astype("uint8")
    x = noise(2, *SIZE, 3)
    found = segmenter(x)
    loss = float(segmenter.compute_losses({"segmentation": truth}, found)["segmentation"])
    images, rows, columns = np.nonzero(truth != VOID)
    expected = 0
    for scores in outputs(segmenter, x)[0]:
        logits = ops.convert_to_numpy(BilinearUpsampling(4)(scores)).astype("float64")
        logits -= logits.max(-1, keepdims=True)
        log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected -= log[images, rows, columns, truth[truth != VOID]].mean()
    assert loss == pytest.approx(expected, rel=1e-4)
    nothing = {"segmentation": np.full_like(truth, VOID)}
    assert float(segmenter.compute_losses(nothing, found)["segmentation"]) == 0


def test_odd_sizes(segmenter):
    scores, segmentation = outputs(segmenter, noise(1, 50, 77, 3))
    # The backbone pads to 64 x 96.
    assert [y.shape for y in scores] == [(1, 16, 24, 3)] * 2
    upsampled = ops.convert_to_numpy(BilinearUpsampling(4)(scores[1]))[:, :50, :77]
    np.testing.assert_array_equal(segmentation, upsampled.argmax(-1))


def test_a_segmentation_of_another_size_is_refused(segmenter):
    found = segmenter(noise(1, *SIZE, 3))
    with pytest.raises(ValueError, match=r"segmentation is \(64, 95\), but the images are"):
        segmenter.compute_losses({"segmentation": np.zeros((1, 64, 95), "uint8")}, found)


@compiled
@pytest.mark.slow
def test_learns():
    images, segmentation = shapes(64, (64, 64))
    model = make()
    model.compile(keras.optimizers.Adam(3e-3))
    model.fit(images, {"segmentation": segmentation}, epochs=8, batch_size=8, verbose=0)
    unseen, truth = shapes(16, (70, 90), seed=9)
    metric = MeanIoU(3)
    metric.update_state(truth, model.predict(unseen)["segmentation"])
    assert float(metric.result()) > 0.8


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"iterations": 0}, "`iterations` must be a positive integer, not 0."),
        ({"feature_map": "stride64"}, "`feature_map` is one of"),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**arguments)
