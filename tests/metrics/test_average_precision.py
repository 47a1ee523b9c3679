import contextlib
import io
import itertools

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cvlib import masks
from cvlib.metrics.average_precision import (
    RECALL_POINTS,
    EvaluateDetections,
    MeanAveragePrecision,
    average_precision,
)

CLASSES = 5
SIZE = 160
COCO_STATS = (
    *("mAP", "AP50", "AP75", "mAP_small", "mAP_medium", "mAP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


def random_images(seed, num_images=25, max_detections=30, crowd=0.2):
    """Images with integer boxes, whose detections move, repeat, mislabel or invent objects.

    Class 3 has no objects, class 4 no detections; every fifth image lacks objects, every seventh
    detections; confidences come in tenths, so many are equal.
    """
    rng = np.random.default_rng(seed)

    def boxes(n):
        start = rng.integers(0, SIZE - 20, (n, 2))
        return np.hstack([start, np.minimum(start + rng.integers(5, 140, (n, 2)), SIZE)])

    y_true, y_pred = [], []
    for i in range(num_images):
        n = 0 if i % 5 == 4 else rng.integers(1, 8)
        m = 0 if i % 7 == 6 else rng.integers(0, max_detections)
        objects = {"boxes": boxes(n), "labels": rng.choice([0, 1, 2, 4], n)}
        objects["difficult"] = rng.random(n) < 0.2
        objects["crowd"] = rng.random(n) < crowd
        found, labels = boxes(m), rng.integers(0, 4, m)
        if n:
            source = rng.integers(0, n, m)
            near = rng.random(m) < 0.7
            moved = objects["boxes"][source] + rng.integers(-6, 7, (m, 4))
            moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 3)
            found[near] = np.clip(moved, 0, SIZE)[near]
            right = near & (objects["labels"][source] != 4) & (rng.random(m) < 0.8)
            labels[right] = objects["labels"][source][right]
        y_true.append(objects)
        y_pred.append({"boxes": found, "labels": labels, "confidence": rng.integers(0, 11, m) / 10})
    return y_true, y_pred


def with_masks(images, seed):
    """Run-length masks: the boxes of the images with some of their columns left out."""
    rng = np.random.default_rng(seed)
    for image in images:
        canvas = np.zeros((len(image["boxes"]), SIZE, SIZE), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(canvas, image["boxes"], strict=True):
            mask[y1:y2, x1 : x2 - rng.integers(0, 3)] = 1
        image["masks"] = masks.encode(canvas)
        if "crowd" in image:
            image["area"] = masks.areas(image["masks"]) * 0.9
    return images


def without_difficult(y_true):
    return [{k: v for k, v in image.items() if k != "difficult"} for image in y_true]


def coco_eval(y_true, y_pred, iou_type):
    """The twelve numbers and the AP of each class from pycocotools."""

    def rows(images):
        for i, image in enumerate(images):
            for j, (x1, y1, x2, y2) in enumerate(image["boxes"].tolist()):
                row = {"image_id": i + 1, "category_id": int(image["labels"][j]) + 1}
                row |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
                row |= {"area": float(image["area"][j])} if "area" in image else {}
                row |= {"iscrowd": int(image["crowd"][j])} if "crowd" in image else {}
                row |= {"score": float(image["confidence"][j])} if "confidence" in image else {}
                if iou_type == "segm":
                    row["segmentation"] = image["masks"][j]
                    if "confidence" in image:
                        del row["bbox"]
                yield row

    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i + 1, "height": SIZE, "width": SIZE} for i in range(len(y_true))],
        "categories": [{"id": c + 1, "name": str(c)} for c in range(CLASSES)],
        "annotations": [row | {"id": k + 1} for k, row in enumerate(rows(y_true))],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(list(rows(y_pred))), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    ap = np.where(precision == -1, np.nan, precision).mean(axis=(0, 1))
    return np.where(evaluation.stats == -1, np.nan, evaluation.stats), ap


