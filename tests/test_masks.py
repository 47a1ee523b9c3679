import numpy as np
import pytest
from pycocotools import mask as coco

from cvlib import masks

DISC = np.hypot(*(np.mgrid[:20, :30] + 0.5 - np.array([9, 14])[:, None, None])) < 7


def random_masks(n=3, height=11, width=7, seed=0):
    return np.random.default_rng(seed).random((n, height, width)) < 0.4


def test_decode_inverts_encode():
    dense = random_masks()
    encoded = masks.encode(dense)
    assert encoded[0]["size"] == [11, 7]
    np.testing.assert_array_equal(masks.decode(encoded), dense)
    np.testing.assert_array_equal(masks.decode([masks.encode(dense[1])])[0], dense[1])


def test_no_masks():
    assert masks.encode(np.zeros((0, 4, 5), bool)) == []
    assert masks.decode([]).shape == (0, 0, 0)
    assert masks.areas([]).shape == (0,)
    assert masks.to_boxes([]).shape == (0, 4)
    assert masks.crop([], np.zeros((0, 4)), 7).shape == (0, 7, 7)
    assert masks.paste(np.zeros((0, 7, 7)), np.zeros((0, 4)), 4, 5) == []
    one = [masks.encode(DISC)]
    assert masks.iou([], one).shape == (0, 1)
    assert masks.iou(one, []).shape == (1, 0)


def test_polygon_covers_its_pixels():
    square = [2, 1, 5, 1, 5, 3, 2, 3]
    corner = [0, 0, 1, 0, 1, 1, 0, 1]
    expected = np.zeros((4, 6), np.uint8)
    expected[1:3, 2:5] = 1
    expected[0, 0] = 1
    mask = masks.from_polygons([square, corner], 4, 6)
    np.testing.assert_array_equal(masks.decode([mask])[0], expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e300, 1e7])
def test_a_polygon_that_pycocotools_does_not_survive_is_refused(value):
    square = [2, 1, 5, 1, 5, 3, 2, 3]
    with pytest.raises(ValueError, match="A polygon is not within 100,000 pixels"):
        masks.from_polygons([square, [0, 0, value, 0, 1, 1]], 4, 6)


def test_uncompressed_runs_go_down_the_columns():
    mask = masks.from_uncompressed({"size": [2, 3], "counts": [1, 3, 2]})
    np.testing.assert_array_equal(masks.decode([mask])[0], [[0, 1, 0], [1, 1, 0]])


def test_areas_and_boxes_are_continuous():
    dense = np.zeros((3, 6, 8), bool)
    dense[0, 1:3, 2:7] = True
    dense[1, 5, 7] = True
    encoded = masks.encode(dense)
    np.testing.assert_array_equal(masks.areas(encoded), [10, 1, 0])
    np.testing.assert_array_equal(masks.to_boxes(encoded), [[2, 1, 7, 3], [7, 5, 8, 6], [0] * 4])
    assert masks.areas(encoded).dtype == masks.to_boxes(encoded).dtype == np.float32


def test_iou_and_crowd():
    a, b = random_masks(2, seed=1), random_masks(3, seed=2)
    crowd = np.array([False, True, False])
    expected = np.zeros((2, 3))
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            expected[i, j] = (p & q).sum() / (p.sum() if crowd[j] else (p | q).sum())
    found = masks.iou(masks.encode(a), masks.encode(b), crowd)
    np.testing.assert_allclose(found, expected)


def test_iou_of_5000_by_5000():
    dense = random_masks(5000, 3, 4)
    dense[:, 0, 0] = True  # The IoU of two empty masks is no number.
    encoded = masks.encode(dense)
    dense = dense.reshape(5000, 12).astype(np.float32)
    intersection = dense @ dense.T
    union = dense.sum(axis=1)[:, None] + dense.sum(axis=1) - intersection
    np.testing.assert_allclose(masks.iou(encoded, encoded), intersection / union, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 5), (64, 48), (300, 400)])
