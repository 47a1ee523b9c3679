import itertools

import numpy as np
import pytest
from scipy import ndimage

from cvlib.data import load
from cvlib.proposals import EdgeBoxes
from cvlib.proposals import edge_boxes as eb


def test_edges_are_thin_and_know_their_direction():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 20:] = 200
    magnitude, orientation = eb.edges(image)
    inside = magnitude[1:-1]
    assert (np.count_nonzero(inside, axis=1) <= 2).all() and (inside.max(axis=1) == 1).all()
    rows, columns = np.nonzero(magnitude)
    assert set(columns) <= {19, 20}
    np.testing.assert_allclose(np.abs(np.sin(orientation[rows, columns])), 1, atol=1e-6)
    image = image.swapaxes(0, 1)
    magnitude, orientation = eb.edges(image)
    np.testing.assert_allclose(np.sin(orientation[np.nonzero(magnitude)]), 0, atol=1e-6)


def test_groups_are_connected_and_turn_little(picture):
    magnitude, orientation = eb.edges(picture)
    labels = eb.label_edges(magnitude, orientation)
    np.testing.assert_array_equal(labels >= 0, magnitude > 0)
    for i in range(labels.max() + 1):
        assert ndimage.label(labels == i, np.ones((3, 3)))[1] == 1
    # A square's sides differ in direction by more than a group may turn.
    square = np.zeros((60, 60, 3), np.uint8)
    square[15:45, 15:45] = 255
    groups = eb.label_edges(*eb.edges(square))
    assert groups[30, 14:17].max() != groups[14:17, 30].max()


def test_small_groups_join_the_neighbour_that_turns_least():
    labels = np.full((9, 9), -1)
    labels[1, 1:4], labels[2:6, 4], labels[1, 4:6], labels[7, 7] = 0, 1, 2, 3
    magnitude = np.where(labels == 2, 0.1, 0.3) * (labels >= 0)
    orientation = np.zeros((9, 9))
    orientation[labels == 1], orientation[labels == 2] = np.pi / 2, np.pi - 0.1
    expected = labels.copy()
    expected[1, 4] = 0  # it turns by 0.1 from this one, across the half circle
    expected[1, 5] = 1  # next to this one alone
    expected[7, 7] = -1  # next to none
    np.testing.assert_array_equal(eb.absorb(labels, magnitude, orientation), expected)


def test_a_contour_that_leaves_the_image_speaks_for_the_box_that_ends_there():
    image = np.full((60, 60, 3), 100, np.uint8)
    image[20:40, :30] = 220
    groups = eb.edge_groups(*eb.edges(image))
    box = np.array([[0, 17, 33, 43]])
    assert eb.score(groups, box) == eb.bounds(groups, box) > 0
    assert eb.score(groups, box + [4, 0, 4, 0]) < 0.5 * eb.score(groups, box)


def test_affinity_of_collinear_and_of_crossing_groups():
    labels = np.full((20, 20), -1)
    labels[5, 2:8], labels[5, 9:15], labels[7:13, 8] = 0, 1, 2
    centre = np.array([[4, 5], [12, 5], [8, 10]])
    first, second, affinity = eb.affinities(labels, centre, np.array([0, 0, np.pi / 2]))
    found = dict(zip(zip(first.tolist(), second.tolist(), strict=True), affinity, strict=True))
    assert found[0, 1] == pytest.approx(1)
    # Across: |cos(l) cos(pi / 2 - l)|^2 with the line l between the centres.
    line = np.arctan2(5, 4)
    assert found[0, 2] == pytest.approx((np.cos(line) * np.sin(line)) ** 2)
    labels[5, 9:12] = -1
    assert (0, 1) not in zip(*eb.affinities(labels, centre, np.zeros(3))[:2], strict=True)


def test_paths_multiply_and_the_best_counts():
    first, second = np.array([0, 1, 0, 2]), np.array([1, 2, 2, 3])
    found = eb.paths(first, second, np.array([0.9, 0.8, 0.5, 0.1]), 5).toarray()
    expected = np.eye(5)
    for i, j, value in ((0, 1, 0.9), (1, 2, 0.8), (0, 2, 0.72), (2, 3, 0.1), (1, 3, 0.08)):
        expected[i, j] = expected[j, i] = value
    expected[0, 3] = expected[3, 0] = 0.072
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert eb.paths(first, second, np.array([0.9, 0.8, 0.5, 0.06]), 5)[0, 3] == 0  # below 0.05


