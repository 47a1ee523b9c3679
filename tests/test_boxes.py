import keras
import numpy as np
import pytest
from keras import ops
from layers.harness import _gradients, run_layer_test
from pycocotools import mask as coco

from cvlib import boxes


def naive_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def random_boxes(rng, *shape):
    corner, size = rng.uniform(0, 50, (*shape, 2)), rng.uniform(0, 40, (*shape, 2))
    return np.concatenate([corner, corner + size], axis=-1).astype("float32")


def test_iou_by_hand():
    # Two 4 x 4 squares that share a 2 x 2 corner: 4 / (16 + 16 - 4).
    assert float(boxes.paired_iou([0.0, 0, 4, 4], [2.0, 2, 6, 6])) == pytest.approx(4 / 28)


def test_iou_equals_the_naive_loop():
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 2, 7), random_boxes(rng, 2, 5)
    expected = [[[naive_iou(p, q) for q in b[i]] for p in a[i]] for i in range(2)]
    np.testing.assert_allclose(ops.convert_to_numpy(boxes.iou(a, b)), expected, atol=1e-6)


def test_covered_by_hand():
    found = boxes.covered(np.float32([[0, 0, 4, 5], [3, 3, 3, 9]]), np.float32([[2, 1, 9, 3]]))
    np.testing.assert_allclose(ops.convert_to_numpy(found), [[4 / 20], [0]])
    apart = boxes.covered(np.float32([[0, 0, 4, 5]]), np.float32([[6, 7, 9, 9]]))
    np.testing.assert_array_equal(ops.convert_to_numpy(apart), [[0]])


def test_iou_of_5000_by_5000():
    a, b = random_boxes(np.random.default_rng(1), 2, 5000)
    found = ops.convert_to_numpy(boxes.iou(a, b))
    assert found.shape == (5000, 5000)
    xywh = [np.hstack([x[:, :2], x[:, 2:] - x[:, :2]]).astype("float64") for x in (a, b)]
    np.testing.assert_allclose(found, coco.iou(*xywh, [0] * 5000), atol=1e-5)


@pytest.mark.parametrize("empty", [[3, 3, 3, 9], [9, 9, 3, 3], [-1, -1, -1, -1]])
def test_empty_boxes_overlap_nothing(empty):
    assert float(boxes.paired_iou(np.float32(empty), np.float32([0, 0, 10, 10]))) == 0
    assert float(boxes.paired_iou(np.float32(empty), np.float32(empty))) == 0


def test_convert_by_hand_and_back():
    xyxy = np.float32([[10, 20, 50, 40]])
    for target, expected in {
        "xywh": [10, 20, 40, 20],
        "center_xywh": [30, 30, 40, 20],
        "rel_xyxy": [0.1, 0.4, 0.5, 0.8],
        "yxyx": [20, 10, 40, 50],
    }.items():
        converted = boxes.convert(xyxy, "xyxy", target, height=50, width=100)
        np.testing.assert_allclose(ops.convert_to_numpy(converted), [expected], rtol=1e-6)
        back = boxes.convert(converted, target, "xyxy", height=50, width=100)
        np.testing.assert_allclose(ops.convert_to_numpy(back), xyxy, rtol=1e-6)


def test_unknown_format():
    with pytest.raises(ValueError, match="Invalid source or target format"):
        boxes.convert(np.zeros((1, 4), "float32"), "xyxy", "corners")


def test_clip():
    given = [[-5, -5, 3, 4], [2, 3, 90, 80], [20, 20, 30, 30], [1, 2, 3, 4]]
    found = boxes.clip(np.float32(given), height=8, width=10)
    expected = [[0, 0, 3, 4], [2, 3, 10, 8], [10, 8, 10, 8], [1, 2, 3, 4]]
    np.testing.assert_array_equal(ops.convert_to_numpy(found), expected)


def test_encode_by_hand():
    # The centre moves by a quarter of the width; twice as wide, half as high.
    found = boxes.encode(np.float32([5, 5, 25, 10]), np.float32([10, 0, 20, 10]), scale=(1,) * 4)
    expected = [0, 0.25, np.log(2), -np.log(2)]
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-6)


def test_targets_are_divided_by_the_scale():
    box, anchor = np.float32([5, 5, 25, 10]), np.float32([10, 0, 20, 10])
    plain, scaled = boxes.encode(box, anchor, scale=(1,) * 4), boxes.encode(box, anchor)
    np.testing.assert_allclose(
        ops.convert_to_numpy(scaled), ops.convert_to_numpy(plain) / [0.1, 0.1, 0.2, 0.2], rtol=1e-6
    )


def test_decode_undoes_encode():
    rng = np.random.default_rng(2)
    a, anchors = (random_boxes(rng, 3, 50) + [-9, -9, 1, 1] for _ in range(2))
    found = boxes.decode(boxes.encode(a, anchors[0]), anchors[0])
    np.testing.assert_allclose(ops.convert_to_numpy(found), a, atol=1e-4)


