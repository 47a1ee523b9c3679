import keras
import numpy as np
import pytest

from cvlib.layers import RoIPooling

from . import roi_fixtures
from .harness import _gradients, run_layer_test


def rounded(x):
    """Half away from zero, as C's `round`."""
    return int(np.floor(abs(x) + 0.5)) * (1 if x > 0 else -1)


def bins_naively(features, box, size, stride):
    """Yields (i, j, cells of bin (i, j) in row-major order)."""
    x1, y1, x2, y2 = (rounded(v / stride) for v in box.astype("float64"))
    high, wide = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
    for i, j in np.ndindex(*size):
        rows = range(y1 + i * high // size[0], y1 - (-(i + 1) * high // size[0]))
        columns = range(x1 + j * wide // size[1], x1 - (-(j + 1) * wide // size[1]))
        inside = [(y, x) for y in rows if 0 <= y < len(features) for x in columns]
        yield i, j, [(y, x) for y, x in inside if 0 <= x < features.shape[1]]


def pooled_naively(size, stride):
    def pool(features, boxes):
        result = np.zeros((*boxes.shape[:2], *size, features.shape[-1]), "float32")
        for b, r in np.ndindex(*boxes.shape[:2]):
            for i, j, cells in bins_naively(features[b], boxes[b, r], size, stride):
                if cells:
                    result[b, r, i, j] = np.max([features[b][cell] for cell in cells], axis=0)
        return result

    return pool


def distinct(*shape):
    """Values that differ by at least 0.1, so that no maximum is near a tie."""
    values = np.random.default_rng(0).permutation(int(np.prod(shape)))
    return (0.1 * values).reshape(shape).astype("float32")


# No coordinate is at a rounding threshold: inside, wider than two runs of columns, across the
# border, over all and beyond, wholly outside, mirrored, smaller than a cell.
BOXES = np.float32(
    [
        [
            [9.3, 4.7, 41.1, 20.4],
            [-20.2, 3.3, 59.6, 30.1],
            [-300, -200, 700, 900],
            [9, 9, 9.5, 9.5],
        ],
        [[1, 2, 55, 39], [30.3, 20.1, 3.1, 4.8], [200, 200, 240, 230], [27.3, -40.3, 70.4, 12.6]],
    ]
)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(2, 3), (7, 7)])
def test_layer(size):
    run_layer_test(
        RoIPooling,
        {"size": size, "stride": 8},
        {"features": distinct(2, 5, 7, 2), "boxes": BOXES},
        pooled_naively(size, 8),
        float32=("boxes",),
        differentiable=("features",),
    )


@pytest.mark.parametrize("name", roi_fixtures.names("roi_pool"))
def test_equals_torchvision(name):
    roi_fixtures.check(name, RoIPooling)


def test_bfloat16_does_not_move_the_boxes():
    # 302 / 4 = 75.5 is the last cell but 76; bfloat16 would read 302 as 302, and 301.7 as 302.
    features = np.arange(80, dtype="float32").reshape(1, 1, 80, 1)
    boxes = np.float32([[[4, 0, 301.7, 0]]])
    layer = RoIPooling((1, 1), 4, dtype="mixed_bfloat16")
    assert float(layer(features, boxes)[0, 0, 0, 0, 0]) == 75


def test_gradients_of_many_boxes_are_summed_in_float32():
    features = np.zeros((1, 2, 2, 1), "float32")
    boxes = np.zeros((1, 64, 4), "float32")
    upstream = np.ones((1, 64, 7, 7, 1), "float32")
    layer = RoIPooling(dtype="mixed_bfloat16")
    layer(features, boxes)
    gradient, *_ = _gradients(layer, {"boxes": boxes, "features": features}, [1], [upstream])
    # In bfloat16 the sum of ones ends at 256.
    np.testing.assert_array_equal(gradient.ravel(), [64 * 49, 0, 0, 0])


