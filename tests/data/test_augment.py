import numpy as np
import pytest
from PIL import Image

from cvlib.data.augment import Augment, letterbox, render, view_geometry, visible_fraction

NEAREST = Image.Resampling.NEAREST


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def bilinear(image, x, y):
    """Value at the continuous point (x, y); a pixel's value sits at its centre."""
    x, y = np.clip(x - 0.5, 0, image.shape[1] - 1), np.clip(y - 0.5, 0, image.shape[0] - 1)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, image.shape[1] - 1), min(top + 1, image.shape[0] - 1)
    upper = image[top, left] * (1 - x + left) + image[top, right] * (x - left)
    lower = image[bottom, left] * (1 - x + left) + image[bottom, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


@pytest.mark.parametrize("view", [(0, 0, 9, 7), (1.3, 2.0, 6.1, 5.5), (7.2, 0.5, 2.4, 6.0)])
def test_enlarging_samples_bilinearly_at_the_pixels_centres(view):
    image = np.random.default_rng(0).integers(0, 256, (7, 9), np.uint8)
    height, width = 20, 24
    expected = [
        [
            bilinear(
                image.astype(float),
                view[0] + (column + 0.5) / width * (view[2] - view[0]),
                view[1] + (row + 0.5) / height * (view[3] - view[1]),
            )
            for column in range(width)
        ]
        for row in range(height)
    ]
    got = render(Image.fromarray(image), view, (height, width))
    np.testing.assert_allclose(got, expected, atol=1.01)


def test_shrinking_averages_every_pixel():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::8] = 255
    small = np.asarray(render(Image.fromarray(stripes), (0, 0, 64, 64), (8, 8)), float)
    assert small.mean() == pytest.approx(stripes.mean(), abs=2)
    assert small.min() > 0


def test_outside_the_image_is_the_fill_colour_at_the_right_place():
    image = Image.fromarray(np.full((4, 4), 200, np.uint8))
    got = np.asarray(render(image, (-2, -1, 6, 7), (8, 8), NEAREST, fill=9))
    expected = np.full((8, 8), 9)
    expected[1:5, 2:6] = 200
    np.testing.assert_array_equal(got, expected)


def test_geometry_by_hand():
    # 10 pixels from x = 2 become 20: twice as large, and x = 2 lands on 0.
    np.testing.assert_allclose(view_geometry((2, 0, 12, 5), (20, 20)), [2, 4, -4, 0])
    # The mirror image of the same view: x = 12 lands on 0.
    np.testing.assert_allclose(view_geometry((12, 0, 2, 5), (20, 20)), [-2, 4, 24, 0])


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ((0, 0, 20, 10), (0, -5, 20, 15)),
        ((0, 0, 10, 20), (-5, 0, 15, 20)),
        ((10, 0, 0, 20), (15, 0, -5, 20)),
    ],
)
def test_letterbox_is_the_smallest_square_around_the_view(view, expected):
    np.testing.assert_allclose(letterbox(view, (32, 32)), expected)


def test_visible_fraction_counts_pixels():
    grid = np.zeros((20, 20), bool)
    grid[4:16, 2:10] = True
    rows = boxes([0, 0, 8, 8], [2, 4, 10, 16], [12, 0, 18, 5])
    expected = [grid[int(b) : int(d), int(a) : int(c)].mean() for a, b, c, d in rows]
    np.testing.assert_allclose(visible_fraction(rows, (10, 4, 2, 16)), expected)


def test_crops_stay_inside_and_keep_an_object():
    augment = Augment(flip=0, scale=(0.4, 1), aspect=(0.5, 2), min_visible=0.6)
    objects = boxes([80, 10, 95, 30])
    for i in range(300):
        view = augment.view((60, 100), objects, np.random.default_rng(i))
        assert 0 <= view[0] < view[2] <= 100 and 0 <= view[1] < view[3] <= 60
        assert visible_fraction(objects, view)[0] >= 0.6


def test_an_object_that_no_crop_can_hold_gets_the_whole_image():
    augment = Augment(flip=0, scale=(0.1, 0.2), min_visible=0.9)
    view = augment.view((60, 100), boxes([0, 0, 100, 60]), np.random.default_rng(0))
    assert view == (0, 0, 100, 60)


def test_zooming_out_contains_the_image():
    augment = Augment(flip=0, scale=(1.2, 2))
    for i in range(50):
        x1, y1, x2, y2 = augment.view((60, 100), boxes(), np.random.default_rng(i))
        assert x1 <= 0 and y1 <= 0 and x2 >= 100 and y2 >= 60
        assert 1.2 <= (x2 - x1) / 100 <= 2


def test_flip_probability():
    views = [Augment(0.25).view((4, 4), (), np.random.default_rng(i)) for i in range(2000)]
    assert np.mean([view[0] > view[2] for view in views]) == pytest.approx(0.25, abs=0.03)


def test_colours_follow_their_definitions():
    image = Image.fromarray(np.random.default_rng(0).integers(60, 190, (8, 8, 3), np.uint8))
    pixels = np.asarray(image, float)
    grey = (pixels * [0.299, 0.587, 0.114]).sum(-1, keepdims=True)

    class Highest:
        """A generator whose every draw is the upper end."""

        def uniform(self, low, high):
            return np.broadcast_to(high, np.shape(low))

    for augment, expected in [
        (Augment(brightness=0.2), pixels * 1.2),
        (Augment(contrast=0.2), 128 + (pixels - 128) * 1.2),
        (Augment(saturation=0.2), grey + (pixels - grey) * 1.2),
        (Augment(), pixels),
    ]:
        got = augment.color(image, Highest())
        np.testing.assert_allclose(got, np.clip(expected, 0, 255), atol=1.01)
