import keras
import numpy as np
import pytest
from keras import ops

from cvlib.models import FasterRCNN, backbone

from .harness import check_files, check_stages
from .test_fast_rcnn import losses, overlap
from .test_multi_task_cascade import make as make_cascade
from .training import compiled, squares

SIZE = (64, 64)


def make(**arguments):
    keras.utils.set_random_seed(1)
    arguments = {
        "size": SIZE,
        "sizes": (16, 24),
        "rpn_channels": 32,
        "post_nms": 24,
        "hidden": 32,
        "dropout": 0.0,
    } | arguments
    return FasterRCNN(backbone("tiny", "scenes"), 3, **arguments)


@pytest.mark.slow
def test_losses_of_the_rpn_are_those_of_the_paper():
    model = make()
    model.compile("sgd", train="rpn")
    images, y = squares(2)
    outputs = model(images, training=False)
    objectness = ops.convert_to_numpy(outputs["objectness"])
    deltas = ops.convert_to_numpy(outputs["anchor_deltas"])
    inside = ((model.anchors >= 0) & (model.anchors <= 64)).all(axis=1)
    assert 0 < inside.sum() < len(model.anchors) == 4 * 4 * 6
    classification, box = [], []
    for i in range(2):
        objects = y["boxes"][i][y["labels"][i] >= 0]
        ious = np.array([[overlap(a, b) for b in objects] for a in model.anchors])
        ious[~inside] = 0
        best = (ious == ious.max(axis=0)).any(axis=1) | (ious.max(axis=1) >= 0.7)
        assert best.any()
        for n in np.flatnonzero(inside):
            if not best[n] and ious[n].max() >= 0.3:
                continue
            classification.append(np.log(np.exp(objectness[i, n]).sum()))
            classification[-1] -= objectness[i, n, int(best[n])]
            box.append(0)
            if not best[n]:
                continue
            x1, y1, x2, y2 = objects[ious[n].argmax()]
            ax1, ay1, ax2, ay2 = model.anchors[n]
            target = [
                ((x1 + x2) - (ax1 + ax2)) / 2 / (ax2 - ax1),
                ((y1 + y2) - (ay1 + ay2)) / 2 / (ay2 - ay1),
                np.log((x2 - x1) / (ax2 - ax1)),
                np.log((y2 - y1) / (ay2 - ay1)),
            ]
            error = np.abs(target - deltas[i, n])
            box[-1] = np.where(error < 1 / 9, 4.5 * error**2, error - 1 / 18).sum()
    found = losses(model, y, outputs)
    np.testing.assert_allclose(found["rpn_objectness"], np.mean(classification), rtol=1e-4)
    np.testing.assert_allclose(found["rpn_box"], np.mean(box), rtol=1e-3)
    assert found["classification"] == found["box"] == 0


def test_scores_and_deltas_belong_to_their_anchors():
    # The RPN says the same everywhere: anchor 3, a square, is surest, and a quarter too small.
    model = make(post_nms=4, sizes=(16, 24), ratios=(0.5, 1, 2), feature_map="stride32")
    weights = [0 * w for w in model.rpn.get_weights()]
    biases = [i for i, w in enumerate(weights) if w.shape in ((12,), (24,))]
    weights[biases[0]][2 * 3 + 1] = 3
    weights[biases[1]][4 * 3 + 2 : 4 * 3 + 4] = np.log(1.25)
    model.rpn.set_weights(weights)
    found = model.proposer().predict(squares(1)[0])
    places = np.float32([[16, 16], [48, 16], [16, 48], [48, 48]])
    expected = np.concatenate([places - 15, places + 15], axis=1)
    np.testing.assert_allclose(found["boxes"][0], expected, atol=1e-4)
    np.testing.assert_allclose(found["confidence"][0], 1 / (1 + np.exp(-3)), rtol=1e-5)


def test_proposals_are_inside_the_image_and_not_cut_by_objectness():
    model = make()
    images, _ = squares(2)
    weights = model.rpn.get_weights()
    # Nothing is an object: the proposals are there all the same, the surest first.
    objectness = next(i for i, w in enumerate(weights) if w.shape == (12,))
    weights[objectness][::2] = 9
    model.rpn.set_weights(weights)
    outputs = model(images, training=False)
    boxes = ops.convert_to_numpy(outputs["proposals"])
    assert boxes.shape == (2, 24, 4)
    assert (boxes >= 0).all() and (boxes <= 64).all()
    assert (boxes[..., 2:] > boxes[..., :2]).all()
    alone = model.proposer().predict(images)
    np.testing.assert_allclose(alone["boxes"], boxes, atol=1e-3)
    assert (alone["confidence"] < 0.01).all()
    assert (np.diff(alone["confidence"]) <= 0).all()


@pytest.mark.parametrize("detector", [make, make_cascade])
def test_a_proposer_is_a_system_of_its_own(detector, tmp_path):
    model = detector(post_nms=8)
    proposer, images = model.proposer(), squares(1)[0]
    check_files(proposer, images, {}, proposer.predict(images), tmp_path)
    check_stages(proposer, images)
    proposer.compile()
    with pytest.raises(ValueError, match="A Proposer learns with its detector"):
        proposer.fit(*squares(1), verbose=0)


@pytest.mark.parametrize(
    "train, trunk, expected",
    [
        ("both", True, {"trunk", "rpn", "heads"}),
        ("rpn", True, {"trunk", "rpn"}),
        ("rpn", False, {"rpn"}),
        ("heads", False, {"heads"}),
    ],
)
@pytest.mark.slow
def test_the_steps_of_alternating_training(train, trunk, expected):
    model = make()
    images, y = squares(4)
    model.compile(keras.optimizers.SGD(0.1), train="heads" if train == "rpn" else "rpn")
    model.compile(keras.optimizers.SGD(0.1), train=train, trunk=trunk)
    parts = {"trunk": model.backbone, "rpn": model.rpn, "heads": model.heads}
    before = {name: part.get_weights() for name, part in parts.items()}
    model.fit(images, y, verbose=0)
    changed = {
        name
        for name, part in parts.items()
        if any((a != b).any() for a, b in zip(before[name], part.get_weights(), strict=True))
    }
    assert changed == expected
    with pytest.raises(ValueError, match="`train` is one of both, rpn, heads"):
        model.compile(train="all")


@pytest.mark.slow
def test_images_smaller_than_the_stride():
    model = make(size=(8, 12), sizes=(4,), feature_map="stride4")
    images = np.zeros((2, 8, 12, 3), "uint8")
    y = {"boxes": np.float32([[[1, 1, 6, 7]]] * 2), "labels": np.int32([[0]] * 2)}
    model.compile("sgd")
    assert np.isfinite(model.fit(images, y, verbose=0).history["loss"][0])
    found = model.predict(images)["boxes"]
    assert (found >= 0).all() and (found <= [12, 8, 12, 8]).all()
    with pytest.raises(ValueError, match="No anchor of .16, 24. lies inside an image of 8x12"):
        make(size=(8, 12))


@compiled
@pytest.mark.slow
def test_it_learns_and_what_it_is_given_wrong_does_not_hurt():
    model = make()
    images, y = squares(48)
    y["labels"][0], y["boxes"][0] = -1, -1
    y["difficult"] = np.zeros(y["labels"].shape, bool)
    y["difficult"][1] = True
    y["boxes"][2, 0] = np.nan
    model.compile(keras.optimizers.Adam(2e-3))
    history = model.fit(images, y, batch_size=8, epochs=25, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    found = model.predict(images[3:])
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
