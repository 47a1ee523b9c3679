import keras
import numpy as np
import pytest
from keras import ops

from cvlib.models import FastRCNN, backbone
from cvlib.proposals.proposals import Proposals

from .training import compiled, squares

SIZE = (64, 64)


def make(**arguments):
    keras.utils.set_random_seed(1)
    arguments = {"size": SIZE, "max_proposals": 24, "hidden": 32, "dropout": 0.0} | arguments
    return FastRCNN(backbone("tiny"), 3, **arguments)


def near(boxes, count, seed=0):
    """Proposals (B, count, 4): the objects moved a little, and boxes anywhere."""
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(0, 40, (2, len(boxes), count, 2))
    found = np.concatenate([corner, corner + 8 + side / 2], axis=-1).clip(0, SIZE[0])
    moved = (boxes + rng.uniform(-3, 3, boxes.shape)).clip(0, SIZE[0])
    found[:, : boxes.shape[1]] = np.where(boxes >= 0, moved, -1)
    return found.astype("float32")


def losses(model, y, outputs):
    found = model.compute_losses(y, outputs)
    return {key: float(ops.convert_to_numpy(value)) for key, value in found.items()}


def overlap(a, b):
    """IoU of two boxes, by hand."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = np.prod(np.maximum(sides, 0))
    return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


@pytest.mark.slow
@pytest.mark.parametrize("least", [0.1, 0])
def test_losses_are_those_of_the_paper(least):
    model = make()
    model.compile("sgd", num_regions=64, background_iou=(least, 0.5))
    images, y = squares(2)
    given = near(y["boxes"], 24)
    outputs = model({"images": images, "proposals": given}, training=False)
    regions = np.concatenate([given, y["boxes"]], axis=1)
    logits, deltas = model.heads(model.pooling(outputs["features"], regions))
    logits, deltas = ops.convert_to_numpy(logits), ops.convert_to_numpy(deltas)
    classification, box, far = [], [], 0
    for i, n in np.ndindex(*regions.shape[:2]):
        region = regions[i, n]
        real = np.flatnonzero(y["labels"][i] >= 0)
        if region[0] < 0:
            continue
        ious = [overlap(region, y["boxes"][i, m]) for m in real]
        label = y["labels"][i, real[np.argmax(ious)]] if max(ious) >= 0.5 else 3
        far += max(ious) < 0.1
        if max(ious) < least:
            continue
        log_sum = np.log(np.exp(logits[i, n]).sum())
        classification.append(log_sum - logits[i, n, label])
        if label == 3:
            box.append(0)
            continue
        x1, y1, x2, y2 = y["boxes"][i, real[np.argmax(ious)]]
        rx1, ry1, rx2, ry2 = region
        target = [
            10 * ((x1 + x2) - (rx1 + rx2)) / 2 / (rx2 - rx1),
            10 * ((y1 + y2) - (ry1 + ry2)) / 2 / (ry2 - ry1),
            5 * np.log((x2 - x1) / (rx2 - rx1)),
            5 * np.log((y2 - y1) / (ry2 - ry1)),
        ]
        error = np.abs(target - deltas[i, n, label])
        box.append(np.where(error < 1, error**2 / 2, error - 0.5).sum())
    assert 0 in box and max(box) > 0.1 and far
    found = losses(model, y, outputs)
    np.testing.assert_allclose(found["classification"], np.mean(classification), rtol=1e-4)
    np.testing.assert_allclose(found["box"], np.mean(box), rtol=1e-3)


@pytest.mark.parametrize(
    "wrong", [(0.5, 0.1), (-0.1, 0.5), (0, 0.6), (0, float("nan")), 0.5, (0,), ("low", "high")]
)
def test_background_that_is_none(wrong):
    with pytest.raises(ValueError, match="background_iou"):
        make().compile("sgd", background_iou=wrong)


def test_compiling_again_is_from_the_start():
    model = make()
    model.compile("sgd", background_iou=(0, 0.5))
    model.compile("sgd")
    assert model.background_iou == (0.1, 0.5)


def test_losses_read_the_map_and_the_proposals_alone():
    model = make()
    model.compile("sgd")
    images, y = squares(2)
    outputs = model({"images": images, "proposals": near(y["boxes"], 24)}, training=False)
    needed = {key: outputs[key] for key in ("features", "proposals")}
    assert losses(model, y, needed) == pytest.approx(losses(model, y, outputs), rel=1e-4)


@pytest.mark.slow
def test_a_quarter_of_the_regions_are_objects_at_most():
    model = make()
    model.compile("sgd", num_regions=8)
    y = {"boxes": np.float32([[[8, 8, 40, 40]]]), "labels": np.int32([[1]])}
    proposals = np.repeat(np.float32([[[8, 8, 40, 40], [8, 8, 40, 20]]]), 12, axis=1)
    features = np.random.default_rng(0).uniform(size=(1, 4, 4, 96)).astype("float32")
    found = losses(model, y, {"features": features, "proposals": proposals})
    regions = np.float32([[[8, 8, 40, 40], [8, 8, 40, 20]]])
    logits, _ = model.heads(model.pooling(features, regions))
    logits = ops.convert_to_numpy(logits)[0]
    each = [np.log(np.exp(x).sum()) - x[label] for x, label in zip(logits, (1, 3), strict=True)]
    np.testing.assert_allclose(found["classification"], (2 * each[0] + 6 * each[1]) / 8, rtol=1e-4)


def test_objects_that_are_neither_right_nor_wrong_teach_nothing():
    model = make()
    model.compile("sgd")
    boxes = np.float32([[[8, 8, 40, 40]]])
    outputs = {
        "features": np.ones((1, 4, 4, 96), "float32"),
        "proposals": np.float32([[[8, 8, 40, 40], [8, 8, 40, 26], [8, 8, 40, 22]]]),
    }
    for key in ("difficult", "crowd"):
        y = {"boxes": boxes, "labels": np.int32([[1]]), key: np.array([[True]])}
        assert losses(model, y, outputs) == {"classification": 0, "box": 0}
    wanted = {"boxes": boxes, "labels": np.int32([[1]])}
    assert losses(model, wanted, outputs)["classification"] > 0


def test_the_head_drops_units_in_training_alone():
    model = make(dropout=0.5)
    model.compile("sgd")
    images, y = squares(2)
    outputs = model({"images": images, "proposals": near(y["boxes"], 24)}, training=False)
    # From weights as small as they begin, hardly anything depends on what is dropped.
    logits = model.heads.get_layer("logits").kernel
    logits.assign(100 * ops.convert_to_numpy(logits))

    def total(training):
        return float(model.compute_loss(None, y, outputs, training=training))

    assert total(False) == pytest.approx(total(False), rel=1e-5)
    assert total(True) != pytest.approx(total(True), rel=1e-5)


def test_the_trunk_ends_at_the_map():
    model = make(feature_map="stride8")
    assert list(model.backbone.output) == ["stride2", "stride4", "stride8"]
    assert not any("stride16" in variable.path for variable in model.variables)
    assert model.pooling.stride == 8
    with pytest.raises(ValueError, match="`feature_map` is one of stride2, .* not 'stride3'"):
        make(feature_map="stride3")


@pytest.mark.parametrize("pooling", ["align", "spp"])
def test_other_poolings_feed_the_head(pooling):
    model = make(pooling=pooling)
    images, y = squares(2)
    found = model.predict(images, near(y["boxes"], 24))
    assert found["boxes"].shape[0] == 2
    cells = 21 if pooling == "spp" else 49
    assert model.heads.get_layer("fc1").kernel.shape[0] == cells * 96
    with pytest.raises(ValueError, match="`pooling` is one of pool, align, spp"):
        make(pooling="max")


def test_predict_takes_proposals_of_any_number():
    model = make(nms={"confidence_threshold": 0.0})
    images, y = squares(3)
    given = near(y["boxes"][:, :1], 30)
    expected = model.predict(images, given[:, :24])
    ragged = [given[0], list(map(list, given[1])), Proposals(given[2], np.ones(30))]
    for key, value in model.predict(images, ragged).items():
        np.testing.assert_array_equal(value, expected[key])
    few = [given[0][:1], np.zeros((0, 4)), []]
    found = model.predict(images, few)
    assert found["num_detections"].tolist() == [3, 0, 0]  # A box of each of three classes.
    with pytest.raises(ValueError, match="2 proposals for 3 images"):
        model.predict(images, given[:2])
    with pytest.raises(ValueError, match=r"are \(N, 4\), not \(4,\)"):
        model.predict(images, [given[0], given[1, 0], []])


def test_proposals_that_are_no_boxes_are_padding():
    model = make(nms={"confidence_threshold": 0.0})
    images, y = squares(2)
    given = near(y["boxes"][:, :1], 24)
    bad = np.float32(
        [[np.nan, 0, 9, 9], [0, 0, np.inf, 9], [9, 9, 9, 20], [20, 9, 9, 20], [70, 9, 90, 20]]
    )
    given[:, 10:15] = -1
    expected = model.predict(images, given)
    given[:, 10:15] = bad
    found = model.predict(images, given)
    for key, value in found.items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key)


@compiled
@pytest.mark.slow
def test_it_learns_and_what_it_is_given_wrong_does_not_hurt():
    model = make()
    images, y = squares(48)
    given = near(y["boxes"], 24)
    given[:, -3:] = [[np.nan] * 4, [5, 5, 5, 9], [-1] * 4]
    # An image without objects, one of difficult objects, one of which a box is no box.
    y["labels"][0], y["boxes"][0] = -1, -1
    y["difficult"] = np.zeros(y["labels"].shape, bool)
    y["difficult"][1] = True
    y["boxes"][2, 0] = np.nan
    model.compile(keras.optimizers.Adam(2e-3))
    x = {"images": images, "proposals": given}
    history = model.fit(x, y, batch_size=8, epochs=18, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    found = model.predict(images[3:], given[3:])
    right = 0
    for i, count in enumerate(found["num_detections"]):
        for box, label in zip(y["boxes"][3 + i], y["labels"][3 + i], strict=True):
            hits = [
                overlap(box, found["boxes"][i, n]) > 0.6
                for n in range(count)
                if found["labels"][i, n] == label and found["confidence"][i, n] > 0.5
            ]
            right += label >= 0 and any(hits)
    assert right / (y["labels"][3:] >= 0).sum() > 0.8


@pytest.mark.slow
def test_compressed():
    model = make()
    with pytest.raises(ValueError, match="fc1 has rank 32 at most, not 33"):
        model.compressed((33, 8))
    images, y = squares(2)
    given = near(y["boxes"], 24)
    whole = model.compressed((32, 32))
    expected, found = model.predict(images, given), whole.predict(images, given)
    np.testing.assert_allclose(found["confidence"], expected["confidence"], atol=1e-5)
    small = model.compressed((4, 2))
    kernels = [w for w in model.heads.get_layer("fc1").get_weights() if w.ndim == 2]
    layers = [small.heads.get_layer(name) for name in ("fc1_reduced", "fc1")]
    product = layers[0].get_weights()[0] @ layers[1].get_weights()[0]
    error = np.linalg.norm(kernels[0] - product)
    singular = np.linalg.svd(kernels[0], compute_uv=False)
    np.testing.assert_allclose(error, np.sqrt((singular[4:] ** 2).sum()), rtol=1e-3)
    inputs = 49 * 96
    saved = 32 * inputs - 4 * (32 + inputs) + 32 * 32 - 2 * (32 + 32)
    assert model.count_params() - small.count_params() == saved
    before = model.backbone.get_weights()[0]
    small.backbone.set_weights([0 * w for w in small.backbone.get_weights()])
    np.testing.assert_array_equal(model.backbone.get_weights()[0], before)
    with pytest.raises(ValueError, match="compressed already"):
        small.compressed((4, 2))