def naive_voc(y_true, y_pred, label, threshold, eleven_points):
    """One class as the development kit does it, on integer pixels: a loop over all detections."""
    objects = [
        [
            {"box": (x1 + 1, y1 + 1, x2, y2), "difficult": difficult, "found": False}
            for (x1, y1, x2, y2), c, difficult in zip(
                image["boxes"].tolist(), image["labels"], image["difficult"], strict=True
            )
            if c == label
        ]
        for image in y_true
    ]
    positives = sum(not o["difficult"] for image in objects for o in image)
    if not positives:
        return np.nan
    detections = [
        (confidence, i, (x1 + 1, y1 + 1, x2, y2))
        for i, image in enumerate(y_pred)
        for (x1, y1, x2, y2), c, confidence in zip(
            image["boxes"].tolist(), image["labels"], image["confidence"], strict=True
        )
        if c == label
    ]
    right = wrong = 0
    curve = []
    for _, i, box in sorted(detections, key=lambda d: -d[0]):
        best, best_iou = None, -1
        for o in objects[i]:
            width = min(box[2], o["box"][2]) - max(box[0], o["box"][0]) + 1
            height = min(box[3], o["box"][3]) - max(box[1], o["box"][1]) + 1
            if width > 0 and height > 0:
                areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, o["box"])]
                iou = width * height / (sum(areas) - width * height)
                if iou > best_iou:
                    best, best_iou = o, iou
        if best_iou < threshold:
            wrong += 1
        elif not best["difficult"]:
            right += not best["found"]
            wrong += best["found"]
            best["found"] = True
        if right + wrong:
            curve.append((right / positives, right / (right + wrong)))
    if eleven_points:
        return sum(max([p for r, p in curve if r >= t / 10], default=0) for t in range(11)) / 11
    area, last = 0, 0
    for k, (recall, _) in enumerate(curve):
        area += (recall - last) * max(p for _, p in curve[k:])
        last = recall
    return area


def evaluate(y_true, y_pred, *args, **kwargs):
    metric = MeanAveragePrecision(*args, **kwargs)
    metric.update_state(y_true, y_pred)
    return metric.result()


