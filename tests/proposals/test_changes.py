import itertools

import numpy as np
import pytest

from cvlib.proposals import CHANGES, repeatability


@pytest.mark.parametrize("name", CHANGES)
def test_objects_of_the_changed_picture_come_back_where_they_were(name, picture, objects):
    change, amount = CHANGES[name]
    changed, back = change(picture, amount)
    assert changed.dtype == np.uint8 and changed.shape[2] == 3
    # The red disc in the changed picture.
    red = (changed[..., 0] > 1.7 * changed[..., 1]) & (changed[..., 0] > 100)
    y, x = np.nonzero(red)
    box = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], np.float32)
    np.testing.assert_allclose(back(box), objects[:1], atol=2.5)


def test_the_picture_is_changed(picture):
    for change, amount in CHANGES.values():
        changed, _ = change(picture, amount)
        same = changed.shape == picture.shape and np.array_equal(changed, picture)
        assert not same


@pytest.mark.parametrize("name", ["scale 0.8", "rotation 5 degrees", "blur 1 pixel"])
def test_a_picture_does_not_become_darker(name):
    change, amount = CHANGES[name]
    y, x = np.mgrid[:64, :64]
    picture = np.stack([100 + x, 60 + 2 * y, 40 + x + y], axis=2)
    picture = (picture + np.random.default_rng(0).integers(-8, 9, picture.shape)).astype(np.uint8)
    changed, _ = change(picture, amount)
    inner = (slice(8, -8), slice(8, -8))
    assert abs(changed[inner].mean() - picture[inner].mean()) < 0.25


def test_repeatability_is_that_of_the_best_pairing():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 20, (2, 5, 2))
    before, after = np.concatenate([corner, corner + rng.uniform(10, 30, (2, 5, 2))], axis=2)

    def iou(a, b):
        w, h = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
        return w * h / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - w * h)

    best = max(
        sum(iou(a, after[j]) for a, j in zip(before, order, strict=True))
        for order in itertools.permutations(range(5))
    )
    assert repeatability(before, after) == pytest.approx(best / 5)
    assert repeatability(before, before[::-1]) == pytest.approx(1)
    assert repeatability(before, before[:2]) == pytest.approx(2 / 5)
    assert repeatability(before, np.zeros((0, 4))) == 0
