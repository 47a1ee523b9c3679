import keras
import numpy as np
import pytest
from keras import ops

from cvlib.models import OverFeat, backbone

from .training import compiled, squares

SIZE = (64, 64)


def make(trunk=None, **arguments):
    keras.utils.set_random_seed(1)
    arguments = {"size": SIZE, "window": 32, "hidden": 32} | arguments
    return OverFeat(trunk or backbone("tiny"), 3, **arguments)


def noise(*shape):
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


def valid_trunk():
    """A trunk without padding: stride 16, and a map cell sees no pixel outside of its 16 x 16."""
    x = image = keras.Input((None, None, 3))
    maps = {}
    for stride in (2, 4, 8, 16, 32):
        x = keras.layers.Conv2D(4, 2, strides=2, activation="relu")(x)
        maps[f"stride{stride}"] = x
    return keras.Model(image, maps)


def outputs(model, images):
    return {key: ops.convert_to_numpy(x) for key, x in model(images, training=False).items()}


@pytest.mark.parametrize("shifted, step", [(True, 16), (False, 32)])
@pytest.mark.slow
def test_every_window_says_what_its_crop_says(shifted, step):
    view = make(valid_trunk(), size=(64, 64), window=64)
    assert view.grids == [(1, 1)]
    # The last columns of the larger image belong to no window.
    image = noise(2, 128, 116, 3)
    sliding = view.slide(size=(128, 116), shifted=shifted)
    found = outputs(sliding, image)
    (rows, columns), k = sliding.grids[0], 0
    assert (rows, columns) == (64 // step + 1, 52 // step + 1)
    for top in range(0, 65, step):
        for left in range(0, 53, step):
            np.testing.assert_array_equal(
                sliding.windows[k], [left, top, left + 64, top + 64], err_msg=f"window {k}"
            )
            crop = outputs(view, image[:, top : top + 64, left : left + 64])
            np.testing.assert_allclose(found["logits"][:, k], crop["logits"][:, 0], atol=1e-4)
            boxes = crop["window_boxes"][:, 0] + [left, top, left, top]
            np.testing.assert_allclose(found["window_boxes"][:, k], boxes, atol=1e-2)
            k += 1
    assert k == len(sliding.windows)


@pytest.mark.slow
def test_scales_follow_each_other_in_pixels_of_the_image():
    model = make(size=(64, 96), scales=(0.5, 1, 1.5), window=32)
    assert model.grids == [(1, 2), (3, 5), (5, 8)]
    assert model.windows.shape == (2 + 15 + 40, 4)
    np.testing.assert_array_equal(
        model.windows[:3], [[0, 0, 64, 64], [32, 0, 96, 64], [0, 0, 32, 32]]
    )
    np.testing.assert_allclose(model.windows[-1], [96 - 32 / 1.5, 64 - 32 / 1.5, 96, 64], rtol=1e-6)
    images = noise(2, 64, 96, 3)
    found, alone = outputs(model, images), [model.slide(scales=(s,)) for s in (0.5, 1, 1.5)]
    parts = [outputs(single, images) for single in alone]
    for key in ("logits", "window_boxes"):
        np.testing.assert_allclose(
            found[key], np.concatenate([p[key] for p in parts], 1), atol=1e-3
        )
    mean = np.mean([part["probabilities"] for part in parts], axis=0)
    np.testing.assert_allclose(found["probabilities"], mean, rtol=1e-4)


def test_probabilities_are_the_spatial_maximum_without_the_background():
    found = outputs(make(), noise(2, 64, 64, 3))
    exp = np.exp(found["logits"])
    scores = (exp / exp.sum(-1, keepdims=True))[..., :3]
    np.testing.assert_allclose(found["probabilities"], scores.max(1), rtol=1e-4)


def test_a_window_answers_for_the_largest_object_that_is_half_inside():
    model = make(size=(64, 64), window=32, shifted=False)  # 2 x 2 windows of 32 pixels
    boxes = [
        [[4, 4, 14, 14], [0, 0, 20, 20], [16, 40, 48, 60], [-1] * 4],
        [[33, 0, 63, 30], [26, 0, 37, 10], [20, 32, 40, 64], [-1] * 4],
    ]
    labels = [[0, 1, 2, -1], [2, 0, 1, -1]]
    found, where = model._responsible(np.float32(boxes), np.int32(labels))
    # First image: the larger of two; nothing; exactly half of a wide one, in both lower windows.
    # Second: 6 of 11 columns of the small one; the large one; 12 of 20 columns; 8 of 20.
    assert ops.convert_to_numpy(found).tolist() == [[1, 3, 2, 2], [0, 2, 1, 3]]
    where = ops.convert_to_numpy(where)
    np.testing.assert_array_equal(where[0, [0, 2, 3]], np.array(boxes[0])[[1, 2, 2]])
    np.testing.assert_array_equal(where[1, :3], np.array(boxes[1])[[1, 0, 2]])


def test_loss():
    model = make(size=(64, 64), window=32, shifted=False)
    model.compile("adam", box_weight=7)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 4, 4)).astype("float32")
    window_boxes = model.windows[None] + rng.uniform(-9, 9, (1, 4, 4)).astype("float32")
    y = {"boxes": np.float32([[[0, 0, 20, 20], [-1] * 4]]), "labels": np.int32([[1, -1]])}
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    classification = -np.mean([log[0, 0, 1], *log[0, 1:, 3]])
    error = np.abs(window_boxes[0, 0] - [0, 0, 20, 20]) / 32
    regression = np.where(error < 0.1, error**2 / 0.2, error - 0.05).mean()
    loss = model.compute_loss(
        None, y, {"logits": logits, "window_boxes": ops.convert_to_tensor(window_boxes)}
    )
    assert float(loss) == pytest.approx(classification + 7 * regression, rel=1e-4)