def assert_equals_coco_eval(result, stats, ap):
    assert_allclose([result[key] for key in COCO_STATS], stats, atol=1e-9)
    assert_allclose(result["AP"], ap, atol=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_coco_boxes_equal_pycocotools(seed):
    y_true, y_pred = random_images(seed)
    y_true = without_difficult(y_true)
    rng = np.random.default_rng(seed)
    for image in y_true:
        image["area"] = rng.uniform(0, 12000, len(image["labels"]))
    result = evaluate(y_true, y_pred, CLASSES, "coco")
    assert 0 < result["AP75"] < result["AP50"] < 1
    assert_equals_coco_eval(result, *coco_eval(y_true, y_pred, "bbox"))


@pytest.mark.parametrize("seed", range(4))
def test_coco_masks_equal_pycocotools(seed):
    y_true, y_pred = random_images(seed)
    y_true = with_masks(without_difficult(y_true), seed)
    y_pred = with_masks(y_pred, seed + 100)
    result = evaluate(y_true, y_pred, CLASSES, "coco", iou="masks")
    assert_equals_coco_eval(result, *coco_eval(y_true, y_pred, "segm"))


def test_coco_counts_100_detections_of_a_class_in_an_image():
    y_true, y_pred = random_images(0, num_images=3, max_detections=1000)
    for image in y_pred:
        image["labels"][:] = 1
    assert len(y_pred[0]["labels"]) > 150
    result = evaluate(y_true := without_difficult(y_true), y_pred, CLASSES, "coco")
    assert_equals_coco_eval(result, *coco_eval(y_true, y_pred, "bbox"))


def test_coco_takes_difficult_objects_for_ignored():
    y_true = [
        {"boxes": [[0, 0, 9, 9], [20, 0, 29, 9]], "labels": [0, 0], "difficult": [True, False]}
    ]
    y_pred = [{"boxes": [[0, 0, 9, 9], [0, 0, 9, 9], [20, 0, 29, 9]], "labels": [0, 0, 0]}]
    y_pred[0]["confidence"] = [0.9, 0.8, 0.7]
    # The first is excused, the second finds nothing free, the third is right: precision 1 / 2.
    assert_allclose(evaluate(y_true, y_pred, 1, "coco")["mAP"], 0.5)


@pytest.mark.parametrize("threshold", [0.5, 0.7])
@pytest.mark.parametrize("style", ["voc2007", "voc2010"])
def test_voc_equals_the_development_kit(style, threshold):
    for seed in range(6):
        y_true, y_pred = random_images(seed, crowd=0)
        result = evaluate(y_true, y_pred, CLASSES, style, iou_threshold=threshold)
        expected = [
            naive_voc(y_true, y_pred, c, threshold, style == "voc2007") for c in range(CLASSES)
        ]
        assert_allclose(result["AP"], expected, atol=1e-12)
        assert_allclose(result["mAP"], np.nanmean(expected), atol=1e-12)


def test_voc_masks_equal_voc_boxes_where_masks_fill_the_boxes():
    y_true, y_pred = random_images(0)
    for image in y_true + y_pred:
        canvas = np.zeros((len(image["boxes"]), SIZE, SIZE), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(canvas, image["boxes"], strict=True):
            mask[y1:y2, x1:x2] = 1
        image["masks"] = masks.encode(canvas)
    of_boxes = evaluate(y_true, y_pred, CLASSES, "voc2010")["AP"]
    assert_allclose(evaluate(y_true, y_pred, CLASSES, "voc2010", iou="masks")["AP"], of_boxes)


# Objects of one image, its detections by falling confidence, and what the rules make of them.
A, B, NEAR_A, BETWEEN = [0, 0, 10, 10], [0, 4, 10, 14], [0, 1, 10, 11], [0, 2.5, 10, 12.5]


@pytest.mark.parametrize(
    "objects, difficult, found, voc, coco",
    [
        ([A], [0], [A], 1, 1),
        # IoU is 50 / 100: a match for both.
        ([A], [0], [[0, 0, 10, 5]], 1, 1),
        ([A], [0], [[0, 0, 10, 4.99]], 0, 0),
        # The second at the same object is wrong, but precision is 1 where recall is reached.
        ([A], [0], [A, A], 1, 1),
        ([A, [50, 50, 60, 60]], [0, 0], [A, A, [50, 50, 60, 60]], (1 + 2 / 3) / 2, 1 / 2 + 1 / 3),
        # The second is nearer to A, which is taken: COCO gives it B, VOC counts it as wrong.
        ([A, B], [0, 0], [A, [0, 1.9, 10, 11.9]], 1 / 2, 1),
        # The best object is difficult: neither right nor wrong.
        ([A, [50, 50, 60, 60]], [1, 0], [A, A, [50, 50, 60, 60]], 1, 1 / 2),
        # Of equal IoUs VOC takes the first object and COCO the last.
        ([A, [0, 5, 10, 15]], [0, 0], [BETWEEN, NEAR_A], 1 / 2, 1),
    ],
)
def test_hand_worked_matches(objects, difficult, found, voc, coco):
    y_true = [{"boxes": objects, "labels": [0] * len(objects), "difficult": difficult}]
    confidence = np.linspace(0.9, 0.5, len(found))
    y_pred = [{"boxes": found, "labels": [0] * len(found), "confidence": confidence}]
    assert_allclose(evaluate(y_true, y_pred, 1, "voc2010")["mAP"], voc)
    points = evaluate(y_true, y_pred, 1, "coco")["AP50"]
    # 101 points sample the area with one point at recall 0.
    assert_allclose(points, coco, atol=0.01)


def naive_free(y_true, y_pred, label, threshold):
    """AP of one class where detections find the best object that is still free, by a loop."""
    rows = [
        (-confidence, i, box)
        for i, image in enumerate(y_pred)
        for box, c, confidence in zip(
            *(image[k] for k in ("boxes", "labels", "confidence")), strict=True
        )
        if c == label
    ]
    free = [
        [b for b, c in zip(image["boxes"], image["labels"], strict=True) if c == label]
        for image in y_true
    ]
    positives, correct = sum(map(len, free)), []
    for _, i, (x1, y1, x2, y2) in sorted(rows, key=lambda row: row[0]):
        best, at = threshold, None
        for j, (a1, b1, a2, b2) in enumerate(free[i]):
            w, h = min(x2, a2) - max(x1, a1), min(y2, b2) - max(y1, b1)
            inside = w * h if w > 0 and h > 0 else 0
            iou = inside / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - inside)
            if iou >= best:
                best, at = iou, j
        correct.append(at is not None)
        if at is not None:
            del free[i][at]
    return average_precision(np.array(correct), positives) if positives else np.nan


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_the_best_object_that_is_free_equals_a_loop(threshold):
    y_true, y_pred = random_images(5)
    # Each object has a neighbour, which the second detection of it may find.
    y_true = [
        {"boxes": np.vstack([o["boxes"], o["boxes"] + 3]), "labels": np.tile(o["labels"], 2)}
        for o in y_true
    ]
    naive = [naive_free(y_true, y_pred, c, threshold) for c in range(CLASSES)]
    settings = {"style": "voc2010", "iou_threshold": threshold}
    free = evaluate(y_true, y_pred, CLASSES, matching="free", **settings)
    assert_allclose(free["AP"], naive)
    assert free["mAP"] > evaluate(y_true, y_pred, CLASSES, **settings)["mAP"]


def test_free_matching_by_hand():
    # Both lie nearest to A. SDS gives the second to B, VOC counts it as wrong.
    found = [{"boxes": [A, [0, 1.9, 10, 11.9]], "labels": [0, 0], "confidence": [0.9, 0.8]}]
    y_true = [{"boxes": [A, B], "labels": [0, 0]}]
    assert evaluate(y_true, found, 1, "voc2010", matching="free")["mAP"] == 1
    assert evaluate(y_true, found, 1, "voc2010")["mAP"] == 1 / 2
    y_true = [{"boxes": [A, [50, 50, 60, 60]], "labels": [0, 0], "difficult": [1, 0]}]
    found = [{"boxes": [A, A, A, [50, 50, 60, 60]], "labels": [0] * 4, "confidence": [0.9] * 4}]
    assert evaluate(y_true, found, 1, "voc2010", matching="free")["mAP"] == 1


def test_hand_worked_average_precision():
    # Precision 1 at recall 1/4, then 2/3 at 1/2; recalls above are not reached.
    correct = np.array([True, False, True, False])
    assert_allclose(average_precision(correct, 4), (1 + 2 / 3) / 4)
    assert_allclose(average_precision(correct, 4, RECALL_POINTS["voc2007"]), (3 + 3 * 2 / 3) / 11)
    assert_allclose(average_precision(correct, 4, RECALL_POINTS["coco"]), (26 + 25 * 2 / 3) / 101)
    # A recall of 3 / 10 reaches the point 0.3.
    assert_allclose(average_precision(np.ones(3, bool), 10, RECALL_POINTS["voc2007"]), 4 / 11)
    assert average_precision(np.zeros(0, bool), 4, RECALL_POINTS["coco"]) == 0
    assert average_precision(np.zeros(3, bool), 4) == 0


def padded(images, length):
    batch = {
        "boxes": np.full((len(images), length, 4), -1, np.float32),
        "labels": np.full((len(images), length), -1, np.int32),
    }
    for key in ("difficult", "crowd", "confidence"):
        if key in images[0]:
            batch[key] = np.zeros((len(images), length), images[0][key].dtype)
    for i, image in enumerate(images):
        for key in batch:
            batch[key][i, : len(image["labels"])] = image[key]
    return batch


@pytest.mark.parametrize("style", RECALL_POINTS)
def test_streams_over_padded_batches(style):
    y_true, y_pred = random_images(3)
    expected = evaluate(y_true, y_pred, CLASSES, style)
    metric = MeanAveragePrecision(CLASSES, style)
    metric.update_state(y_true[:9], y_pred[9:18])
    metric.reset_state()
    for i in range(0, len(y_true), 4):
        detections = padded(y_pred[i : i + 4], 40)
        detections["num_detections"] = (detections["labels"] != -1).sum(axis=1)
        # What num_detections leaves out is padding, whatever it holds.
        detections["boxes"][:, 35:] = np.nan
        detections["labels"][:, 35:] = 0
        batch = {k: keras.ops.convert_to_tensor(v) for k, v in detections.items()}
        metric.update_state(padded(y_true[i : i + 4], 10), batch)
    assert_array_equal(metric.result()["AP"], expected["AP"])


def test_box_framed_masks_are_pasted():
    y_true, y_pred = random_images(1, num_images=4)
    rng = np.random.default_rng(0)
    framed = [{**i, "masks": rng.random((len(i["boxes"]), 7, 7), np.float32)} for i in y_true]
    found = [{**i, "masks": rng.random((len(i["boxes"]), 7, 7), np.float32)} for i in y_pred]
    for image in framed:
        image["size"] = (SIZE, SIZE)

    def pasted(images):
        return [{**i, "masks": masks.paste(i["masks"], i["boxes"], SIZE, SIZE)} for i in images]

    expected = evaluate(pasted(framed), pasted(found), CLASSES, iou="masks", iou_threshold=0.3)
    assert expected["mAP"] > 0
    result = evaluate(framed, found, CLASSES, iou="masks", iou_threshold=0.3)
    assert_array_equal(result["AP"], expected["AP"])
    of_truth = [{**i, "masks": m["masks"]} for i, m in zip(y_true, pasted(framed), strict=True)]
    result = evaluate(of_truth[:1], found[:1], CLASSES, iou="masks", iou_threshold=0.3)
    assert result["mAP"] > 0
    del framed[0]["size"]
    with pytest.raises(ValueError, match="no 'size' of image 0"):
        evaluate(framed, found, CLASSES, iou="masks")


@pytest.mark.parametrize("style", RECALL_POINTS)
def test_nothing_to_find_and_nothing_found(style):
    metric = MeanAveragePrecision(2, style)
    assert np.isnan(metric.result()["mAP"])
    found = {"boxes": [[0, 0, 5, 5]], "labels": [1], "confidence": [0.5]}
    empty = {"boxes": [], "labels": [], "confidence": []}
    metric.update_state([empty], [found])
    assert np.isnan(metric.result()["mAP"])
    metric.update_state([{"boxes": [[0, 0, 5, 5]], "labels": [0]}], [empty])
    assert_array_equal(metric.result()["AP"], [0, np.nan])
    assert metric.result()["mAP"] == 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"boxes": [[[0, 0, np.nan, 5]] * 3]}, "detection in image 0 .* not finite"),
        ({"confidence": [[0.5, np.nan, 0.5]]}, "detection in image 0 .* not finite"),
        ({"labels": [[0, 1, 2]]}, r"y_pred: image 0 has the label 2, outside 0\.\.1"),
        ({"labels": [[0, -2, 1]]}, "label -2"),
        ({"labels": [[0, np.nan, 1]]}, "labels are whole numbers"),
        ({"labels": [[0, 0.7, 1]]}, "labels are whole numbers"),
        ({"num_detections": [4]}, "num_detections is 4, but there are 3 rows"),
        ({"num_detections": [1, 2]}, "2 num_detections do not fit 1 images"),
        ({"boxes": np.zeros((1, 2, 4))}, r"boxes of shape \(1, 2, 4\) do not fit"),
        ({"boxes": np.zeros((1, 3, 5))}, r"boxes of shape \(1, 3, 5\) do not fit"),
        ({"confidence": [[0.5]]}, "confidence of shape"),
        ({"labels": [0, 0, 1]}, r"labels of shape \(3,\) are not"),
    ],
)
def test_bad_detections(change, message):
    y_true = {"boxes": np.zeros((1, 2, 4)), "labels": np.zeros((1, 2))}
    y_pred = {"boxes": [[[0, 0, 5, 5]] * 3], "labels": [[0, 0, 1]], "confidence": [[0.5] * 3]}
    y_pred = {key: np.array(value) for key, value in (y_pred | change).items()}
    with pytest.raises(ValueError, match=message) as error:
        evaluate(y_true, y_pred, 2)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"boxes": [A, [0, 0, np.nan, 5]]}, "object in image 0 has a box that is not finite"),
        ({"boxes": [A, [0, 0, np.inf, 5]]}, "object in image 0 has a box that is not finite"),
        ({"boxes": [A, [5, 0, 0, 5]]}, "object in image 0 has a box that is .* inverted"),
        ({"boxes": [A, [0, 5, 5, 0]]}, "object in image 0 has a box that is .* inverted"),
        ({"area": [100, -1]}, "object in image 0 has an area that is negative or infinite"),
        ({"area": [100, np.inf]}, "object in image 0 has an area that is negative or infinite"),
        ({"area": [100, "much"]}, "area are not all numbers"),
    ],
)
@pytest.mark.parametrize("style", RECALL_POINTS)
def test_impossible_objects(style, change, message):
    y_true = {"boxes": [A, B], "labels": [0, 0], "area": [100, 100]} | change
    found = {"boxes": [A], "labels": [0], "confidence": [0.5]}
    with pytest.raises(ValueError, match=f"^y_true: .*{message}") as error:
        evaluate([y_true], [found], 1, style)
    assert str(error.value).count("\n") == 0
    padding = {"boxes": [A, [np.nan] * 4], "labels": [0, -1]}
    assert evaluate([padding], [found], 1, style)["mAP"] == 1


