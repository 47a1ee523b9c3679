import keras
import numpy as np
import pytest

from cvlib.layers import RoIAlign

from . import roi_fixtures
from .harness import run_layer_test


def sampled(features, y, x):
    """Bilinear value of features (H, W, C) at indices (y, x)."""
    height, width, _ = features.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    above = (1 - dx) * features[top, left] + dx * features[top, right]
    below = (1 - dx) * features[bottom, left] + dx * features[bottom, right]
    return (1 - dy) * above + dy * below


def aligned_naively(size, stride, samples):
    def align(features, boxes):
        result = np.zeros((*boxes.shape[:2], *size, features.shape[-1]))
        for b, r, i, j in np.ndindex(result.shape[:4]):
            x1, y1, x2, y2 = boxes[b, r].astype("float64") / stride - 0.5
            for k, m in np.ndindex(samples, samples):
                y = y1 + (y2 - y1) * (i + (k + 0.5) / samples) / size[0]
                x = x1 + (x2 - x1) * (j + (m + 0.5) / samples) / size[1]
                result[b, r, i, j] += sampled(features[b], y, x) / samples**2
        return result

    return align


# Inside, across the border, wholly outside, mirrored, of no width, smaller than a cell.
BOXES = np.float32(
    [
        [[9.3, 4.7, 41.1, 20.4], [-20.2, 3.3, 59.6, 30.1], [200, 200, 240, 230]],
        [[30.3, 20.1, 3.1, 4.8], [17.3, 8.2, 17.3, 30.6], [27.1, 13.3, 29.4, 15.2]],
    ]
)


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


@pytest.mark.parametrize("samples", [1, 2])
def test_layer(samples):
    run_layer_test(
        RoIAlign,
        {"size": (2, 3), "stride": 8, "sampling_ratio": samples},
        {"features": random(2, 5, 7, 2), "boxes": BOXES},
        aligned_naively((2, 3), 8, samples),
        float32=("boxes",),
    )


@pytest.mark.parametrize("name", roi_fixtures.names("roi_align"))
def test_equals_torchvision(name):
    roi_fixtures.check(name, RoIAlign, sampling_ratio=int(name.split()[-2]))


def test_positions_of_the_samples():
    """A ramp whose cells hold the coordinates of their centres is read where the cells are."""
    ramp = np.stack(np.meshgrid(np.arange(8) + 0.5, np.arange(6) + 0.5), axis=-1)[None]
    found = RoIAlign((2, 4), 16)(np.float32(ramp * 16), np.float32([[[32, 24, 96, 72]]]))
    x, y = np.meshgrid([40, 56, 72, 88], [36, 60])
    found = keras.ops.convert_to_numpy(found)[0, 0]
    np.testing.assert_allclose(found, np.stack([x, y], axis=-1), rtol=1e-6)


def test_samples_outside_by_more_than_a_cell_are_zero():
    # Of one sample for each cell, at indices -1.25, -1, -0.5, 0, ..., of a map of ones.
    boxes = np.float32([[[x - 0.5, 1, x + 1.5, 2] for x in (-1.25, -1, -0.5, 0, 3, 4, 4.25)]])
    found = RoIAlign((1, 1), 1, 1)(np.ones((1, 3, 4, 1), "float32"), boxes)
    found = keras.ops.convert_to_numpy(found).ravel()
    np.testing.assert_allclose(found, [0, 1, 1, 1, 1, 1, 0])


def test_maps_of_unknown_size_and_no_boxes():
    features, boxes = keras.Input((None, None, 2)), keras.Input((None, 4))
    model = keras.Model([features, boxes], RoIAlign((2, 3), 8)(features, boxes))
    maps = np.random.default_rng(0).standard_normal((2, 5, 7, 2)).astype("float32")
    for count in (4, 3, 0):
        given = [maps[:, : count + 1], np.repeat(BOXES[:1, :count], 2, axis=0)]
        found = model.predict(given, verbose=0)
        np.testing.assert_allclose(found, aligned_naively((2, 3), 8, 2)(*given), atol=1e-5)
