import keras
import numpy as np
import pytest
from keras import ops

from cvlib.metrics import MeanAveragePrecision
from cvlib.models import YOLO, backbone

from .training import compiled, squares

SIZE = (100, 100)


def make(grid=2, size=SIZE, classes=2, weights=None, **arguments):
    keras.utils.set_random_seed(1)
    arguments = {"convolutions": (), "hidden": 8, "dropout": 0.0} | arguments
    return YOLO(backbone("tiny", weights), classes, size=size, grid=grid, **arguments)


@pytest.fixture(scope="module")
def yolo():
    return make()


def losses(yolo, y, cells):
    found = yolo.compute_losses(y, {"cells": ops.convert_to_tensor(cells)})
    return {key: float(value) for key, value in found.items()}


def truth(*objects, padded=1, **flags):
    """The targets of one image: `(label, x1, y1, x2, y2)` each."""
    rows = [*objects, *[(-1, -1, -1, -1, -1)] * padded]
    y = {
        "boxes": np.float32([row[1:] for row in rows])[None],
        "labels": np.int32([row[0] for row in rows])[None],
    }
    return y | {key: np.array([[*value, *[False] * padded]]) for key, value in flags.items()}


# One image of 100 x 100 with a grid of 2 x 2, cells of 50 x 50. The object is 64 x 16 and centred
# at (40, 20): in the first cell, at (0.8, 0.4) of it; the roots of its sides are 0.8 and 0.4.
OBJECT = (0, 8, 12, 72, 28)
NOTHING = [0, 0, 0, 0]
CELLS = np.float32(
    [
        [
            # x, y, roots of w and h, confidence; twice; then the two classes
            # A box of 16 x 16 in the middle of the object: its IoU is 256 / 1024 = 0.25.
            # One of 64 x 9, 10 to the left: it is 54 x 9 = 486 of 1024 + 576 - 486 = 1114.
            [*(0.8, 0.4, 0.4, 0.4, 0.5), *(0.6, 0.4, 0.8, 0.3, 0.9), *(0.7, 0.1)],
            [*NOTHING, 0.2, *NOTHING, -0.1, *(0.9, 0.9)],
        ],
        [
            [*NOTHING, 0.0, *NOTHING, 0.0, *(0.9, 0.9)],
            [*NOTHING, 0.4, *NOTHING, 0.0, *(0.9, 0.9)],
        ],
    ]
)[None]
# Worked by hand, term by term of equation 3; the second box is responsible.
TABLE = {
    "center": 5 * (0.8 - 0.6) ** 2,
    "size": 5 * (0.4 - 0.3) ** 2,
    "object": (486 / 1114 - 0.9) ** 2,
    # The first box of the object's cell is one of those without.
    "no_object": 0.5 * (0.5**2 + 0.2**2 + 0.1**2 + 0.4**2),
    "classification": (1 - 0.7) ** 2 + (0 - 0.1) ** 2,
}


def test_the_loss_of_one_image_is_that_of_the_table(yolo):
    found = losses(yolo, truth(OBJECT), CELLS)
    assert found == pytest.approx(TABLE, rel=1e-5)
    assert list(found) == list(yolo.loss_names)


def test_losses_are_divided_by_the_batch(yolo):
    y = {key: np.repeat(value, 3, axis=0) for key, value in truth(OBJECT).items()}
    y["labels"][1:] = -1  # the other images hold nothing, and say so
    cells = np.concatenate([CELLS, np.zeros_like(CELLS), np.zeros_like(CELLS)])
    third = {key: value / 3 for key, value in TABLE.items()}
    assert losses(yolo, y, cells) == pytest.approx(third, rel=1e-5)


def cells_of(*boxes):
    """All cells say nothing but the first, which says two boxes."""
    cells = np.zeros_like(CELLS)
    cells[0, 0, 0, :10] = np.ravel(boxes)
    return cells


