import keras
import numpy as np
import pytest
from keras import ops

from cvlib.layers import MaskPooling, RoIWarping
from cvlib.metrics import MeanAveragePrecision
from cvlib.models import MultiTaskCascade, backbone
from cvlib.models.multi_task_cascade import _held

from .test_fast_rcnn import losses, overlap
from .training import compiled, squares

SIZE = (64, 64)
CELLS = 12


def make(**arguments):
    keras.utils.set_random_seed(1)
    arguments = {
        "size": SIZE,
        "sizes": (16, 24),
        "feature_map": "stride8",
        "rpn_channels": 32,
        "pre_nms": 200,
        "post_nms": 24,
        "crop_size": 6,
        "mask_size": CELLS,
        "mask_hidden": 32,
        "hidden": 32,
        "dropout": 0.0,
    } | arguments
    return MultiTaskCascade(backbone("tiny", "scenes"), 3, **arguments)


def disc():
    middle = (np.arange(CELLS) + 0.5) / CELLS - 0.5
    return np.hypot(*np.meshgrid(middle, middle)) < 0.5


def shapes(count, seed=0):
    """`squares`, every other one of them cut down to a disc, and their masks."""
    images, y = squares(count, seed=seed)
    noise = np.random.default_rng(seed + 1).integers(0, 60, images.shape).astype("uint8")
    y["masks"] = np.zeros((*y["labels"].shape, CELLS, CELLS), "float32")
    for i, n in np.argwhere(y["labels"] >= 0):
        y["masks"][i, n] = 1
        if n:
            y["masks"][i, n] = disc()
            x1, y1, x2, y2 = y["boxes"][i, n].astype(int)
            row, column = np.mgrid[y1:y2, x1:x2] + 0.5
            outside = np.hypot(row - (y1 + y2) / 2, column - (x1 + x2) / 2) > (x2 - x1) / 2
            images[i, y1:y2, x1:x2][outside] = noise[i, y1:y2, x1:x2][outside]
    return images, y


def in_region(region, box, mask):
    """Whether each of a region's cells is the object, interpolated by hand at its centre."""
    shares = np.zeros((CELLS, CELLS))
    for i, j in np.ndindex(shares.shape):
        x = region[0] + (region[2] - region[0]) * (j + 0.5) / CELLS
        y = region[1] + (region[3] - region[1]) * (i + 0.5) / CELLS
        column = (x - box[0]) / (box[2] - box[0]) * CELLS - 0.5
        row = (y - box[1]) / (box[3] - box[1]) * CELLS - 0.5
        for k, c in np.ndindex(CELLS, CELLS):
            shares[i, j] += mask[k, c] * max(0, 1 - abs(row - k)) * max(0, 1 - abs(column - c))
    return shares >= 0.5


@pytest.mark.slow
def test_losses_are_those_of_the_paper():
    model = make(stages=3)
    model.compile("sgd", num_regions=64)
    images, y = shapes(2)
    # So that some masks are right, and others are not: all are the left part of their boxes.
    y["masks"][0], y["masks"][1] = 1, disc()
    cells = model.mask_head.get_layer("cells")
    left = np.where(np.arange(CELLS * CELLS) % CELLS < 7, 2, -2)
    cells.set_weights([cells.get_weights()[0], left])
    outputs = model(images, training=False)
    nothing = np.full((2, 2, 4), [0, 0, 9, 9])
    moved = [y["boxes"] + 2, y["boxes"] - [0, 2.7, 0, 0], nothing]
    outputs["proposals"] = ops.convert_to_tensor(np.concatenate(moved, axis=1), "float32")
    regions = np.concatenate([outputs["proposals"], y["boxes"]], axis=1)
    crops = RoIWarping((6, 6), 8)(outputs["features"], regions)
    logits, pool = model.mask_head(crops), MaskPooling((3, 3))
    seen = [pool(crops, ops.sigmoid(logits)), pool(crops)]
    instance, classes, _ = (ops.convert_to_numpy(x) for x in model.heads(seen))
    logits = ops.convert_to_numpy(logits)
    expected = {"mask": [], "instance": [], "classification": []}
    kinds = set()
    for i, n in np.ndindex(*regions.shape[:2]):
        real = np.flatnonzero(y["labels"][i] >= 0)
        if n not in (4, 5) and n % 2 not in real:
            continue
        ious = [overlap(regions[i, n], y["boxes"][i, m]) for m in real]
        best = real[np.argmax(ious)]
        label = which = 3
        if max(ious) >= 0.5:
            box, mask = y["boxes"][i, best], y["masks"][i, best]
            target = in_region(regions[i, n], box, mask)
            each = np.logaddexp(0, -logits[i, n] * np.where(target, 1, -1))
            expected["mask"].append(each.mean())
            area, share = np.prod(regions[i, n, 2:] - regions[i, n, :2]), mask.mean()
            both = ((logits[i, n] > 0) & target).mean() * area
            union = (logits[i, n] > 0).mean() * area + share * np.prod(box[2:] - box[:2]) - both
            label = y["labels"][i, best]
            which = label if both / union >= 0.5 else 3
            kinds.add(bool(which == label))
        for name, said, answer in (
            ("instance", instance, which),
            ("classification", classes, label),
        ):
            expected[name].append(np.log(np.exp(said[i, n]).sum()) - said[i, n, answer])
    assert kinds == {True, False}
    found = losses(model, y, outputs)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], np.mean(values), rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_masks_are_those_of_the_boxes_they_come_with_hundreds_too():
    model = make(
        pre_nms=None,
        post_nms=300,
        sizes=(8, 16, 24),
        nms={"iou_threshold": 1.0, "confidence_threshold": 0.0, "max_detections": 400},
    )
    images, _ = shapes(2)
    found = model.predict(images)
    assert found["masks"].shape == (2, 400, CELLS, CELLS)
    assert (found["num_detections"] > 250).all()
    features = model(images, training=False)["features"]
    masks = ops.sigmoid(model.mask_head(RoIWarping((6, 6), 8)(features, found["boxes"])))
    real = found["labels"][..., None, None] >= 0
    expected = np.where(real, ops.convert_to_numpy(masks), 0)
    np.testing.assert_allclose(found["masks"], expected, atol=1e-4)