def test_complete_masks_are_complete(shape):
    rng = np.random.default_rng(3)
    for density in (0, 0.001, 0.5, 1):
        assert masks.is_complete(masks.encode(rng.random(shape) < density))
    wide = np.zeros(shape, bool)
    wide[:, shape[1] // 2 :] = True
    assert masks.is_complete(masks.encode(wide))


@pytest.mark.parametrize("counts", [b"", b"0", b"zz", b"<", b"kQe18g73"])
def test_incomplete_masks_are_not(counts):
    assert not masks.is_complete({"size": [256, 256], "counts": counts})


def test_other_sizes_are_not_complete():
    mask = masks.encode(DISC)
    assert not masks.is_complete(mask | {"size": [20, 31]})
    assert not masks.is_complete(mask | {"size": [19, 30]})


def interpolate(grid, y, x):
    """The value at (x, y) of a grid whose cell (i, j) is centred at (j + 0.5, i + 0.5)."""
    total = 0.0
    y = min(max(y, 0.5), grid.shape[0] - 0.5)
    x = min(max(x, 0.5), grid.shape[1] - 0.5)
    for i, j in np.ndindex(grid.shape):
        total += max(0, 1 - abs(i + 0.5 - y)) * max(0, 1 - abs(j + 0.5 - x)) * grid[i, j]
    return total


def test_crop_against_a_loop():
    dense, boxes, size = random_masks(), [[1.3, 0, 6, 9.5], [0, 0, 7, 11], [2, 3, 2.5, 4]], 4
    expected = np.zeros((3, size, size))
    for n, (x1, y1, x2, y2) in enumerate(boxes):
        for i, j in np.ndindex(size, size):
            y, x = y1 + (i + 0.5) / size * (y2 - y1), x1 + (j + 0.5) / size * (x2 - x1)
            expected[n, i, j] = interpolate(dense[n], y, x)
    found = masks.crop(masks.encode(dense), boxes, size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_crop_of_whole_pixels_is_the_mask():
    dense = random_masks(1, 6, 6)
    found = masks.crop(masks.encode(dense), [[1, 2, 5, 6]], 4)
    np.testing.assert_array_equal(found[0], dense[0, 2:6, 1:5])


def test_paste_against_a_loop():
    rng = np.random.default_rng(4)
    cells = rng.random((2, 5, 5)).astype(np.float32)
    boxes = np.array([[2.2, 1.6, 9.1, 7.4], [-3, 4, 6.5, 14.0]])
    expected = np.zeros((2, 10, 12), np.uint8)
    for n, (x1, y1, x2, y2) in enumerate(boxes):
        for i, j in np.ndindex(10, 12):
            y, x = i + 0.5, j + 0.5
            if x1 <= x < x2 and y1 <= y < y2:
                v, u = (y - y1) / (y2 - y1) * 5, (x - x1) / (x2 - x1) * 5
                expected[n, i, j] = interpolate(cells[n], v, u) >= 0.6
    found = masks.paste(cells, boxes, 10, 12, threshold=0.6)
    np.testing.assert_array_equal(masks.decode(found), expected)


def test_paste_inverts_crop():
    encoded = [masks.encode(DISC)]
    boxes = masks.to_boxes(encoded)
    pasted = masks.paste(masks.crop(encoded, boxes, 28), boxes, *DISC.shape)
    assert masks.iou(pasted, encoded)[0, 0] > 0.97


def test_paste_beside_the_image_is_empty():
    pasted = masks.paste(np.ones((1, 3, 3)), [[20, 1, 25, 4]], 10, 12)
    assert coco.area(pasted)[0] == 0


def test_a_mask_in_the_frame_of_a_part_of_its_box():
    box, part = np.float32([[2, 1, 10, 9]]), np.float32([[2, 3, 8, 9]])
    ramp = np.add(*np.mgrid[:8, :8] * [[[10]], [[1]]])[None].astype(np.float32)
    found = masks.reframe(ramp, box, part)
    cells = (np.arange(8) + 0.5) * 6 / 8 - 0.5
    expected = np.clip(2 + cells, 0, 7)[:, None] * 10 + np.clip(cells, 0, 7)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    np.testing.assert_allclose(masks.reframe(ramp, box, box), ramp, rtol=1e-5)


def test_no_masks_and_boxes_without_area_are_reframed():
    assert masks.reframe(np.zeros((0, 7, 7)), np.zeros((0, 4)), np.zeros((0, 4))).shape == (0, 7, 7)
    empty = np.zeros((1, 4))
    found = masks.reframe(np.full((1, 7, 7), 0.25), empty, empty)
    np.testing.assert_allclose(found, 0.25)


@pytest.mark.parametrize("polygons", [[], [[1, 1, 5, 5]], [[1, 1, 5, 1, 5, 5], []]])
def test_polygons_have_three_points(polygons):
    with pytest.raises(ValueError, match="at least 3 points"):
        masks.from_polygons(polygons, 8, 9)