def test_without_overlap_the_nearest_box_is_responsible(yolo):
    # Both are apart from the object. The second is nearer by centre and size together (squares
    # 0.16 + 0.4096 + 0.0256 against 0.01 + 0.3969 + 0.01), but no IoU says so.
    far, near = (0.0, 0.4, 0.0, 0.0, 1.0), (0.6, 0.4, 0.1, 0.2449, 1.0)
    small = (0, 39, 19, 41, 21)
    for boxes in ((far, near), (near, far)):
        found = losses(yolo, truth(small), cells_of(*boxes))
        assert found["center"] == pytest.approx(5 * (0.8 - 0.6) ** 2, rel=1e-4)
        assert found["object"] == pytest.approx(1)  # the IoU, 0, is the target
        assert found["no_object"] == pytest.approx(0.5)


def test_the_highest_iou_is_responsible_though_another_is_nearer(yolo):
    # The object is 64 x 16. A box of 16 x 16 beside it has nearly its centre, and no overlap with
    # the thin one; the large one overlaps, and is far away in the four numbers.
    touching, near = (0.8, 0.8, 1.0, 0.9, 0.0), (0.8, 0.0, 0.8, 0.1, 0.0)
    for boxes in ((touching, near), (near, touching)):
        found = losses(yolo, truth(OBJECT), cells_of(*boxes))
        assert found["center"] == pytest.approx(5 * 0.4**2, rel=1e-4)
        assert found["size"] == pytest.approx(5 * (0.2**2 + 0.5**2), rel=1e-4)


def test_roots_are_predicted_and_may_be_negative(yolo):
    found = losses(yolo, truth(OBJECT), cells_of((0.8, 0.4, -0.8, 0.4, 1), (0, 0, 0, 0, 0)))
    # The box is right, so its IoU is 1; the root is not, and is pulled to the positive one.
    assert found["object"] == pytest.approx(0, abs=1e-6)
    assert found["size"] == pytest.approx(5 * 1.6**2, rel=1e-5)


def test_the_gradient_is_of_the_squared_errors_and_the_iou_a_constant():
    yolo = make()
    images = np.zeros((1, *SIZE, 3), "uint8")
    yolo(images)
    kernel, bias = yolo.head.regression.trainable_variables
    kernel.assign(np.zeros(kernel.shape))  # so that the cells are the bias, whatever the image
    bias.assign(CELLS.ravel())
    yolo.compile(keras.optimizers.SGD(1e-3))
    yolo.fit(images, truth(OBJECT), verbose=0)
    gradient = (CELLS.ravel() - ops.convert_to_numpy(bias)) / 1e-3
    expected = np.zeros_like(CELLS)
    expected[..., [4, 9]] = 0.5 * 2 * CELLS[..., [4, 9]]
    expected[0, 0, 0, 5] = 5 * 2 * (0.6 - 0.8)
    expected[0, 0, 0, 8] = 5 * 2 * (0.3 - 0.4)
    expected[0, 0, 0, 9] = 2 * (0.9 - 486 / 1114)
    expected[0, 0, 0, 10:] = 2 * (0.7 - 1), 2 * 0.1
    np.testing.assert_allclose(gradient.reshape(CELLS.shape), expected, atol=1e-3)


def test_a_cell_answers_for_its_largest_object(yolo):
    other = (1, 20, 10, 40, 30)  # in the same cell, and smaller
    for objects in ((OBJECT, other), (other, OBJECT)):
        assert losses(yolo, truth(*objects), CELLS) == pytest.approx(TABLE, rel=1e-5)


@pytest.mark.parametrize("flag", ["difficult", "crowd"])
def test_difficult_objects_and_crowds_are_asked_for_nothing(yolo, flag):
    # As large, in the same cell; and one in the second column, over both of its cells.
    ignored = (1, 8, 10, 74, 30), (1, 70, 40, 80, 60)
    y = truth(OBJECT, *ignored, **{flag: [False, True, True]})
    # The second column's boxes are not asked either: of the others 0.5, the first box's, is left.
    expected = TABLE | {"no_object": 0.5 * 0.5**2}
    assert losses(yolo, y, CELLS) == pytest.approx(expected, rel=1e-5)