def test_what_pulls_at_boxes_is_clipped_in_units_of_their_sides():
    class Boxes(keras.layers.Layer):
        def build(self, _):
            self.boxes = self.add_weight(shape=(2, 2, 4), name="boxes")

        def call(self, _):
            return _held(self.boxes + 0.0)

    boxes = np.float32([[[0, 0, 8, 16], [3, 3, 3, 3]], [[0, 0, 64, 2], [1, 1, 5, 5]]])
    pull = np.float32([[[9, -9, 1e-6, 0]] * 2] * 2)
    model = keras.Sequential([Boxes()])
    x = np.zeros((2, 1), "float32")
    model.build(x.shape)
    model.set_weights([boxes])
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), boxes)
    # Its gradient is `pull`.
    model.compile(keras.optimizers.SGD(1024.0), lambda pull, boxes: ops.sum(pull * boxes))
    model.fit(x, pull, batch_size=2, verbose=0)
    moved = boxes - model.get_weights()[0]
    sides = np.float32([[[8, 16], [1, 1]], [[64, 2], [4, 4]]])
    np.testing.assert_allclose(moved[..., :2], [1, -1] / sides, rtol=1e-4)
    np.testing.assert_allclose(moved[..., 2:], 1024 * pull[..., 2:], atol=1e-5)


@pytest.mark.parametrize("box_gradient", [True, False])
@pytest.mark.slow
def test_the_losses_of_the_classes_reach_the_boxes_of_the_rpn(box_gradient):
    model = make(stages=3, post_nms=150)  # so many that some are objects
    images, y = shapes(4)
    model.compile(
        keras.optimizers.SGD(0.1), train="classes", trunk=False, box_gradient=box_gradient
    )
    model.rpn.trainable = True
    before = [ops.convert_to_numpy(w) for w in model.rpn.deltas.weights]
    said = [ops.convert_to_numpy(w) for w in model.rpn.objectness.weights]
    model.fit(images, y, verbose=0)
    moved = [
        (a != ops.convert_to_numpy(b)).any()
        for a, b in zip(before, model.rpn.deltas.weights, strict=True)
    ]
    assert all(moved) if box_gradient else not any(moved)
    for a, b in zip(said, model.rpn.objectness.weights, strict=True):
        np.testing.assert_array_equal(a, ops.convert_to_numpy(b))


@pytest.mark.parametrize(
    "train, trunk, expected",
    [
        ("masks", False, {"mask_head"}),
        ("classes", False, {"heads"}),
    ],
)
@pytest.mark.slow
def test_step_by_step(train, trunk, expected):
    model = make(stages=3)
    images, y = shapes(4)
    model.compile(keras.optimizers.SGD(0.1), train=train, trunk=trunk)
    parts = {name: getattr(model, name) for name in ("rpn", "mask_head", "heads")}
    parts["trunk"] = model.backbone
    before = {name: part.get_weights() for name, part in parts.items()}
    model.fit(images, y, verbose=0)
    changed = {
        name
        for name, part in parts.items()
        if any((a != b).any() for a, b in zip(before[name], part.get_weights(), strict=True))
    }
    assert changed == expected


def test_what_is_missing_or_unknown_is_said():
    with pytest.raises(ValueError, match="`stages` is 3 or 5, not 4"):
        make(stages=4)
    model = make(stages=3)
    with pytest.raises(ValueError, match="`train` is one of all, rpn, masks, classes"):
        model.compile(train="both")
    model.compile()
    images, y = squares(1)
    with pytest.raises(ValueError, match='give batches of targets="masks"'):
        model.compute_losses(y, model(images, training=False))


@compiled
@pytest.mark.slow
def test_it_learns_and_what_it_is_given_wrong_does_not_hurt():
    model = make(stages=5)
    images, y = shapes(48)
    y["labels"][0], y["boxes"][0] = -1, -1
    y["boxes"][1, 0] = np.nan
    y["masks"][2] = 0  # empty
    y["masks"][3] = 0
    y["masks"][3, :, 4, 7] = 1  # one cell of many: mask and box disagree
    y["masks"][4] = np.nan
    y["boxes"][5, 0, 2:] = y["boxes"][5, 0, :2] + 1  # an object of one pixel
    model.compile(keras.optimizers.Adam(2e-3))
    history = model.fit(images, y, batch_size=8, epochs=25, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    found = model.predict(images[6:])
    truth = {k: v[6:] for k, v in y.items()} | {"size": np.tile(SIZE, (42, 1))}
    for threshold, least in ((0.5, 0.8), (0.7, 0.6)):
        metric = MeanAveragePrecision(3, "voc2010", "masks", threshold)
        metric.update_state(truth, found)
        assert metric.result()["mAP"] > least
    corners = {0: [], 1: []}  # of the masks of squares and of discs
    for i, n in np.argwhere(truth["labels"] >= 0):
        ious = [overlap(truth["boxes"][i, n], box) for box in found["boxes"][i]]
        corners[n].append(found["masks"][i, np.argmax(ious)][[0, 0, -1, -1], [0, -1, 0, -1]])
    assert np.mean(corners[0]) > np.mean(corners[1]) + 0.15
