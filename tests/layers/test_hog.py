import math

import numpy as np
import pytest
from keras import ops
from skimage.feature import hog

from cvlib.layers import HOG

from .harness import run_layer_test


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, shape).astype("float32")


def hog_naively(images, c, bins, signed, b, clip, interpolate, epsilon=1e-5):
    """Each pixel votes in each block that holds it, in float64."""
    images = images.astype("float64")
    count, height, width, channels = images.shape
    rows, columns = height // c - b + 1, width // c - b + 1
    result = np.zeros((count, rows, columns, b, b, bins))
    around = 2 * math.pi if signed else math.pi
    for n, y, x in np.ndindex(count, rows * c + (b - 1) * c, columns * c + (b - 1) * c):
        best = (0.0, 0.0)
        for k in range(channels):
            dx = images[n, y, x + 1, k] - images[n, y, x - 1, k] if 0 < x < width - 1 else 0.0
            dy = images[n, y + 1, x, k] - images[n, y - 1, x, k] if 0 < y < height - 1 else 0.0
            best = max(best, (dx, dy), key=lambda gradient: math.hypot(*gradient))
        vote, place = math.hypot(*best), math.atan2(best[1], best[0]) % around / around * bins
        if interpolate:
            low = math.floor(place - 0.5)
            right = place - 0.5 - low
            directions = [(low % bins, 1 - right), ((low + 1) % bins, right)]
        else:
            directions = [(int(place) % bins, 1.0)]
        for i, j, u, v in np.ndindex(rows, columns, b, b):
            dy, dx = (y + 0.5) / c - i, (x + 0.5) / c - j
            if not (0 < dy < b and 0 < dx < b):
                continue
            if interpolate:
                share = max(0, 1 - abs(dy - u - 0.5)) * max(0, 1 - abs(dx - v - 0.5))
            else:
                share = float((u, v) == (int(dy), int(dx)))
            for direction, part in directions:
                result[n, i, j, u, v, direction] += vote * share * part / c**2
    result = result.reshape(count, rows, columns, -1)
    for limit in (clip, np.inf):
        norm = np.sqrt((result**2).sum(axis=-1, keepdims=True) + epsilon**2)
        result = np.minimum(result / norm, limit)
    return result


@pytest.mark.parametrize(("signed", "interpolate"), [(True, True), (False, False)])
def test_hog(signed, interpolate):
    arguments = {
        "cell_size": 3,
        "bins": 5,
        "signed": signed,
        "block_size": 2,
        "clip": 0.3,
        "interpolate": interpolate,
        "epsilon": 2.0,
    }
    run_layer_test(
        HOG,
        arguments,
        noise(2, 11, 13, 1),
        lambda x: hog_naively(x, *arguments.values()),
        # A vote that falls into one bin jumps from one to the next.
        differentiable=None if interpolate else (),
        tolerance=2e-5,
    )


@pytest.mark.parametrize("block_size", [1, 3])
def test_other_blocks_and_the_channel_of_the_longest_gradient(block_size):
    images = noise(2, 17, 14, 3)
    actual = HOG(4, 6, block_size=block_size)(images)
    expected = hog_naively(images, 4, 6, False, block_size, 0.2, True)
    np.testing.assert_allclose(ops.convert_to_numpy(actual), expected, atol=1e-5)


def test_equals_scikit_image():
    # The gradient twice as long would be the same picture, but for epsilon; so it is not small.
    images = noise(2, 45, 50, 3).astype("uint8")
    expected = [hog(x, 9, (8, 8), (2, 2), feature_vector=False, channel_axis=-1) for x in images]
    actual = ops.convert_to_numpy(HOG(interpolate=False)(images))
    np.testing.assert_allclose(actual, np.reshape(expected, actual.shape), atol=1e-5)


@pytest.mark.parametrize("signed", [True, False])
def test_equals_opencv(signed):
    cv2 = pytest.importorskip("cv2")
    images = noise(2, 48, 64, 3).astype("uint8")
    # Window, block, stride, cell, bins; a Gaussian so wide that there is none; no gamma.
    descriptor = cv2.HOGDescriptor(
        (64, 48), (16, 16), (8, 8), (8, 8), 9, 1, 1e6, 0, 0.2, False, 64, signed
    )
    # Blocks and cells column by column.
    found = [descriptor.compute(x).reshape(7, 5, 2, 2, 9) for x in images]
    expected = np.transpose(found, (0, 2, 1, 4, 3, 5))
    actual = ops.convert_to_numpy(HOG(signed=signed)(images))
    # OpenCV's angles are approximate.
    np.testing.assert_allclose(actual, expected.reshape(actual.shape), atol=2e-3)


def test_flat_images_have_no_edges():
    assert np.all(ops.convert_to_numpy(HOG()(np.full((1, 16, 24, 3), 77, "uint8"))) == 0)


def test_contrast_does_not_count():
    images = noise(1, 24, 24, 3)
    strong, weak = (ops.convert_to_numpy(HOG()(factor * images)) for factor in (1, 0.1))
    np.testing.assert_allclose(strong, weak, atol=1e-5)


def test_image_smaller_than_a_block():
    with pytest.raises(ValueError, match="15 rows or columns has no block of 2 cells of 8 pixels"):
        HOG()(noise(1, 15, 32, 3))