def test_objects_that_are_none_train_nothing(yolo):
    nan, inf = np.nan, np.inf
    none = [(0, nan, nan, nan, nan), (0, 5, 5, inf, 9), (1, 30, 30, 30, 40), (1, 60, 60, 50, 70)]
    assert losses(yolo, truth(*none, OBJECT, *none), CELLS) == pytest.approx(TABLE, rel=1e-5)


def test_training_stays_finite_whatever_the_objects_are():
    yolo = make()
    images = np.zeros((2, *SIZE, 3), "uint8")
    kernel, bias = yolo.head.regression.trainable_variables
    for variable in (kernel, bias):
        variable.assign(np.zeros(variable.shape))  # roots of 0
    y = truth((0, np.nan, 1, 2, 3), OBJECT, (1, -500, -500, 900, 900), difficult=[False] * 3)
    y = {key: np.repeat(value, 2, axis=0) for key, value in y.items()}
    y["difficult"][1] = True  # all of an image
    yolo.compile(keras.optimizers.SGD(1e-2))
    assert np.isfinite(yolo.fit(images, y, epochs=2, verbose=0).history["loss"]).all()
    assert all(np.isfinite(ops.convert_to_numpy(v)).all() for v in yolo.variables)


def lost_naively(cells, y, grid, B, height, width):
    """As the loop of the released code, over images, cells and boxes; the largest object counts."""
    total = dict.fromkeys(TABLE, 0.0)
    for image, cell_rows in enumerate(np.float64(cells)):
        owners = {}
        for box, label in zip(np.float64(y["boxes"][image]), y["labels"][image], strict=True):
            x, y_, w, h = (*(box[:2] + box[2:]) / 2, *(box[2:] - box[:2]))
            place = min(int(y_ / height * grid), grid - 1), min(int(x / width * grid), grid - 1)
            entry = (w * h, x / width, y_ / height, w / width, h / height, label)
            if label >= 0 and entry[0] > owners.get(place, (0,))[0]:
                owners[place] = entry
        for row in range(grid):
            for column in range(grid):
                cell = cell_rows[row, column]
                boxes = cell[: 5 * B].reshape(B, 5)
                total["no_object"] += 0.5 * (boxes[:, 4] ** 2).sum()
                if (row, column) not in owners:
                    continue
                _, x, y_, w, h, label = owners[row, column]
                ranks = []
                for px, py, rw, rh, _ in boxes:
                    px, py, pw, ph = (column + px) / grid, (row + py) / grid, rw**2, rh**2
                    overlap_w = min(px + pw / 2, x + w / 2) - max(px - pw / 2, x - w / 2)
                    overlap_h = min(py + ph / 2, y_ + h / 2) - max(py - ph / 2, y_ - h / 2)
                    overlap = max(overlap_w, 0) * max(overlap_h, 0)
                    overlap /= w * h + pw * ph - overlap
                    rmse = np.linalg.norm([px - x, py - y_, pw - w, ph - h])
                    ranks.append((overlap, -rmse))
                best = max(range(B), key=lambda j: ranks[j])
                px, py, rw, rh, confidence = boxes[best]
                total["no_object"] -= 0.5 * confidence**2
                total["object"] += (ranks[best][0] - confidence) ** 2
                errors = (x * grid - column - px) ** 2 + (y_ * grid - row - py) ** 2
                total["center"] += 5 * errors
                total["size"] += 5 * ((w**0.5 - rw) ** 2 + (h**0.5 - rh) ** 2)
                total["classification"] += ((cell[5 * B :] - np.eye(3)[label]) ** 2).sum()
    return {key: value / len(cells) for key, value in total.items()}