def test_images_without_objects_train_the_background_only():
    model = make()
    model.compile("adam")
    y = {"boxes": np.full((2, 2, 4), -1, "float32"), "labels": np.full((2, 2), -1, "int32")}
    found = outputs(model, noise(2, 64, 64, 3))
    log = found["logits"] - np.log(np.exp(found["logits"]).sum(-1, keepdims=True))
    tensors = {key: ops.convert_to_tensor(value) for key, value in found.items()}
    loss = float(model.compute_loss(None, y, tensors))
    assert loss == pytest.approx(-log[..., 3].mean(), rel=1e-4)


@pytest.mark.slow
@compiled
def test_learns_to_detect_and_survives_saving(tmp_path):
    images, targets = squares(384)
    model = make(dropout=0.0)
    model.compile(keras.optimizers.Adam(1e-3))
    keras.Model.fit(model, images, targets, epochs=12, batch_size=32, verbose=0)
    # Twice as large: the windows that it has learnt from, and many more objects.
    unseen, truth = squares(32, most=4, seed=9)
    sliding = model.slide(scales=(1, 1.25))
    found = sliding.predict(unseen)
    assert set(found) == {"boxes", "confidence", "labels", "num_detections", "probabilities"}
    assert found["num_detections"].shape == (32,) and found["boxes"].shape[2] == 4
    right = 0
    for i in range(32):
        real = truth["labels"][i] >= 0
        for box, label in zip(truth["boxes"][i][real], truth["labels"][i][real], strict=True):
            same = found["boxes"][i][found["labels"][i] == label]
            overlap = [intersection_over_union(box, other) for other in same]
            right += max(overlap, default=0) > 0.5
    assert right / (truth["labels"] >= 0).sum() > 0.8

    sliding.save(tmp_path / "overfeat.keras")
    again = OverFeat.load(tmp_path / "overfeat.keras").predict(unseen)
    for key in found:
        np.testing.assert_array_equal(again[key], found[key])


def intersection_over_union(a, b):
    shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


@pytest.mark.slow
def test_sliding_shares_the_weights():
    model = make()
    sliding = model.slide(size=(96, 64))
    before = sliding.predict(noise(1, 96, 64, 3))["probabilities"]
    kernel, bias = model.heads.get_layer("logits").get_weights()
    model.heads.get_layer("logits").set_weights([kernel, bias + [5, 0, 0, 0]])
    after = sliding.predict(noise(1, 96, 64, 3))["probabilities"]
    assert after[0, 0] > before[0, 0] + 0.1


def test_frozen_layers_stay_frozen():
    assert len(make(frozen_to="stride8").trainable_variables) == 2 * 3 + 8
    assert len(make().slide(size=(96, 96)).trainable_variables) == 7 * 3 + 8


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"window": 40}, "`window` is a multiple of 32, not 40."),
        (
            {"window": 96},
            "An image of 64x64 at scale 1 is 64x64, smaller than the window of 96x96.",
        ),
        (
            {"size": (96, 64), "scales": (1, 0.4)},
            "An image of 96x64 at scale 0.4 is 38x26, smaller than the window of 32x32.",
        ),
        (
            {"frozen_to": "top"},
            "`frozen_to` is one of stride2, stride4, stride8, stride16, not 'top'.",
        ),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(ValueError) as error:
        make(**arguments)
    assert str(error.value) == sentence


def test_a_copy_for_other_images_knows_the_classes():
    assert make(classes=("a", "b", "c")).slide(scales=(2,)).classes == ("a", "b", "c")
