import keras
import numpy as np
import pytest

from cvlib.layers import BoxMerging

from .harness import run_layer_test


def random_boxes(batch, number, classes, seed=0):
    """Boxes in clusters, and scores, of which some are low."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(1, 3, (batch, number, 2)) * 40 + rng.normal(0, 6, (batch, number, 2))
    sides = rng.uniform(30, 50, (batch, number, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1)
    scores = rng.dirichlet(np.full(classes, 0.3), (batch, number)) * rng.random((batch, number, 1))
    return {"boxes": boxes.astype("float32"), "scores": scores.astype("float32")}


def match_score(a, b):
    intersection = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    areas = [np.prod(x[2:] - x[:2]) for x in (a, b)]
    distance = np.hypot(*((a[:2] + a[2:]) / 2 - (b[:2] + b[2:]) / 2))
    diagonal = (np.hypot(*(a[2:] - a[:2])) + np.hypot(*(b[2:] - b[:2]))) / 2
    return distance / diagonal + 1 - intersection / (sum(areas) - intersection)


def merged_naively(boxes, scores, threshold, max_windows, confidence_threshold):
    """The paper's algorithm with lists, the merged box from scratch out of all its parts."""
    batch, number, _ = boxes.shape
    K = min(number, max_windows)
    result = {
        "boxes": np.zeros((batch, K, 4), "float32"),
        "confidence": np.zeros((batch, K), "float32"),
        "labels": np.full((batch, K), -1),
        "num_detections": np.zeros(batch, int),
    }
    for image in range(batch):
        best = scores[image].max(-1)
        order = [i for i in np.argsort(-best, kind="stable")[:K] if best[i] >= confidence_threshold]
        groups = [[i] for i in order]

        def mean(group, image=image, best=best):
            return np.average(boxes[image, group], axis=0, weights=best[group])

        def label(group, image=image):
            return scores[image, group[0]].argmax()

        while True:
            pairs = [
                (match_score(mean(a), mean(b)), i, j)
                for i, a in enumerate(groups)
                for j, b in enumerate(groups)
                if i < j and label(a) == label(b)
            ]
            if not pairs or min(pairs)[0] > threshold:
                break
            _, i, j = min(pairs)
            groups[i] += groups.pop(j)
        groups.sort(key=lambda group: -best[group].sum())
        result["num_detections"][image] = len(groups)
        for k, group in enumerate(groups):
            total = best[group].sum()
            result["boxes"][image, k] = mean(group)
            result["confidence"][image, k] = total / (1 + total)
            result["labels"][image, k] = label(group)
    return result


@pytest.mark.parametrize("max_windows", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_layer(max_windows):
    arguments = {"threshold": 1.0, "max_windows": max_windows, "confidence_threshold": 0.05}
    expected = merged_naively(**random_boxes(3, 20, 2), **arguments)
    assert 1 < expected["num_detections"].min() < expected["num_detections"].max() < 12
    run_layer_test(
        BoxMerging,
        arguments,
        random_boxes(3, 20, 2),
        lambda boxes, scores: merged_naively(boxes, scores, **arguments),
        float32=("boxes", "confidence"),
        differentiable=(),
    )


def merge(boxes, scores, **arguments):
    boxes, scores = np.float32([boxes]), np.float32([scores])
    return keras.tree.map_structure(
        lambda x: keras.ops.convert_to_numpy(x)[0], BoxMerging(**arguments)(boxes, scores)
    )


def test_the_mean_is_weighted_and_the_scores_add_up():
    found = merge([[0, 0, 10, 10], [0, 2, 10, 12]], [[0.9, 0], [0.3, 0]])
    np.testing.assert_allclose(found["boxes"], [[0, 0.5, 10, 10.5], [0, 0, 0, 0]], atol=1e-5)
    np.testing.assert_allclose(found["confidence"], [1.2 / 2.2, 0], rtol=1e-6)
    assert found["labels"].tolist() == [0, -1] and found["num_detections"] == 1


def test_two_unsure_windows_that_agree_come_before_a_sure_one():
    boxes = [[50, 50, 60, 60], [0, 0, 10, 10], [0, 1, 10, 11]]
    found = merge(boxes, [[0, 0.9], [0.6, 0], [0.6, 0]])
    assert found["labels"].tolist() == [0, 1, -1]


def test_other_classes_and_distant_boxes_stay_apart():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10], [20, 0, 30, 10]]
    found = merge(boxes, [[0.9, 0], [0, 0.8], [0.7, 0]])
    assert found["num_detections"] == 3
    np.testing.assert_allclose(found["boxes"], boxes)
    assert merge(boxes, [[0.9, 0]] * 3, threshold=-1)["num_detections"] == 3


def test_no_box_is_sure_enough():
    found = merge([[0, 0, 10, 10]] * 2, [[0.1], [0.2]], confidence_threshold=0.5)
    assert found["num_detections"] == 0 and (found["labels"] == -1).all()


def test_empty_boxes_do_no_harm():
    found = merge([[5, 5, 5, 5]] * 3, [[0.5]] * 3, threshold=2)
    assert found["num_detections"] == 1
    np.testing.assert_allclose(found["boxes"][0], [5, 5, 5, 5], rtol=1e-6)


@pytest.mark.parametrize("score", [0.0, 0.9])
def test_boxes_that_are_not_finite_are_none(score):
    boxes = np.float32([[[0, 0, 10, 10], [0, 2, 10, 12], [np.nan] * 4, [np.inf] * 4]])
    scores = np.float32([[[0.9], [0.8], [score], [score]]])
    whole = BoxMerging()(boxes[:, :2], scores[:, :2])
    found = BoxMerging()(boxes, scores)
    assert int(found["num_detections"][0]) == 1
    for key in ("boxes", "confidence"):
        first = (keras.ops.convert_to_numpy(x[key])[0, 0] for x in (found, whole))
        np.testing.assert_allclose(*first)


def test_of_equal_scores_the_first_come_first():
    boxes = 100 * np.arange(6, dtype="float32")[None, :, None] + np.float32([0, 0, 10, 10])
    found = BoxMerging(max_windows=4)(boxes, np.ones((1, 6, 1), "float32"))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(found["boxes"]), boxes[:, :4])
