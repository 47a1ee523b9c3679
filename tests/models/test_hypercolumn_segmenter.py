import keras
import numpy as np
import pytest
from keras import ops

from cvlib.layers import ClassifierGrid
from cvlib.metrics import MeanAveragePrecision
from cvlib.models import HypercolumnSegmenter, backbone

from .test_fast_rcnn import losses, overlap
from .test_multi_task_cascade import CELLS, SIZE, disc, in_region, shapes
from .training import compiled


def make(**arguments):
    keras.utils.set_random_seed(1)
    arguments = {
        "size": SIZE,
        "max_detections": 6,
        "depths": ("stride4", "stride8", "fc"),
        "grid": 3,
        "mask_size": CELLS,
        "full_side": 24,
        "feature_map": "stride8",
        "pool_size": 4,
        "hidden": 32,
        "dropout": 0.0,
    } | arguments
    return HypercolumnSegmenter(backbone("tiny", "scenes"), 3, **arguments)


@pytest.fixture(scope="module")
def model():
    """A network whose masks are the left third of each box for class 1, and else all of it."""
    model = make()
    model.compile("sgd", num_regions=64)
    rng = np.random.default_rng(0)
    for variable in model.hypercolumn.trainable_variables:
        variable.assign(0.02 * rng.standard_normal(variable.shape))
    bias = np.full((3, 9), 2.0)
    bias[1, [1, 2, 4, 5, 7, 8]] = -2
    model.hypercolumn.scores[0].bias.assign(bias.ravel())
    return model


def jittered(y, moves=((0, 0, 0, 0),)):
    """The objects' boxes moved by each of `moves`, where there are objects."""
    real = y["labels"][..., None] >= 0
    moved = [np.where(real, y["boxes"] + np.float32(move), -1) for move in moves]
    return np.concatenate(moved, axis=1).astype("float32")


def test_losses_are_those_of_the_paper(model):
    images, _ = shapes(3)
    objects = [[4, 4, 30, 30], [36, 30, 56, 50]]
    y = {
        "boxes": np.float32([objects, objects, objects]),
        "labels": np.int32([[1, 0], [2, 1], [0, -1]]),
        "masks": np.ones((3, 2, CELLS, CELLS), "float32"),
    }
    y["masks"][1] = disc()
    y["masks"][2] = 0  # neither right nor wrong
    nothing = np.full((3, 1, 4), [50, 50, 62, 62], "float32")
    # IoUs of about 0.9, 0.6 and under 0.5.
    moves = [(1, 0, 1, 0), (0, 5, 0, 5), (0, 0, -13, 0)]
    y["proposals"] = np.concatenate([jittered(y, moves), nothing], axis=1)
    outputs = model({"images": images, "proposals": y["proposals"]}, training=False)
    regions = np.concatenate([y["proposals"], y["boxes"]], axis=1)
    features = outputs["features"]
    expected = {"mask": [], "rescoring": []}
    kinds = set()
    for i, n in np.ndindex(regions.shape[:2]):
        if regions[i, n, 0] < 0:
            continue
        present = np.flatnonzero(y["labels"][i] >= 0)
        ious = {m: overlap(regions[i, n], y["boxes"][i, m]) for m in present}
        best = max(ious, key=ious.get)
        if i == 2 and ious[best] > 0:
            continue
        region = regions[i : i + 1, n : n + 1]
        label = y["labels"][i, best]
        of_image = {name: x[i : i + 1] for name, x in features.items()}
        pooled = model.pooling(of_image["stride8"], region)
        whole = model.whole_head(pooled)
        columns = [of_image["stride4"], of_image["stride8"], whole]
        logits = model.hypercolumn(columns, region, np.int32([[label]]))
        mask = ClassifierGrid()(logits)
        said = ops.convert_to_numpy(model.rescorer([pooled, mask, whole]))[0, 0]
        mask = ops.convert_to_numpy(mask)[0, 0]
        box, truth = y["boxes"][i, best], y["masks"][i, best]
        target = in_region(region[0, 0], box, truth)
        area = np.prod(region[0, 0, 2:] - region[0, 0, :2])
        if ious[best] >= 0.7:
            each = -np.log(np.where(target, mask, 1 - mask))
            weight = min(area / 24**2, 1)
            kinds.add(weight < 1)
            expected["mask"].append(weight * each.mean())
        answer = 3
        if ious[best] >= 0.5:
            both = ((mask >= 0.5) & target).mean() * area
            union = (mask >= 0.5).mean() * area + truth.mean() * np.prod(box[2:] - box[:2]) - both
            answer = label if both / union >= 0.5 else 3
            kinds.add("shown" if answer == label else "missed")
        expected["rescoring"].append(np.log(np.exp(said).sum()) - said[answer])
    assert kinds == {True, False, "shown", "missed"}
    found = losses(model, y, outputs)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], np.mean(values), rtol=1e-3, err_msg=name)


