import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cvlib.metrics.proposal_recall import ProposalRecall
from cvlib.proposals import RandomBoxes, propose

A, B = [0, 0, 10, 10], [20, 0, 30, 10]


def recall(y_true, proposals, **kwargs):
    metric = ProposalRecall(**kwargs)
    metric.update_state(y_true, proposals)
    return metric.result()


def objects(*boxes, **kwargs):
    return {"boxes": np.reshape(boxes, (-1, 4)), "labels": [0] * len(boxes)} | kwargs


def test_hand_worked_table():
    # IoU with A: 0.6, then 0.9; with B: 0.5, at the third place.
    proposals = [[0, 0, 10, 6], [0, 0, 10, 9], [20, 0, 30, 5]]
    result = recall([objects(A, B)], [np.array(proposals)], budgets=(1, 2, 3))
    assert_allclose(result["recall"], [[0.5, 0], [0.5, 0.5], [1, 0.5]])
    assert_allclose(result["average_recall"], [(0.6 - 0.5), (0.9 - 0.5), (0.9 - 0.5)])


def test_a_proposal_covers_one_object():
    near_a = [0, 1, 10, 11]
    result = recall([objects(A, near_a)], [np.array([A, B])])
    assert_allclose(result["recall"], [[0.5, 0.5]] * 3)
    result = recall([objects(A, near_a)], [np.array([A, A])])
    assert_allclose(result["recall"], [[1, 1]] * 3)


def test_pairs_are_formed_from_the_highest_iou_down_and_average_recall_is_an_integral():
    rng = np.random.default_rng(0)
    truth, proposals, covered = [], [], []
    for _ in range(5):
        corner = rng.uniform(0, 60, (6, 2))
        truth.append(objects(*np.hstack([corner, corner + rng.uniform(10, 40, (6, 2))])))
        proposals.append(truth[-1]["boxes"][rng.integers(0, 6, 9)] + rng.uniform(-4, 4, (9, 4)))
        pairs = []
        for (i, a), (j, b) in itertools.product(
            enumerate(truth[-1]["boxes"]), enumerate(proposals[-1])
        ):
            w, h = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
            if w > 0 and h > 0:
                union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - w * h
                pairs.append((w * h / union, i, j))
        of_object, used = dict.fromkeys(range(6), 0), set()
        for iou, i, j in sorted(pairs, reverse=True):
            if not of_object[i] and j not in used:
                of_object[i] = iou
                used.add(j)
        covered += of_object.values()
    result = recall(truth, proposals, budgets=(9,), iou_thresholds=(0.5, 0.7, 0.8))
    expected = [np.mean(np.array(covered) >= t) for t in (0.5, 0.7, 0.8)]
    assert_allclose(result["recall"], [expected])
    steps = np.linspace(0.5, 1, 20001)
    mean = np.mean([np.mean(np.array(covered) >= t) for t in steps])
    assert_allclose(result["average_recall"], mean, atol=1e-4)


def test_it_takes_what_proposals_are():
    images = [np.zeros((40, 60, 3), np.uint8)] * 2
    found = propose(images, RandomBoxes(50), workers=1)
    truth = [objects(A), objects(A, B)]
    expected = recall(truth, [proposals.boxes for proposals in found], budgets=(10, 50))
    result = recall(truth, found, budgets=(10, 50))
    assert_allclose(result["recall"], expected["recall"])
    assert result["recall"].max() > 0


def test_difficult_and_crowd_are_left_out_and_batches_stream():
    first = objects(A, B, difficult=[True, False])
    second = objects(A, B, crowd=[False, True])
    metric = ProposalRecall()
    assert np.isnan(metric.result()["recall"]).all()
    metric.update_state([first], [np.array([A])])
    assert_allclose(metric.result()["recall"], np.zeros((3, 2)))
    batch = {"boxes": np.full((2, 3, 4), -1.0), "labels": np.full((2, 3), -1)}
    batch["boxes"][0, :2], batch["labels"][0, :2] = [A, B], 0
    batch["crowd"] = np.array([[0, 1, 0], [0, 0, 0]])
    metric.update_state(batch, np.array([[A, [-1] * 4], [B, A]]))
    assert_allclose(metric.result()["recall"], np.full((3, 2), 0.5))
    metric.reset_state()
    metric.update_state([second], [np.zeros((0, 4))])
    assert_allclose(metric.result()["average_recall"], 0)


@pytest.mark.parametrize(
    "proposals, message",
    [
        ([np.zeros((2, 5))], r"image 0 are \(2, 5\)"),
        ([np.full((1, 4), np.nan)], "image 0 is not finite"),
        ([], "y_true holds 1 images, but proposals 0"),
    ],
)
def test_bad_proposals(proposals, message):
    with pytest.raises(ValueError, match=message):
        recall([objects(A)], proposals)
