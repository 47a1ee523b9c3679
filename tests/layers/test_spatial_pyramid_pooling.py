import keras
import numpy as np
import pytest

from cvlib.layers import SpatialPyramidPooling

from .harness import run_layer_test
from .test_roi_pooling import BOXES, distinct


def pooled_naively(levels, stride):
    def pool(features, boxes=None):
        rows = []
        for b, image in enumerate(features):
            height, width = image.shape[:2]
            last = [width - 1, height - 1]
            whole = [[0, 0, *last]]
            for cells in (
                whole if boxes is None else [inside(box, stride, last) for box in boxes[b]]
            ):
                rows.append(np.concatenate([grid(image, cells, n) for n in levels]))
        shape = (len(features), -1) if boxes is None else (*boxes.shape[:2], -1)
        return np.reshape(rows, shape)

    return pool


def inside(box, stride, last):
    """First and last cell whose centre, `stride` times the index, lies in the box."""
    cells = []
    for start, end, most in zip(*box.reshape(2, 2) / np.float64(stride), last, strict=True):
        centres = [c for c in range(-999, 999) if start < c < end]
        centres = centres or [int(np.floor(start) + np.ceil(end)) // 2]
        cells.append([min(max(c, 0), most) for c in (centres[0], centres[-1])])
    (x1, x2), (y1, y2) = cells
    return x1, y1, x2, y2


def grid(image, cells, n):
    x1, y1, x2, y2 = cells
    high, wide = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
    values = []
    for i, j in np.ndindex(n, n):
        top, bottom = y1 + i * high // n, y1 - (-(i + 1) * high // n)
        left, right = x1 + j * wide // n, x1 - (-(j + 1) * wide // n)
        window = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        values.append(window.max((0, 1)) if window.size else np.zeros(image.shape[-1]))
    return np.concatenate(values)


@pytest.mark.slow
@pytest.mark.parametrize("boxes", [False, True])
def test_layer(boxes):
    run_layer_test(
        SpatialPyramidPooling,
        {"levels": (3, 1), "stride": 8},
        {"features": distinct(2, 5, 7, 2)} | ({"boxes": BOXES[:, :2]} if boxes else {}),
        pooled_naively((3, 1), 8),
        float32=("boxes",),
        differentiable=("features",),
    )


def test_a_vector_of_one_length_from_maps_of_any_size():
    layer = SpatialPyramidPooling()
    for shape in ((13, 13), (10, 7), (3, 2)):
        maps = distinct(2, *shape, 5)
        found = keras.ops.convert_to_numpy(layer(maps))
        assert found.shape == (2, 21 * 5)
        np.testing.assert_array_equal(found[:, -5:], maps.max((1, 2)))


def test_cells_whose_centre_is_inside():
    # Centres are at 0, 16, 32, ...; of the box from 16 to 48 only that at 32 lies inside.
    features = np.arange(6, dtype="float32").reshape(1, 1, 6, 1)
    boxes = np.float32([[[16, -8, 48, 8], [15, -8, 49, 8], [17, -8, 31, 8]]])
    pooled = keras.ops.convert_to_numpy(SpatialPyramidPooling((1,))(features, boxes))
    np.testing.assert_array_equal(pooled.ravel(), [2, 3, 1])
    # Behind the last centre, at 80, but in the image; and padding.
    boxes = np.float32([[[81, 0, 96, 16], [80, 0, 96, 16], [-1, -1, -1, -1]]])
    pooled = keras.ops.convert_to_numpy(SpatialPyramidPooling((1,))(features, boxes))
    np.testing.assert_array_equal(pooled.ravel(), [5, 5, 0])
