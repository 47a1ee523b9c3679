import itertools

import numpy as np
import pytest

from cvlib import masks
from cvlib.proposals import SelectiveSearch
from cvlib.proposals import selective_search as ss
from cvlib.proposals.regions import label_boxes, label_masks

# Enlarged, so that no two similarities are equal.
LABELS = np.kron(
    [
        [0, 0, 1, 1, 2, 2],
        [0, 3, 3, 1, 2, 2],
        [4, 3, 3, 5, 5, 2],
        [4, 4, 6, 6, 5, 5],
    ],
    np.ones((4, 4), int),
)


def channels(seed=0, shape=LABELS.shape):
    return np.random.default_rng(seed).random((*shape, 3)).astype(np.float32)


def regions(seed=0):
    return ss.describe(LABELS, *ss.feature_bins(channels(seed)))


def test_boxes_and_masks_of_labels():
    expected = [LABELS == i for i in range(7)]
    np.testing.assert_array_equal(masks.decode(label_masks(LABELS)), expected)
    np.testing.assert_array_equal(label_boxes(LABELS), masks.to_boxes(masks.encode(expected)))


def test_histograms_count_the_pixels_of_each_region():
    color, texture = ss.feature_bins(channels())
    found = ss.describe(LABELS, color, texture)
    for name, bins, count in (("color", color, 25), ("texture", texture, 20)):
        for region in range(7):
            inside = bins[LABELS == region]
            expected = np.concatenate(
                [[np.mean(channel == b) for b in range(count)] for channel in inside.T]
            )
            mine = getattr(found, name)[region]
            np.testing.assert_allclose(mine, expected / bins.shape[2], atol=1e-6)


def test_neighbours_share_a_side_of_a_pixel():
    found = {tuple(pair) for pair in regions().pairs.tolist()}
    expected = set()
    for (y, x), (dy, dx) in itertools.product(np.ndindex(LABELS.shape), ((0, 1), (1, 0))):
        if y + dy < LABELS.shape[0] and x + dx < LABELS.shape[1]:
            pair = sorted((LABELS[y, x].item(), LABELS[y + dy, x + dx].item()))
            expected |= {tuple(pair)} if pair[0] != pair[1] else set()
    assert found == expected


def test_texture_knows_the_direction_of_an_edge():
    ramp = np.broadcast_to(np.linspace(0, 1, 30, dtype=np.float32)[:, None], (30, 30, 1))
    # Directions 0, 45, 90 and 135 degrees, of bins 0..19 with zero slope at 10.
    along = ss.feature_bins(ramp)[1][15, 15]
    down = ss.feature_bins(ramp.swapaxes(0, 1))[1][15, 15]
    np.testing.assert_array_equal(down, [10, 17, 19, 17])
    np.testing.assert_array_equal(along, [19, 17, 10, 2])


def brute_force(found, letters, labels=LABELS):
    """Grouping on sets of pixels, with the similarities computed anew from the regions' parts."""
    members = {i: {i} for i in range(labels.max() + 1)}
    sizes, area = found.sizes, labels.size
    pairs = {tuple(pair) for pair in found.pairs.tolist()}

    def mean(values, group):
        chosen = sorted(group)
        return np.average(values[chosen], axis=0, weights=sizes[chosen])

    def similarity(a, b):
        a, b = members[a], members[b]
        total = 0
        if "C" in letters:
            total += np.minimum(mean(found.color, a), mean(found.color, b)).sum()
        if "T" in letters:
            total += np.minimum(mean(found.texture, a), mean(found.texture, b)).sum()
        count = sizes[sorted(a | b)].sum()
        if "S" in letters:
            total += 1 - count / area
        if "F" in letters:
            y, x = np.nonzero(np.isin(labels, sorted(a | b)))
            total += 1 - ((np.ptp(y) + 1) * (np.ptp(x) + 1) - count) / area
        return total

    parents = []
    while len(members) > 1:
        i, j = max(pairs, key=lambda pair: similarity(*pair))
        new = labels.max() + 1 + len(parents)
        members[new] = members.pop(i) | members.pop(j)
        parents.append({i, j})
        renamed = {tuple(sorted(new if k in (i, j) else k for k in pair)) for pair in pairs}
        pairs = {pair for pair in renamed if pair[0] != pair[1]}
        yield parents[-1], members[new]


@pytest.mark.parametrize("letters", ["CTSF", "TSF", "C", "CT"])
@pytest.mark.parametrize("seed", range(5))
def test_grouping_equals_brute_force(letters, seed):
    found = regions(seed)
    boxes, parents = ss.group(found, letters)
    expected = list(brute_force(found, letters))
    assert [set(pair) for pair in parents.tolist()] == [pair for pair, _ in expected]
    for box, (_, group) in zip(boxes[7:], expected, strict=True):
        y, x = np.nonzero(np.isin(LABELS, sorted(group)))
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    np.testing.assert_array_equal(boxes[:7], found.boxes)
    merged = masks.decode(ss.merge_masks(label_masks(LABELS), parents))
    for mask, (_, group) in zip(merged[7:], expected, strict=True):
        np.testing.assert_array_equal(mask, np.isin(LABELS, sorted(group)))


def test_size_merges_the_smallest_and_fill_the_best_fitting():
    labels = np.zeros((8, 16), int)
    labels[:, 8:] = 1
    labels[0, 0] = 2
    labels[:2, 14:] = 3
    found = ss.describe(labels, *ss.feature_bins(channels(0, labels.shape)))
    # The single pixel and its neighbour together are smaller than any other two that touch ...
    assert set(ss.group(found, "S")[1][0].tolist()) == {0, 2}
    # ... and the two notches fill their neighbour's box wholly.
    assert {frozenset(pair) for pair in ss.group(found, "F")[1][:2].tolist()} == {
        frozenset({0, 2}),
        frozenset({1, 3}),
    }


@pytest.mark.parametrize("name, count", [("hsv", 3), ("lab", 3), ("rgi", 3), ("h", 1), ("i", 1)])
def test_color_spaces_are_in_0_to_1(name, count):
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    image[0, 0], image[0, 1] = 0, 255
    space = ss.color_space(image, name)
    assert space.shape == (5, 6, count) and space.dtype == np.float32
    assert np.isfinite(space).all() and space.min() >= 0 and space.max() <= 1


def test_chromaticity_is_blind_to_the_brightness():
    image = np.random.default_rng(0).integers(1, 120, (5, 6, 3), np.uint8)
    bright, dark = ss.color_space(2 * image, "rgi"), ss.color_space(image, "rgi")
    np.testing.assert_allclose(bright[..., 1:], dark[..., 1:], atol=1e-6)
    np.testing.assert_allclose(bright[..., 0], 2 * dark[..., 0], atol=1e-6)


def test_more_groupings_find_more(picture):
    single, fast, quality = (SelectiveSearch(mode)(picture) for mode in ss.MODES)
    assert len(single) < len(fast) < len(quality)


def test_large_regions_come_early_on_average():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    boxes = SelectiveSearch("fast")(image).boxes
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    first, last = np.split(areas[: len(areas) // 2 * 2], 2)
    assert first.mean() > 1.5 * last.mean()
