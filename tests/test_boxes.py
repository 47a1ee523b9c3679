import numpy as np
import pytest
from keras import ops
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