@pytest.mark.parametrize("boxes", [1, 3])
def test_the_loss_equals_the_loop(boxes):
    yolo = make(grid=4, size=(60, 90), classes=3, boxes=boxes)
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, (70, 45), (6, 5, 2))
    y = {
        "boxes": np.concatenate([corner, corner + rng.uniform(3, 30, (6, 5, 2))], -1),
        "labels": rng.integers(-1, 3, (6, 5)).astype("int32"),
    }
    cells = rng.uniform(-0.2, 0.9, (6, 4, 4, 5 * boxes + 3)).astype("float32")
    expected = lost_naively(cells, y, 4, boxes, 60, 90)
    assert losses(yolo, y, cells) == pytest.approx(expected, rel=1e-4)


def test_detections_are_those_of_the_cells(yolo):
    images = np.random.default_rng(0).integers(0, 255, (2, *SIZE, 3)).astype("uint8")
    cells = np.zeros_like(CELLS)
    cells[0, 0, 0] = [*(0.8, 0.4, 0.8, 0.4, 0.9), *(0.8, 0.4, 0.8, 0.4, 0.8), *(0.9, 0.0)]
    cells[0, 1, 1] = [*NOTHING, 0.0, *(0.0, 0.0, 0.4, -0.4, 0.5), *(0.2, 1.2)]
    kernel, bias = yolo.head.regression.trainable_variables
    kernel.assign(np.zeros(kernel.shape))
    bias.assign(cells.ravel())
    found = yolo.predict(images)
    assert found["num_detections"].tolist() == [3, 3]
    # Of the first cell's equal boxes the second is suppressed; the last cell says two classes.
    assert found["labels"][0, :4].tolist() == [0, 1, 0, -1]
    np.testing.assert_allclose(found["confidence"][0, :3], [0.81, 0.5, 0.1], rtol=1e-5)
    np.testing.assert_allclose(found["boxes"][0, 0], OBJECT[1:], rtol=1e-5)
    np.testing.assert_allclose(found["boxes"][0, 1], [42, 42, 58, 58], rtol=1e-5)


@compiled
@pytest.mark.slow
def test_it_learns_and_what_it_is_given_wrong_does_not_hurt():
    images, y = squares(48)
    y["labels"][0], y["boxes"][0] = -1, -1
    y["difficult"] = np.zeros(y["labels"].shape, bool)
    y["difficult"][1] = True
    y["boxes"][2, 0] = np.nan
    # Squares are centred in cells of a third, but on the borders of cells of a quarter. The frozen
    # trunk is the same in training and in predicting: what normalises by the batch is not, and so
    # few steps do not make up for it.
    yolo = make(3, (64, 64), 3, hidden=256, weights="scenes", frozen_to="stride32")
    yolo.compile(keras.optimizers.Adam(2e-3))
    history = yolo.fit(images, y, batch_size=16, epochs=40, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    metric = MeanAveragePrecision(3, "voc2010")
    metric.update_state({key: value[3:] for key, value in y.items()}, yolo.predict(images[3:]))
    assert metric.result()["mAP"] > 0.9


def test_a_detection_beside_a_resized_image_is_none():
    """A wide image has a margin above and below it in the square that the network sees."""
    model = make(nms={"confidence_threshold": 0.1, "max_detections": 3})
    cells = np.zeros((2, 2, 12), "float32")
    # Middle, roots of the sides, confidence, class. The first lies in the margin and is the surest.
    cells[0, 0, [0, 1, 2, 3, 4, 10]] = [0.5, 0.1, 0.3, 0.3, 0.9, 1]
    cells[1, 1, [0, 1, 2, 3, 4, 11]] = [0.1, 0.1, 0.5, 0.5, 0.6, 1]
    regression = model.head.regression
    regression.set_weights([np.zeros(regression.kernel.shape), cells.ravel()])
    found = model.predict(np.zeros((1, 50, 100, 3), "uint8"))
    assert found["num_detections"].tolist() == [1]
    assert found["labels"].tolist() == [[1, -1, -1]]
    np.testing.assert_allclose(found["confidence"], [[0.6, 0, 0]], atol=1e-5)
    np.testing.assert_allclose(found["boxes"][0, 0], [42.5, 17.5, 67.5, 42.5], atol=1e-3)
    assert (found["boxes"][0, 1:] == 0).all()
