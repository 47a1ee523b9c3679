import keras
import numpy as np
from keras import ops

from cvlib.layers import YOLOHead

from .harness import run_layer_test

rng = np.random.default_rng(0)


def test_yolo_head():
    def two_layers(features, weights):
        hidden, hidden_bias, cells, cells_bias = weights
        x = features.reshape(len(features), -1) @ hidden + hidden_bias
        return (np.where(x > 0, x, 0.1 * x) @ cells + cells_bias).reshape(-1, 3, 3, 12)

    run_layer_test(
        YOLOHead,
        {"grid": 3, "boxes": 2, "classes": 2, "hidden": 5, "dropout": 0.25},
        rng.standard_normal((2, 2, 3, 4)).astype("float32"),
        two_layers,
        float32=("output",),
    )


def decoded_naively(cells, boxes, height, width):
    """Cell by cell: the centre from the cell's corner, squares of what stands for the sides."""
    found, scores = [], []
    for row, cells_of_row in enumerate(cells):
        for column, cell in enumerate(cells_of_row):
            for box in range(boxes):
                x, y, root_w, root_h, confidence = cell[5 * box : 5 * box + 5]
                cx, cy = (column + x) / len(cells) * width, (row + y) / len(cells) * height
                w, h = root_w**2 * width, root_h**2 * height
                corners = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
                found.append(np.clip(corners, 0, [width, height, width, height]))
                classes = np.clip(cell[5 * boxes :], 0, 1)
                left, top, right, bottom = found[-1]
                seen = right > left and bottom > top
                scores.append(seen * min(max(confidence, 0), 1) * classes)
    return np.float32(found), np.float32(scores)


def test_decode_equals_the_loop():
    head = YOLOHead(grid=3, boxes=2, classes=4)
    cells = rng.uniform(-0.5, 1.5, (5, 3, 3, 14)).astype("float32")
    boxes, scores = map(ops.convert_to_numpy, head.decode(cells, 60, 90))
    assert (cells[..., 2] < 0).any() and (cells[..., 4] < 0).any() and (cells[..., 4] > 1).any()
    for image in range(5):
        expected = decoded_naively(cells[image], 2, 60, 90)
        np.testing.assert_allclose(boxes[image], expected[0], atol=1e-4)
        np.testing.assert_allclose(scores[image], expected[1], atol=1e-6)

    symbolic = keras.Input((3, 3, 14))
    model = keras.Model(symbolic, head.decode(symbolic, 60, 90))
    for actual, desired in zip(model.predict(cells, verbose=0), (boxes, scores), strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=1e-5)


def test_one_cell_with_one_box():
    # On TensorFlow, Keras takes some sums with a batch of one for those of a bias.
    boxes, _ = YOLOHead(grid=1, boxes=1, classes=1).decode(
        np.float32([[[[0.5, 0.5, 0.5, -1, 1, 1]]]]), 40, 80
    )
    np.testing.assert_allclose(ops.convert_to_numpy(boxes), [[[30, 0, 50, 40]]])


def test_boxes_without_area_in_the_image_have_no_score():
    # Width 0; far to the right of the image; and one that is whole.
    cells = np.float32(
        [[[[0.5, 0.5, 0, 1, 1, 1]], [[9, 0.5, 0.5, 1, 1, 1]], [[0.5, 0.5, 1, 1, 1, 1]]]]
    )
    _, scores = YOLOHead(grid=1, boxes=1, classes=1).decode(cells[0][:, None], 40, 80)
    assert ops.convert_to_numpy(scores).ravel().tolist() == [0, 0, 1]


def test_every_cell_sees_the_whole_image():
    features = np.zeros((1, 4, 4, 2), "float32")
    head = YOLOHead(grid=2, boxes=1, classes=1, hidden=64)
    before = ops.convert_to_numpy(head(features))
    features[0, 3, 3] = 1
    assert (ops.convert_to_numpy(head(features)) != before).all(axis=-1).all()


def test_dropout_is_of_training():
    features = rng.standard_normal((1, 2, 2, 8)).astype("float32")
    head = YOLOHead(grid=2, hidden=32, dropout=0.5)
    first, second = (ops.convert_to_numpy(head(features, training=True)) for _ in range(2))
    assert (first != second).any()
    np.testing.assert_array_equal(*(ops.convert_to_numpy(head(features)) for _ in range(2)))
