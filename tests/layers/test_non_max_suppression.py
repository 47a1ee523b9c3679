import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from cvlib.layers import NonMaxSuppression

from .harness import _gradients, run_layer_test

FIXTURES = json.loads(Path(__file__).with_name("fixtures").joinpath("nms.json").read_text())


def random_boxes(batch, number, classes, per_class=False, seed=0):
    """Boxes in clusters about the origin, and scores with ties, of which some are low."""
    rng = np.random.default_rng(seed)
    shape = (batch, number, classes) if per_class else (batch, number)
    clusters = rng.uniform(-60, 60, (5, 2))
    centres = clusters[rng.integers(0, 5, shape)] + rng.normal(0, 5, (*shape, 2))
    sides = rng.uniform(15, 30, (*shape, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1)
    scores = rng.integers(0, 65, (batch, number, classes)) / 64
    return {"boxes": boxes.astype("float32"), "scores": scores.astype("float32")}


def iou(a, b):
    size = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (size <= 0).any():
        return 0.0
    areas = [np.prod(x[2:] - x[:2]) for x in (a, b)]
    return np.prod(size) / (sum(areas) - np.prod(size))


def kept_naively(
    boxes,
    scores,
    iou_threshold=0.5,
    confidence_threshold=0.05,
    max_detections=100,
    pre_nms_top_k=None,
    class_agnostic=False,
):
    """One box after the other, from lists."""
    batch, number, classes = scores.shape
    K = min(max_detections, pre_nms_top_k or number * classes, number * classes)
    result = {
        "boxes": np.zeros((batch, K, 4), "float32"),
        "confidence": np.zeros((batch, K), "float32"),
        "labels": np.full((batch, K), -1),
        "indices": np.full((batch, K), -1),
        "num_detections": np.zeros(batch, int),
    }
    for b in range(batch):

        def box(n, c, b=b):
            return (boxes[b, n, c] if boxes.ndim == 4 else boxes[b, n]).astype("float64")

        candidates = [(n, c) for n in range(number) for c in range(classes)]
        candidates = [nc for nc in candidates if scores[b][nc] >= confidence_threshold]
        candidates.sort(key=lambda nc, b=b: -scores[b][nc])
        kept = []
        for n, c in candidates[:pre_nms_top_k]:
            rivals = [k for k in kept if class_agnostic or k[1] == c]
            if all(iou(box(n, c), box(*k)) <= iou_threshold for k in rivals):
                kept.append((n, c))
        for k, (n, c) in enumerate(kept[:K]):
            result["boxes"][b, k] = box(n, c)
            result["confidence"][b, k] = scores[b, n, c]
            result["labels"][b, k] = c
            result["indices"][b, k] = n
        result["num_detections"][b] = min(len(kept), K)
    return result


ARGUMENTS = {
    "iou_threshold": 0.4,
    "confidence_threshold": 0.25,
    "max_detections": 50,
    "pre_nms_top_k": 150,
    "class_agnostic": True,
}


@pytest.mark.parametrize(
    "per_class, changes",
    [
        (False, {"class_agnostic": False, "pre_nms_top_k": None, "max_detections": 80}),
        pytest.param(True, {}, marks=pytest.mark.slow),
    ],
)
def test_layer(per_class, changes):
    arguments = {**ARGUMENTS, **changes}
    inputs = random_boxes(2, 70, 3, per_class)
    expected = kept_naively(**inputs, **arguments)
    assert expected["num_detections"].max() < arguments["max_detections"]  # so that some are padded
    run_layer_test(
        NonMaxSuppression,
        arguments,
        inputs,
        lambda boxes, scores: kept_naively(boxes, scores, **arguments),
        float32=("boxes", "confidence"),
        differentiable=(),
    )


def suppress(boxes, scores, **arguments):
    """The detections of one image, as NumPy arrays without padding."""
    scores = np.float32([scores])
    scores = scores if scores.ndim == 3 else scores[..., None]
    found = NonMaxSuppression(**arguments)(np.float32([boxes]), scores)
    number = int(found.pop("num_detections")[0])
    assert (ops.convert_to_numpy(found["labels"])[0, number:] == -1).all()
    return {key: ops.convert_to_numpy(x)[0, :number] for key, x in found.items()}


@pytest.mark.parametrize("max_detections", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_tiles_equal_the_naive_loop(max_detections):
    inputs = random_boxes(3, 450, 2, seed=1)
    expected = kept_naively(**inputs, iou_threshold=0.7, max_detections=max_detections)
    found = NonMaxSuppression(iou_threshold=0.7, max_detections=max_detections)(**inputs)
    assert expected["num_detections"].min() > (19 if max_detections == 20 else 200)
    for key in expected:
        np.testing.assert_array_equal(ops.convert_to_numpy(found[key]), expected[key], key)


@pytest.mark.parametrize("threshold", [0, 0.25, 0.3, 0.5, 0.7])
def test_equals_torchvision(threshold):
    # fixtures/make_nms.py made what is expected; cases of one threshold are one batch.
    cases = {k: case for k, case in FIXTURES["cases"].items() if case["threshold"] == threshold}
    boxes, scores = np.zeros((len(cases), 60, 4)), np.zeros((len(cases), 60, 3))
    for i, case in enumerate(cases.values()):
        number = len(case["boxes"])
        boxes[i, :number] = case["boxes"]
        scores[i, np.arange(number), case["labels"] or 0] = case["scores"]
    layer = NonMaxSuppression(threshold, confidence_threshold=1e-6)
    found = ops.convert_to_numpy(layer(boxes, scores)["indices"])
    assert cases
    for (name, case), kept in zip(cases.items(), found, strict=True):
        assert kept[kept >= 0].tolist() == case["kept"], name


def test_a_chain_in_which_each_suppresses_the_next():
    # Only every other box stays, which a tile knows after as many repetitions as it has boxes.
    left = 4 * np.arange(300)
    boxes = np.stack([left, 0 * left, left + 10, 0 * left + 10], -1)
    found = suppress(boxes, np.linspace(1, 0.5, 300), iou_threshold=0.4, max_detections=300)
    assert found["indices"].tolist() == list(range(0, 300, 2))


def test_classes_do_not_mix():
    # Trap 9. The box of another class has the same place; one of the same class is suppressed.
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9]]
    scores = [[0.9, 0], [0, 0.8], [0.7, 0]]
    assert suppress(boxes, scores)["labels"].tolist() == [0, 1]
    assert suppress(boxes, scores, class_agnostic=True)["labels"].tolist() == [0]


