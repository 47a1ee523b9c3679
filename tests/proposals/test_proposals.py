"""What holds for every method."""

import sys

import numpy as np
import pytest

from cvlib import masks
from cvlib.data import load
from cvlib.metrics import ProposalRecall
from cvlib.proposals import (
    EdgeBoxes,
    OpenCVSelectiveSearch,
    RandomBoxes,
    SelectiveSearch,
    SlidingWindows,
    Superpixels,
)
from cvlib.proposals.proposals import ranked

METHODS = [
    SlidingWindows(overlaps=(0.2, 0.5)),
    RandomBoxes(count=50),
    Superpixels(),
    Superpixels("slic", masks=True),
    SelectiveSearch("single"),
    SelectiveSearch("fast", masks=True),
    EdgeBoxes(count=100),
    OpenCVSelectiveSearch(),
]
names = pytest.mark.parametrize("method", METHODS, ids=repr)


@pytest.fixture(autouse=True)
def _opencv(request):
    if "OpenCV" in request.node.name and "absent" not in request.node.name:
        pytest.importorskip("cv2.ximgproc")


def check(method, image):
    proposals = method(image)
    boxes, scores = proposals.boxes, proposals.scores
    height, width = image.shape[:2]
    assert boxes.dtype == scores.dtype == np.float32
    assert boxes.shape == (len(scores), 4) == (len(proposals), 4)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (width, height)).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (np.diff(scores) <= 0).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    if getattr(method, "masks", False):
        assert all(masks.is_complete(mask) for mask in proposals.masks)
        assert all(mask["size"] == [height, width] for mask in proposals.masks)
        np.testing.assert_array_equal(masks.to_boxes(proposals.masks), boxes)
    else:
        assert proposals.masks is None
    return proposals


@names
def test_boxes_are_inside_sorted_unique_and_those_of_the_masks(method, picture):
    assert len(check(method, picture)) > 3


@names
def test_equal_calls_give_equal_proposals(method, picture):
    a, b = method(picture), method(picture)
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)


@pytest.mark.parametrize("method", [RandomBoxes, SelectiveSearch, OpenCVSelectiveSearch])
def test_seeds_draw_differently(method, picture):
    assert not np.array_equal(method(seed=0)(picture).boxes, method(seed=1)(picture).boxes)


@pytest.mark.parametrize(
    "method, least",
    [
        (Superpixels(), 0.8),
        (SelectiveSearch("single"), 0.8),
        (SelectiveSearch("fast"), 0.8),
        (OpenCVSelectiveSearch("fast"), 0.6),
        (EdgeBoxes(), 0.8),
        (SlidingWindows(smallest=12), 0.6),
    ],
    ids=repr,
)
def test_plain_objects_are_found(method, least, picture, objects):
    truth = [{"boxes": objects, "labels": np.zeros(3, int)}]
    recall = ProposalRecall((least,), (10**6,))
    recall.update_state(truth, [method(picture).boxes])
    assert recall.result()["recall"].item() == 1


@names
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (40, 30)])
def test_one_colour_and_one_pixel(method, size):
    image = np.full((*size, 3), 77, np.uint8)
    proposals = check(method, image)
    if isinstance(method, EdgeBoxes):
        assert len(proposals) == 0
    elif "Search" in repr(method) or method == Superpixels():
        assert [0, 0, size[1], size[0]] in proposals.boxes.tolist()


@names
def test_grey_is_three_equal_channels_and_alpha_is_dropped(method, picture):
    grey = picture[..., 1]
    expected = method(np.repeat(grey[..., None], 3, axis=2)).boxes
    np.testing.assert_array_equal(method(grey).boxes, expected)
    np.testing.assert_array_equal(method(grey[..., None]).boxes, expected)
    alpha = np.concatenate([picture, grey[..., None]], axis=2)
    np.testing.assert_array_equal(method(alpha).boxes, method(picture).boxes)


@names
@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5, 3), np.float32),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((4, 5, 2), np.uint8),
        np.zeros((1, 4, 5, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_what_is_no_image_is_refused(method, image):
    with pytest.raises(ValueError, match="proposals are made for uint8"):
        method(image)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SelectiveSearch("slow"),
        lambda: OpenCVSelectiveSearch("slow"),
        lambda: Superpixels("slow"),
    ],
)
def test_an_unknown_variant_is_refused(make):
    with pytest.raises(ValueError, match="'slow' must be one of"):
        make()


def test_an_absent_opencv_is_named_with_its_cure(monkeypatch, picture):
    monkeypatch.setitem(sys.modules, "cv2.ximgproc", None)
    with pytest.raises(ImportError, match="pip install opencv-contrib-python-headless"):
        OpenCVSelectiveSearch()(picture)


def test_of_equal_boxes_the_best_is_kept():
    a, b = [0, 0, 1, 1], [0, 0, 2, 2]
    proposals = ranked([a, b, a, b], [1, 2, 3, 2], list("wxyz"))
    np.testing.assert_array_equal(proposals.boxes, [a, b])
    np.testing.assert_array_equal(proposals.scores, [3, 2])
    assert proposals.masks == ["y", "x"]


def test_selective_search_finds_what_opencvs_finds():
    pytest.importorskip("cv2.ximgproc")
    test = load("scenes", "test")[:200:20]
    found = {}
    for method in (SelectiveSearch("fast"), OpenCVSelectiveSearch("fast")):
        recall = ProposalRecall((0.5,), (1000,))
        for sample in test:
            recall.update_state([sample], [method(sample["image"]).boxes])
        found[type(method)] = recall.result()["recall"].item()
    assert found[SelectiveSearch] > 0.9
    assert found[SelectiveSearch] >= found[OpenCVSelectiveSearch] - 0.05
