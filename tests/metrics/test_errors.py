import numpy as np
import pytest
from numpy.testing import assert_allclose

from cvlib.metrics.average_precision import MeanAveragePrecision
from cvlib.metrics.errors import ERRORS, error_breakdown

A, B, C = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]
POOR_A = [0, 0, 10, 3]


def image(boxes, labels, **kwargs):
    return {"boxes": np.reshape(boxes, (-1, 4)), "labels": labels} | kwargs


def breakdown(objects, found, **kwargs):
    """Objects and detections as (box, class) in one image, detections by falling confidence."""
    y_true = [image([b for b, _ in objects], [c for _, c in objects])]
    y_pred = [image([b for b, _ in found], [c for _, c in found])]
    y_pred[0]["confidence"] = np.linspace(0.9, 0.6, len(found))
    return error_breakdown(y_true, y_pred, 3, **kwargs)


@pytest.mark.parametrize(
    "objects, found, expected",
    [
        ([(A, 0)], [(A, 0)], {"correct": 1}),
        ([(A, 0)], [(A, 1)], {"wrong class": 1}),
        ([(A, 0)], [(POOR_A, 0)], {"poor box": 1}),
        ([(A, 0)], [(POOR_A, 1)], {"both": 1, "missed": 1}),
        ([(A, 0)], [(B, 0)], {"background": 1, "missed": 1}),
        ([(A, 0)], [(A, 0), (A, 0)], {"correct": 1, "duplicate": 1}),
        ([(A, 0)], [], {"missed": 1}),
        ([], [(A, 0)], {"background": 1}),
        # IoU 0.09, below what is about an object, and 0.1.
        ([(A, 0)], [([0, 0, 10, 0.9], 0)], {"background": 1, "missed": 1}),
        ([(A, 0)], [([0, 0, 10, 1], 0)], {"poor box": 1}),
        ([(A, 0)], [([0, 0, 10, 5], 0)], {"correct": 1}),
        # A poor box of its class comes before a good one of another class.
        ([(A, 0), ([0, 5, 10, 15], 1)], [([0, 5, 10, 15], 0)], {"poor box": 1, "missed": 1}),
        # The object of the wrong class has been found by another, and is not missed.
        ([(A, 0)], [(A, 0), (A, 1)], {"correct": 1, "wrong class": 1}),
        (
            [(A, 0), (B, 1), (C, 2)],
            [(A, 0), (B, 0), (C, 2), (C, 2)],
            {"correct": 2, "wrong class": 1, "duplicate": 1},
        ),
    ],
)
def test_hand_worked_kinds(objects, found, expected):
    counts = breakdown(objects, found)["counts"]
    assert set(counts) == {"correct", *ERRORS}
    assert {kind: n for kind, n in counts.items() if n} == expected


def test_hand_worked_gains():
    # Of class 0, A is found at the second place; B, of class 1, is found as class 0.
    result = breakdown([(A, 0), (B, 1)], [(B, 0), (A, 0)])
    assert_allclose(result["mAP"], (1 / 2 + 0) / 2)
    assert_allclose(result["gain"]["wrong class"], 1 - 1 / 4)
    assert all(result["gain"][kind] == 0 for kind in ERRORS if kind != "wrong class")

    # The poor boxes of A: the first becomes right, the other vanishes.
    result = breakdown([(A, 0)], [(POOR_A, 0), (B, 0), (POOR_A, 0)])
    assert_allclose([result["mAP"], result["gain"]["poor box"]], [0, 1])

    # A is found, after a poor box of it and a background: without the one or the other 1 / 2.
    result = breakdown([(A, 0)], [(POOR_A, 0), (C, 0), (A, 0)])
    assert_allclose(result["mAP"], 1 / 3)
    assert_allclose(result["gain"]["poor box"], 1 / 2 - 1 / 3)
    assert_allclose(result["gain"]["background"], 1 / 2 - 1 / 3)

    # One of two objects is missed, and not asked for any more.
    result = breakdown([(A, 0), (B, 0)], [(A, 0)])
    assert_allclose(result["gain"]["missed"], 1 - 51 / 101)

    duplicate = breakdown([(A, 0), (B, 0)], [(A, 0), (A, 0), (B, 0)])["gain"]["duplicate"]
    assert_allclose(duplicate, 1 - (51 + 50 * 2 / 3) / 101)
    both = breakdown([(A, 0), (B, 1)], [(POOR_A, 1), (B, 1)])["gain"]["both"]
    assert_allclose(both, 1 / 4)