def test_a_distant_box_takes_no_precision_from_the_others():
    # As moving each class's boxes to a place of its own would: the first two have an IoU of 7 / 13.
    boxes = [[0, 0, 10, 10], [3, 0, 13, 10], [1e8, 0, 1e8 + 64, 10]]
    assert suppress(boxes, [[0, 0.9], [0, 0.8], [0.7, 0]])["indices"].tolist() == [0, 2]


def test_a_box_can_be_of_two_classes():
    found = suppress([[0, 0, 10, 10], [0, 0, 10, 9]], [[0.5, 0.6], [0.7, 0]])
    assert found["labels"].tolist() == [0, 1] and found["indices"].tolist() == [1, 0]


def test_first_of_equal_scores_wins():
    boxes = np.tile(np.float32([0, 0, 10, 10]), (200, 1)) + np.arange(200)[:, None] % 2 * 100
    assert suppress(boxes, np.full(200, 0.5))["indices"].tolist() == [0, 1]
    cut = suppress(boxes + 1000 * np.arange(200)[:, None], np.full(200, 0.5), pre_nms_top_k=5)
    assert cut["indices"].tolist() == [0, 1, 2, 3, 4]


def test_no_box_is_sure_enough():
    assert (
        len(suppress([[0, 0, 10, 10]] * 3, [0.1, 0.2, np.nan], confidence_threshold=0.5)["boxes"])
        == 0
    )


def test_boxes_that_are_not_finite_are_left_out():
    boxes = [[np.nan, 0, 10, 10], [0, 0, np.inf, 10], [0, 0, 10, 10]]
    found = suppress(boxes, [0.9, 0.8, 0.7])
    assert found["indices"].tolist() == [2] and np.isfinite(found["boxes"]).all()


def test_boxes_for_other_classes_than_the_scores_are_refused():
    boxes, scores = np.zeros((1, 5, 1, 4), "float32"), np.zeros((1, 5, 3), "float32")
    with pytest.raises(ValueError, match="boxes for 1 classes, scores for 3"):
        NonMaxSuppression()(boxes, scores)


def test_no_gradient_passes():
    # Trap 6: what learns from proposals must not move them.
    inputs = random_boxes(2, 20, 1)
    ones = [np.ones((2, 20, 4), "float32"), np.ones((2, 20), "float32")]
    layer = NonMaxSuppression()
    layer(**inputs)
    for gradient in _gradients(layer, inputs, [0, 1], ones):
        assert not gradient.any()


def test_in_a_functional_model_of_any_batch():
    boxes, scores = keras.Input((30, 4)), keras.Input((30, 1))
    model = keras.Model([boxes, scores], NonMaxSuppression(max_detections=8)(boxes, scores))
    inputs = random_boxes(3, 30, 1)
    for number in (1, 3):
        cut = [x[:number] for x in inputs.values()]
        found = model.predict(cut, verbose=0)
        expected = kept_naively(*cut, max_detections=8)
        np.testing.assert_array_equal(found["indices"], expected["indices"])


def test_no_box_at_all():
    for boxes in (np.zeros((2, 0, 4), "float32"), np.zeros((2, 0, 3, 4), "float32")):
        found = NonMaxSuppression()(boxes, np.zeros((2, 0, 3), "float32"))
        assert found["boxes"].shape == (2, 0, 4) and found["labels"].shape == (2, 0)
        np.testing.assert_array_equal(ops.convert_to_numpy(found["num_detections"]), [0, 0])


def test_overlaps_by_name_and_of_shared_boxes_alone():
    boxes, scores = keras.Input((5, 4)), keras.Input((5, 3))
    found = NonMaxSuppression()(boxes, scores, overlaps=keras.Input((5, 5)))
    assert found["boxes"].shape == (None, 15, 4)
    given = random_boxes(1, 5, 3, per_class=True)
    with pytest.raises(ValueError, match="boxes that all classes share"):
        NonMaxSuppression()(**given, overlaps=np.zeros((1, 5, 5), "float32"))
