import numpy as np
import pytest

from cvlib.proposals import RandomBoxes, SlidingWindows
from cvlib.proposals.windows import sliding_windows


def iou(a, b):
    both = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    both = np.maximum(both, 0).prod(-1)
    return both / ((a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - both)


@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.65])
def test_neighbours_overlap_as_asked(overlap):
    windows = sliding_windows(96, 128, overlap, smallest=32)
    sizes = windows[:, 2:] - windows[:, :2]
    # Windows of one shape in one row: those side by side.
    small = windows[np.all(np.isclose(sizes, 32), axis=1)]
    row = small[np.isclose(small[:, 1], small[:, 1].min())]
    row = row[np.argsort(row[:, 0])]
    assert iou(row[:-1], row[1:]).min() >= overlap - 1e-6
    # And every box of a covered size and shape has a window near it.
    rng = np.random.default_rng(0)
    side = rng.uniform(32, 90, 200)
    corner = rng.random((200, 2)) * (np.array([128, 96]) - side[:, None])
    squares = np.hstack([corner, corner + side[:, None]])
    assert iou(squares[:, None], windows).max(axis=1).min() > overlap


def test_coarse_grids_come_first_and_large_windows_first_within_them():
    image = np.zeros((96, 128, 3), np.uint8)
    coarse, fine = SlidingWindows((0.2,))(image).boxes, SlidingWindows((0.2, 0.5))(image).boxes
    np.testing.assert_array_equal(fine[: len(coarse)], coarse)
    areas = (coarse[:, 2:] - coarse[:, :2]).prod(axis=1)
    assert (np.diff(areas) <= 1).all() and areas[0] > 4 * areas[-1]


def test_random_boxes_take_only_the_size_from_the_image(picture):
    boxes = RandomBoxes(200)(picture).boxes
    np.testing.assert_array_equal(boxes, RandomBoxes(200)(255 - picture).boxes)
    assert len(boxes) == 200
    longer = RandomBoxes(400, smallest=30)(picture).boxes
    assert (longer[:, 2:] - longer[:, :2]).max() > 40