def brute_score(box, magnitude, labels, groups):
    """The score of one box, from the definition."""
    x1, y1, x2, y2 = box
    border = np.zeros(labels.shape, bool)
    border[y1:y2, x1:x2] = True
    border[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] = False
    crossed = set(labels[border].tolist()) - {-1}
    paths = groups.paths.toarray()
    total = 0
    for i, (x, y) in enumerate(groups.centre):
        if x1 <= x < x2 and y1 <= y < y2:
            total += groups.mass[i] * (1 - max((paths[s, i] for s in crossed), default=0))
    w, h = x2 - x1, y2 - y1
    inner = magnitude[y1 + h // 4 : y2 - h // 4, x1 + w // 4 : x2 - w // 4].sum()
    return (total - inner) / (2 * (w + h) ** 1.5)


@pytest.fixture
def found(picture):
    magnitude, orientation = eb.edges(picture)
    groups = eb.edge_groups(magnitude, orientation)
    labels = eb.absorb(eb.label_edges(magnitude, orientation), magnitude, orientation)
    return magnitude.astype(float) * (labels >= 0), labels, groups


def random_boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    corner = np.stack([rng.integers(0, 100, count), rng.integers(0, 70, count)], axis=1)
    size = rng.integers(4, 60, (count, 2))
    return np.hstack([corner, np.minimum(corner + size, (128, 96))])


def test_scores_equal_brute_force(found):
    boxes = random_boxes(200)
    expected = [brute_score(box, *found) for box in boxes]
    np.testing.assert_allclose(eb.score(found[2], boxes), expected, atol=1e-9)
    assert max(expected) > 0 and len(found[2].mass) > 5


def test_bounds_are_never_below_the_scores_and_best_finds_the_best(found, monkeypatch):
    groups = found[2]
    boxes = random_boxes(800)
    scores = eb.score(groups, boxes)
    assert (eb.bounds(groups, boxes) >= scores - 1e-9).all()
    monkeypatch.setattr(eb, "CHUNK", 50)
    _, top = eb.best(groups, boxes, 20)
    np.testing.assert_allclose(top, np.sort(scores)[::-1][:20])


def test_refining_raises_scores_and_stays_inside(found):
    groups = found[2]
    boxes, scores = eb.best(groups, random_boxes(300), 50)
    after, better = eb.refine(groups, boxes, scores, 0.65, 96, 128)
    assert (better >= scores).all() and better.sum() > scores.sum()
    np.testing.assert_allclose(eb.score(groups, after), better)
    assert (after >= 0).all() and (after[:, 2:] <= (128, 96)).all()


def test_suppression_equals_a_loop():
    boxes = random_boxes(150).astype(float)
    scores = np.random.default_rng(1).random(150)

    def iou(a, b):
        w = min(a[2], b[2]) - max(a[0], b[0])
        h = min(a[3], b[3]) - max(a[1], b[1])
        both = max(w, 0) * max(h, 0)
        return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)

    kept = []
    for i in sorted(range(150), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j]) <= 0.4 for j in kept):
            kept.append(i)
    np.testing.assert_array_equal(eb.suppress(boxes, scores, 0.4, 150), kept)
    np.testing.assert_array_equal(eb.suppress(boxes, scores, 0.4, 7), kept[:7])


def test_no_two_boxes_overlap_more_than_beta(picture):
    boxes = EdgeBoxes(beta=0.5)(picture).boxes
    for a, b in itertools.combinations(boxes, 2):
        w, h = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        both = max(w, 0) * max(h, 0)
        assert both <= 0.5 * (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both) + 1e-3


def test_there_are_as_many_boxes_as_asked_for_where_there_are_edges():
    assert len(EdgeBoxes()(load("scenes:large", "test")[0]["image"])) == 1000


@pytest.mark.parametrize("seed", [0, 50, 100])
def test_scores_agree_with_opencvs(seed):
    ximgproc = pytest.importorskip("cv2.ximgproc")
    image = load("scenes", "test")[seed]["image"]
    magnitude, orientation = eb.edges(image)
    peer = ximgproc.createEdgeBoxes()
    peer.setMaxBoxes(1000)
    # Orientations there are those of the gradient.
    normal = np.mod(orientation + np.pi / 2, np.pi)
    boxes, scores = peer.getBoundingBoxes(magnitude.astype("float32"), normal.astype("float32"))
    # A box there is (x + 1, y + 1, width - 1, height - 1).
    boxes = np.hstack([boxes[:, :2] - 1, boxes[:, :2] + boxes[:, 2:]])
    ours = eb.score(eb.edge_groups(magnitude, orientation), np.clip(boxes, 0, 128))
    assert np.corrcoef(ours, np.ravel(scores))[0, 1] > 0.9