def test_decoded_sides_are_bounded():
    found = boxes.decode(np.float32([0, 0, 1e9, -1e9]), np.float32([0, 0, 16, 16]))
    np.testing.assert_allclose(ops.convert_to_numpy(found), [-492, 8, 508, 8], rtol=1e-5)


@keras.saving.register_keras_serializable(package="tests")
class Coding(keras.layers.Layer):
    """`encode` or `decode` as a layer, for the harness."""

    def __init__(self, function="decode", **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.function = function

    def call(self, x, anchors):
        return getattr(boxes, self.function)(x, anchors)

    def compute_output_shape(self, x_shape, anchors_shape):
        return x_shape

    def compute_output_spec(self, x, anchors):
        return keras.KerasTensor(x.shape, "float32")

    def get_config(self):
        return {**super().get_config(), "function": self.function}


def encoded_naively(x, anchors):
    result = np.zeros(x.shape)
    for i in np.ndindex(x.shape[:-1]):
        x1, y1, x2, y2 = x[i].astype("float64")
        a1, b1, a2, b2 = anchors[i].astype("float64")
        width, height = a2 - a1, b2 - b1
        result[i] = [
            ((x1 + x2) / 2 - (a1 + a2) / 2) / width / 0.1,
            ((y1 + y2) / 2 - (b1 + b2) / 2) / height / 0.1,
            np.log((x2 - x1) / width) / 0.2,
            np.log((y2 - y1) / height) / 0.2,
        ]
    return result


@pytest.mark.parametrize("function, reference", [("encode", encoded_naively), ("decode", None)])
def test_coding_in_a_functional_model(function, reference):
    rng = np.random.default_rng(3)
    x, anchors = (random_boxes(rng, 2, 4) + np.float32([-9, -9, 1, 1]) for _ in range(2))
    x = x if function == "encode" else rng.normal(0, 3, (2, 4, 4)).astype("float32")
    inputs = {"x": x, "anchors": anchors}
    kept = ("x", "anchors", "output")
    run_layer_test(Coding, {"function": function}, inputs, reference, float32=kept, tolerance=1e-4)


@pytest.mark.parametrize("function", ["encode", "decode", "iou", "paired_iou", "covered"])
@pytest.mark.parametrize("symbolic", [0, 1])
def test_an_array_beside_a_symbolic_tensor(function, symbolic):
    rng = np.random.default_rng(4)
    pair = [random_boxes(rng, 1, 4), random_boxes(rng, 1, 4)]
    expected = getattr(boxes, function)(*pair)
    given = keras.Input((4, 4))
    mixed = [ops.convert_to_tensor(part) for part in pair]
    mixed[symbolic] = given
    model = keras.Model(given, getattr(boxes, function)(*mixed))
    found = model.predict_on_batch(pair[symbolic])
    np.testing.assert_allclose(found, ops.convert_to_numpy(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", ["encode", "decode"])
def test_degenerate_boxes_give_no_nan(function):
    # Trap 7: a padded box, an empty one, an inverted one, a sliver; encode is safe from NaN too.
    bad = np.float32([[-1, -1, -1, -1], [3, 3, 3, 9], [9, 9, 3, 3], [0, 0, 1e-30, 1e-30]])
    good = np.float32([[0, 0, 10, 10]] * 4)
    if function == "encode":
        bad = np.concatenate([bad, np.float32([[np.nan, 0, 1, 1], [0, 0, np.inf, 1]])])
        good = np.float32([[0, 0, 10, 10]] * 6)
    pairs = [(bad, good), (good, bad), (bad, bad)][function == "decode" :]
    for x, anchors in pairs:
        layer = Coding(function)
        values = ops.convert_to_numpy(layer(x, anchors))
        assert np.isfinite(values).all()
        if function == "encode":
            np.testing.assert_array_equal(values, 0)
        inputs = {"x": x, "anchors": anchors}
        for gradient in _gradients(layer, inputs, [0, 1], [np.ones_like(x)]):
            assert np.isfinite(gradient).all()


def test_symbolic_boxes():
    x = keras.Input((5, 4))
    relative = boxes.convert(boxes.clip(x, 50, 100), "xyxy", "rel_xywh", height=50, width=100)
    model = keras.Model(x, {"relative": relative, "iou": boxes.iou(x, x)})
    model = keras.Model.from_config(model.get_config())
    given = random_boxes(np.random.default_rng(4), 2, 5) + 20
    found = model.predict(given, verbose=0)
    clipped = np.minimum(given, [100, 50, 100, 50])
    size = clipped[..., 2:] - clipped[..., :2]
    expected = np.concatenate([clipped[..., :2], size], -1) / [100, 50, 100, 50]
    np.testing.assert_allclose(found["relative"], expected, atol=1e-6)
    assert found["iou"].shape == (2, 5, 5)