def test_every_detection_and_object_is_accounted_for():
    rng = np.random.default_rng(0)
    y_true, y_pred = [], []
    for _ in range(30):
        corner = rng.integers(0, 60, (5, 2))
        boxes = np.hstack([corner, corner + rng.integers(10, 40, (5, 2))])
        y_true.append(image(boxes, rng.integers(0, 3, 5)))
        y_pred.append(image(boxes.repeat(4, axis=0) + rng.integers(-4, 5, (20, 4)), None))
        y_pred[-1] |= {"labels": y_true[-1]["labels"].repeat(4), "confidence": rng.random(20)}
        y_pred[-1]["labels"][::5] = 0
    result = error_breakdown(y_true, y_pred, 3, confidence_threshold=0)
    counts = result["counts"]
    assert min(counts[kind] for kind in ("correct", "wrong class", "poor box", "duplicate")) > 0
    assert sum(counts.values()) - counts["missed"] == 30 * 20
    metric = MeanAveragePrecision(3, "coco")
    metric.update_state(y_true, y_pred)
    assert_allclose(result["mAP"], metric.result()["AP50"])
    assert min(result["gain"].values()) >= 0


def test_excused_and_unsure_detections_are_left_out():
    y_true = [image([A, B, C], [0, 0, 0], difficult=[1, 0, 0], crowd=[0, 1, 0])]
    y_pred = [image([A, B, B, C], [0, 0, 0, 0], confidence=[0.9, 0.8, 0.7, 0.4])]
    counts = error_breakdown(y_true, y_pred, 1)["counts"]
    assert {kind: n for kind, n in counts.items() if n} == {"missed": 1}
    counts = error_breakdown(y_true, y_pred, 1, confidence_threshold=0.4)["counts"]
    assert {kind: n for kind, n in counts.items() if n} == {"correct": 1}


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"boxes": [[0, 0, np.nan, 5]]},
            "y_pred: a detection in image 0 has a box or a confidence",
        ),
        ({"confidence": [np.nan]}, "y_pred: a detection in image 0 has a box or a confidence"),
        ({"labels": [3]}, r"y_pred: image 0 has the label 3, outside 0\.\.2"),
        ({"num_detections": 2}, "y_pred: num_detections is 2, but there are 1 rows"),
    ],
)
def test_bad_detections(change, message):
    y_pred = image([A], [0], confidence=[0.9]) | change
    with pytest.raises(ValueError, match=message) as error:
        error_breakdown([image([A], [0])], [y_pred], 3)
    assert "\n" not in str(error.value)


def test_other_numbers_of_images():
    with pytest.raises(ValueError, match="y_true holds 0 images, but y_pred 1"):
        error_breakdown([], [image([A], [0], confidence=[0.9])], 3)


def test_iou_is_of_boxes_or_masks():
    with pytest.raises(ValueError, match="iou must be 'boxes' or 'masks', not 'segm'"):
        breakdown([(A, 0)], [(A, 0)], iou="segm")


def test_where_all_is_missed_nothing_is_left_to_ask_for():
    assert np.isnan(breakdown([(A, 0)], [])["gain"]["missed"])
    assert breakdown([(A, 0), (B, 0)], [(A, 0)])["gain"]["missed"] > 0


def test_nothing_at_all():
    result = error_breakdown([], [], 2)
    assert not any(result["counts"].values())
    assert np.isnan(result["mAP"])


@pytest.mark.parametrize("background, iou", [(0, 0.5), (0.6, 0.5), (0.1, 1.5)])
def test_thresholds_that_would_count_wrongly_are_refused(background, iou):
    with pytest.raises(ValueError, match="0 < background_threshold <= iou_threshold <= 1"):
        breakdown([(A, 0)], [(A, 0)], background_threshold=background, iou_threshold=iou)