@pytest.mark.parametrize("area", [None, np.nan])
def test_an_area_that_is_not_known_is_measured(area):
    y_true = {"boxes": [A, [20, 20, 30, 30]], "labels": [0, 0], "area": [area, 100]}
    found = {"boxes": [A], "labels": [0], "confidence": [0.5]}
    assert_allclose(evaluate([y_true], [found], 1, "coco")["mAP_small"], 51 / 101)


@pytest.mark.parametrize("style", RECALL_POINTS)
def test_an_inverted_detection_is_wrong(style):
    y_true = {"boxes": [A], "labels": [0]}
    for inverted in ([10, 0, 0, 10], [10, 10, 0, 0]):
        found = {"boxes": [inverted, A], "labels": [0, 0], "confidence": [0.9, 0.8]}
        assert_allclose(evaluate([y_true], [found], 1, style)["mAP"], 1 / 2)


def test_bad_arguments_and_objects():
    with pytest.raises(ValueError, match="style must be one of voc2007, voc2010, coco"):
        MeanAveragePrecision(2, "voc")
    with pytest.raises(ValueError, match="matching must be 'best' or 'free', not 'greedy'"):
        MeanAveragePrecision(2, matching="greedy")
    with pytest.raises(ValueError, match="iou must be"):
        MeanAveragePrecision(2, iou="segm")
    objects = {"boxes": np.zeros((1, 2, 4)), "labels": np.full((1, 2), 7)}
    with pytest.raises(ValueError, match="y_true: image 0 has the label 7"):
        evaluate(objects, {**objects, "confidence": np.zeros((1, 2))}, 2)
    with pytest.raises(ValueError, match="y_true holds 0 images, but y_pred 1"):
        evaluate([], {**objects, "labels": np.zeros((1, 2)), "confidence": np.zeros((1, 2))}, 2)
    small, large = (
        {"boxes": [[0, 0, 2, 2]], "labels": [0], "masks": [masks.encode(np.ones((n, n)))]}
        for n in (4, 5)
    )
    with pytest.raises(ValueError, match="the masks of image 0 are not of its size"):
        evaluate([small], [{**large, "confidence": [1]}], 1, iou="masks")
    mask = masks.encode(np.ones((4, 4)))
    for wrong in ([], [mask, mask]):
        with pytest.raises(ValueError, match=f"y_pred: image 0 has {len(wrong)} masks for 1 boxes"):
            evaluate([small], [{**small, "masks": wrong, "confidence": [1]}], 1, iou="masks")
    framed = np.full((1, 2, 2), np.nan)
    with pytest.raises(ValueError, match="a mask of image 0 is not finite"):
        evaluate([small], [{**small, "masks": framed, "confidence": [1]}], 1, iou="masks")
    with pytest.raises(ValueError, match="y_pred has no 'confidence'"):
        evaluate(
            {**objects, "labels": np.zeros((1, 2))}, {**objects, "labels": np.zeros((1, 2))}, 2
        )