def test_halves_round_away_from_zero():
    # Cells 2.5 and -0.5 are 3 and -1, not 2 and 0 as Python has it; the end is inclusive.
    features = np.arange(8, dtype="float32").reshape(1, 1, 8, 1)
    boxes = np.float32([[[-2, 0, 10, 0], [10, 0, 10, 0], [6, 0, 10, 0]]])
    pooled = keras.ops.convert_to_numpy(RoIPooling((1, 1), 4)(features, boxes))
    np.testing.assert_array_equal(pooled.ravel(), [3, 3, 3])
    # From -1 to 3 are five cells, so that the first of five bins is outside the map: -2 / 4 rounded
    # to zero would make them four.
    pooled = keras.ops.convert_to_numpy(RoIPooling((1, 5), 4)(features + 1, boxes[:, :1]))
    np.testing.assert_array_equal(pooled.ravel(), [0, 1, 2, 3, 4])
    # A hair below a half is 0; with a half added it would be 1 in float32.
    below = np.nextafter(np.float32(2), np.float32(0))
    boxes = np.float32([[[below, 0, below, 0]]])
    pooled = keras.ops.convert_to_numpy(RoIPooling((1, 1), 4)(features, boxes))
    assert pooled.ravel() == [0]


def test_bins_share_cells():
    features = np.float32([0, 1, 5, 2, 3]).reshape(1, 1, 5, 1)
    pooled = RoIPooling((1, 2), 1)(features, np.float32([[[0, 0, 4, 0]]]))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(pooled).ravel(), [5, 5])


def test_gradient_goes_to_the_first_maximum_of_all():
    """Ties everywhere, also between the two runs of columns and between rows and columns."""
    rng = np.random.default_rng(1)
    features = rng.integers(0, 3, (2, 9, 13, 2)).astype("float32")
    corners = rng.uniform(-30, 130, (2, 20, 2, 2))
    boxes = np.sort(corners, axis=2).reshape(2, 20, 4).astype("float32")
    layer = RoIPooling((3, 2), 8)
    upstream = rng.standard_normal((2, 20, 3, 2, 2)).astype("float32")
    expected = np.zeros_like(features)
    for b, r, c in np.ndindex(2, 20, 2):
        for i, j, cells in bins_naively(features[b], boxes[b, r], (3, 2), 8):
            if cells:
                first = cells[np.argmax([features[b][cell][c] for cell in cells])]
                expected[b][(*first, c)] += upstream[b, r, i, j, c]
    assert layer(features, boxes).shape == upstream.shape
    gradient, *_ = _gradients(layer, {"boxes": boxes, "features": features}, [1], [upstream])
    np.testing.assert_allclose(gradient, expected, atol=1e-4)


def test_boxes_of_nan_and_infinity():
    features = np.ones((1, 4, 4, 1), "float32")
    nan, inf = np.nan, np.inf
    boxes = np.float32([[[nan, nan, nan, nan], [-inf, -inf, inf, inf], [0, 0, 1e30, 1e30]]])
    layer = RoIPooling((1, 1), 4)
    pooled = keras.ops.convert_to_numpy(layer(features, boxes))
    np.testing.assert_array_equal(pooled.ravel(), [0, 1, 1])


def test_maps_and_numbers_of_boxes_that_are_unknown():
    features, boxes = keras.Input((None, None, 2)), keras.Input((None, 4))
    model = keras.Model([features, boxes], RoIPooling((2, 3), 8)(features, boxes))
    assert model.output_shape == (None, None, 2, 3, 2)
    maps = distinct(2, 5, 7, 2)
    for count in (4, 3):
        found = model.predict([maps[:, : count + 1], BOXES[:, :count]], verbose=0)
        expected = pooled_naively((2, 3), 8)(maps[:, : count + 1], BOXES[:, :count])
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("images", "count"), [(2, 0), (0, 4), (0, 0)])
def test_no_boxes_or_no_images(images, count):
    found = RoIPooling((2, 3), 8)(distinct(2, 5, 7, 2)[:images], np.zeros((images, count, 4)))
    assert found.shape == (images, count, 2, 3, 2)