def test_a_detection_has_the_mask_of_its_label_and_keeps_its_place(model):
    images, _ = shapes(2)
    boxes = np.float32([[[5, 5, 30, 30], [20, 8, 60, 40], [5, 5, 30, 30]], [[0, 0, 64, 64]] * 3])
    labels = np.int32([[0, 2, 1], [1, -1, -1]])
    detector = {"confidence": np.ones((2, 3)), "num_detections": np.int32([3, 1])}
    found = model.predict(images, boxes=boxes, labels=labels, **detector)
    np.testing.assert_array_equal(found["labels"][:, :3], labels)
    np.testing.assert_array_equal(found["labels"][:, 3:], -1)
    np.testing.assert_array_equal(found["num_detections"], [3, 1])
    np.testing.assert_allclose(found["boxes"][0, :3], boxes[0])
    masks = found["masks"]
    assert masks.shape == (2, 6, CELLS, CELLS)
    assert not masks[1, 1:].any() and not found["boxes"][1, 1:].any()
    assert (masks[0, 0] > 0.5).all() and (masks[0, 1] > 0.5).all()
    for mask in (masks[0, 2], masks[1, 0]):
        assert (mask[:, :4] > 0.5).all() and (mask[:, 7:] < 0.5).all()
    # What the rescorer says of the label.
    pooled = model.pooling(model(images, training=False)["features"]["stride8"], boxes)
    seen = [pooled, ops.convert_to_tensor(masks[:, :3]), model.whole_head(pooled)]
    said = ops.convert_to_numpy(ops.softmax(model.rescorer(seen)))
    expected = np.take_along_axis(said, np.maximum(labels, 0)[..., None], axis=-1)
    expected = np.where(labels >= 0, expected[..., 0], 0)
    np.testing.assert_allclose(found["confidence"][:, :3], expected, rtol=1e-3)
    # A list: other numbers of boxes in each image, more than there is room for, and none.
    several = [np.tile(boxes[0, :1], (9, 1)), np.zeros((0, 4))]
    given = model.predict(list(images), several, [np.zeros(9, int), []])
    np.testing.assert_array_equal(given["num_detections"], [6, 0])
    np.testing.assert_allclose(given["masks"][0], np.tile(masks[0, :1], (6, 1, 1)), atol=1e-4)


def test_what_does_not_fit_is_said(model):
    images, y = shapes(1)
    boxes, labels = y["boxes"], np.zeros_like(y["labels"])
    with pytest.raises(ValueError, match="boxes of 2 and labels of 1 images, not of 1"):
        model.predict(images, [boxes[0], boxes[0]], labels)
    with pytest.raises(ValueError, match="Image 0 has 2 boxes, but 1 labels"):
        model.predict(images, boxes, labels[:, :1])
    with pytest.raises(ValueError, match="Image 0 has a label 3, which is no class"):
        model.predict(images, boxes, labels + 3)
    outputs = model(images, training=False)
    for missing in ("masks", "proposals"):
        given = {key: value for key, value in y.items() if key != missing}
        with pytest.raises(ValueError, match='give batches of targets="masks" with proposals'):
            model.compute_losses(given, outputs)
    for depths in ((), ("stride8", "stride7")):
        with pytest.raises(ValueError, match="`depths` are some of stride2, .* and fc, not"):
            make(depths=depths)


@pytest.mark.slow
def test_a_mask_is_not_drawn_to_be_classified_well():
    model = make(full_side=1e6)  # masks learn nothing
    images, y = shapes(4)
    y["proposals"] = jittered(y)
    model.compile(keras.optimizers.SGD(0.1))
    before = [part.get_weights() for part in (model.hypercolumn, model.rescorer)]
    model.fit(images, y, verbose=0)
    masks, scores = (
        max(np.abs(a - b).max() for a, b in zip(old, part.get_weights(), strict=True))
        for old, part in zip(before, (model.hypercolumn, model.rescorer), strict=True)
    )
    assert masks < 1e-7 and scores > 1e-4


@compiled
@pytest.mark.slow
def test_it_learns_and_what_it_is_given_wrong_does_not_hurt():
    model = make()
    images, y = shapes(48)
    rng = np.random.default_rng(0)
    y["proposals"] = jittered(y, rng.uniform(-6, 6, (6, 4)))
    y["labels"][0], y["boxes"][0] = -1, -1
    y["boxes"][1, 0] = np.nan
    y["proposals"][1, 0] = np.nan
    y["masks"][2] = 0  # empty
    y["masks"][3] = 0
    y["masks"][3, :, 4, 7] = 1  # one pixel of many: mask and box disagree
    y["masks"][4] = np.nan
    y["boxes"][5, 0, 2:] = y["boxes"][5, 0, :2] + 1  # an object of one pixel
    y["proposals"][6] = -1
    model.compile(keras.optimizers.Adam(3e-3), num_regions=16)
    proposals = y.pop("proposals")
    x = {"images": images, "proposals": proposals}
    history = model.fit(x, y, batch_size=8, epochs=25, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    images, truth = images[8:], {k: v[8:] for k, v in y.items()}
    truth["size"] = np.tile(SIZE, (40, 1))
    # The objects' boxes, and such as miss them by half, as a detector would be wrong.
    real = truth["labels"] >= 0
    wrong = np.where(real[..., None], truth["boxes"] + np.float32([11, 0, 11, 0]), -1)
    boxes = np.concatenate([truth["boxes"], wrong], axis=1)
    labels = np.tile(truth["labels"], (1, 2))
    found = model.predict(images, boxes, labels)
    for threshold, least in ((0.5, 0.85), (0.7, 0.7)):
        metric = MeanAveragePrecision(3, "voc2010", "masks", threshold)
        metric.update_state(truth, found)
        assert metric.result()["mAP"] > least
    assert found["confidence"][:, :2][real].mean() > found["confidence"][:, 2:4][real].mean() + 0.3
    corners = found["masks"][..., [0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=-1)[:, :2]
    assert corners[:, 0][real[:, 0]].mean() > corners[:, 1][real[:, 1]].mean() + 0.2
