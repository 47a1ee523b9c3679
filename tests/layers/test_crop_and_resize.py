import keras
import numpy as np
import pytest

from cvlib.layers import CropAndResize

from .harness import run_layer_test


def cropped_naively(size):
    def crop(images, boxes):
        batch, height, width, channels = images.shape
        result = np.zeros((batch, boxes.shape[1], *size, channels))
        for b, r, i, j in np.ndindex(result.shape[:4]):
            x1, y1, x2, y2 = boxes[b, r].astype("float64")
            x = x1 + (j + 0.5) * (x2 - x1) / size[1] - 0.5
            y = y1 + (i + 0.5) * (y2 - y1) / size[0] - 0.5
            left, top = int(np.floor(x)), int(np.floor(y))
            for row, column in np.ndindex(2, 2):
                row, column = top + row, left + column
                if 0 <= row < height and 0 <= column < width:
                    weight = (1 - abs(x - column)) * (1 - abs(y - row))
                    result[b, r, i, j] += weight * images[b, row, column]
        return result

    return crop


# Inside, across the border, wholly outside, mirrored, smaller than a pixel.
BOXES = [
    [[1.3, 0.7, 6.1, 4.4], [-2.2, -1.7, 3.6, 9.9], [20.0, 20.0, 24.0, 23.0]],
    [[6.2, 0.3, 1.1, 4.8], [2.31, 3.17, 2.43, 3.29], [0.1, 0.2, 6.9, 5.1]],
]


def test_layer():
    images = np.random.default_rng(0).standard_normal((2, 5, 7, 3)).astype("float32")
    run_layer_test(
        CropAndResize,
        {"size": (3, 4)},
        {"images": images, "boxes": np.float32(BOXES)},
        cropped_naively((3, 4)),
        float32=("boxes",),
    )


def test_the_whole_image_at_its_own_size_is_the_image():
    images = np.random.default_rng(1).integers(0, 256, (2, 5, 7, 3)).astype("uint8")
    boxes = np.float32([[[0, 0, 7, 5]]] * 2)
    crops = keras.ops.convert_to_numpy(CropAndResize((5, 7))(images, boxes))
    np.testing.assert_allclose(crops[:, 0], images, atol=1e-3)


def test_a_crop_of_whole_pixels_is_a_slice_and_zero_outside():
    images = np.random.default_rng(2).standard_normal((1, 6, 6, 1)).astype("float32")
    crop = keras.ops.convert_to_numpy(CropAndResize((3, 4))(images, np.float32([[[4, 2, 8, 5]]])))
    np.testing.assert_allclose(crop[0, 0, :, :2], images[0, 2:5, 4:], rtol=1e-6)
    np.testing.assert_array_equal(crop[0, 0, :, 2:], 0)


@pytest.mark.parametrize("factor", [2, 3])
def test_a_ramp_stays_a_ramp(factor):
    ramp = np.tile(np.arange(8, dtype="float32") + 0.5, (1, 8, 1))[..., None]
    crop = keras.ops.convert_to_numpy(
        CropAndResize((4 * factor, 4 * factor))(ramp, np.float32([[[2, 2, 6, 6]]]))
    )
    expected = 2 + (np.arange(4 * factor) + 0.5) / factor
    np.testing.assert_allclose(crop[0, 0, :, :, 0], np.tile(expected, (4 * factor, 1)), rtol=1e-6)


def test_images_of_unknown_size():
    images, boxes = keras.Input((None, None, 3)), keras.Input((2, 4))
    model = keras.Model([images, boxes], CropAndResize((3, 4))(images, boxes))
    assert model.output_shape == (None, 2, 3, 4, 3)
    for height in (9, 7, 5):  # From the second on TensorFlow traces a graph for any.
        found = model.predict([np.zeros((1, height, 8, 3)), np.ones((1, 2, 4))], verbose=0)
        assert found.shape == (1, 2, 3, 4, 3)


@pytest.mark.parametrize(("images", "count"), [(2, 0), (0, 4), (0, 0)])
def test_no_boxes_or_no_images(images, count):
    crops = CropAndResize((3, 4))(np.zeros((images, 9, 8, 2)), np.zeros((images, count, 4)))
    assert crops.shape == (images, count, 3, 4, 2)


def test_boxes_that_are_nowhere_are_zero():
    boxes = np.float32([[[np.nan] * 4, [0, 0, np.inf, 3], [-1e30, 0, 1e30, 3], [4, 5, 6, 7]]])
    crops = CropAndResize((2, 2))(np.ones((1, 9, 8, 2), "float32"), boxes)
    crops = keras.ops.convert_to_numpy(crops)
    np.testing.assert_array_equal(crops[0, :3], 0)
    np.testing.assert_array_equal(crops[0, 3], 1)