def test_in_compile_it_says_where_it_belongs():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(loss="mse", metrics=[MeanAveragePrecision(2)])
    with pytest.raises(
        TypeError, match="MeanAveragePrecision runs on the host.*EvaluateDetections"
    ):
        model.fit(np.zeros((2, 4)), np.zeros((2, 1)), verbose=0)


def test_symbolic_tensors_are_refused():
    boxes, labels = keras.KerasTensor((1, 2, 4)), keras.KerasTensor((1, 2), "int32")
    with pytest.raises(TypeError, match="MeanAveragePrecision runs on the host"):
        evaluate({"boxes": boxes, "labels": labels}, [{}], 2)


class Pixels(keras.Model):
    """Takes what stands in the first pixel of an image for its one detection."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, images):
        return self.dense(keras.ops.mean(images, axis=(1, 2)))

    def predict(self, images):
        labels = np.zeros((len(images), 1), int)
        return {"boxes": images[:, :1, 0], "labels": labels, "confidence": labels + 1.0}


def test_evaluate_detections_adds_to_the_logs_of_an_epoch():
    objects = np.array([[[1, 2, 8, 9]], [[3, 3, 6, 7]]], np.float32)
    images = np.tile(objects[:, :, None] + [[[[0]]], [[[9]]]], (1, 4, 3, 1))
    batches = [(images, {"boxes": objects, "labels": np.zeros((2, 1), int)})]
    model = Pixels()
    model.compile(loss="mse")
    metric = MeanAveragePrecision(2, "coco")
    metric.update_state(
        batches[0][1], [{"boxes": np.zeros((0, 4)), "labels": [], "confidence": []}] * 2
    )
    callback = EvaluateDetections(batches, metric)
    history = model.fit(images, np.zeros((2, 1)), epochs=2, verbose=0, callbacks=[callback])
    assert_allclose(history.history["val_AR100"], [0.5, 0.5])
    assert "val_AP" not in history.history


class Endless:
    """Batches of one picture that never end, as of `cvlib.data.batches` by default."""

    steps_per_epoch = 3

    def __iter__(self):
        for i in itertools.count():
            box = np.array([[[i, 0, i + 5, 9]]], np.float32)
            image = np.tile(box[:, :, None], (1, 4, 3, 1))
            yield image, {"boxes": box, "labels": np.zeros((1, 1), int)}


@pytest.mark.parametrize("steps, pictures", [(None, 3), (2, 2)])
def test_evaluate_detections_ends_where_batches_do_not(steps, pictures):
    model = Pixels()
    metric = MeanAveragePrecision(2, "coco")
    callback = EvaluateDetections(Endless(), metric, steps=steps)
    callback.set_model(model)
    logs = {}
    callback.on_epoch_end(0, logs)
    assert logs["val_mAP"] == 1 and metric._num_objects == pictures
