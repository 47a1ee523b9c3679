import keras
import numpy as np
import pytest
from keras import ops

from benchmarks.kernels.side_by_side import compiled
from cvlib import targets
from cvlib.targets import in_cells, left_to_right, masks_in, masks_iou, match, sample


def test_left_to_right_orders_by_centre_and_puts_padding_last():
    boxes = np.float32([[[50, 0, 60, 9], [0, 0, 100, 9], [-1, -1, -1, -1], [5, 0, 9, 9]]])
    labels = np.int32([[1, 2, -1, 3]])
    found = left_to_right(boxes, labels, 3)
    np.testing.assert_array_equal(ops.convert_to_numpy(found["labels"]), [[3, 2, 1]])
    np.testing.assert_array_equal(ops.convert_to_numpy(found["boxes"]), boxes[:, [3, 1, 0]])
    all_four = left_to_right(boxes, labels, 4)
    np.testing.assert_array_equal(ops.convert_to_numpy(all_four["labels"]), [[3, 2, 1, -1]])


def test_more_objects_than_there_is_room_for():
    with pytest.raises(ValueError, match="3 objects are asked for where there is room for 1"):
        left_to_right(np.zeros((2, 1, 4), "float32"), np.zeros((2, 1), "int32"), 3)


def iou(a, b):
    size = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (size <= 0).any():
        return 0.0
    areas = [np.prod(x[2:] - x[:2]) for x in (a, b)]
    return np.prod(size) / (sum(areas) - np.prod(size))


def covered(a, b):
    size = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    return np.prod(size) / np.prod(a[2:] - a[:2])


def matched_naively(anchors, boxes, present, positive, negative, best, valid, ignored):
    batch, number = len(boxes), anchors.shape[-2]
    anchors = np.broadcast_to(anchors, (batch, number, 4)).astype("float64")
    boxes = boxes.astype("float64")
    state = np.full((batch, number), -1)
    index, highest = np.zeros((batch, number), int), np.zeros((batch, number))
    for b in range(batch):
        objects = [m for m in range(len(present[b])) if present[b][m] and not ignored[b][m]]
        forgiven = [m for m in range(len(present[b])) if present[b][m] and ignored[b][m]]
        can = [n for n in range(number) if np.broadcast_to(valid, (batch, number))[b, n]]
        for n in can:
            overlaps = {m: iou(anchors[b, n], boxes[b, m]) for m in objects}
            if overlaps:
                index[b, n] = max(overlaps, key=overlaps.get)
            highest[b, n] = max(overlaps.values(), default=0)
            if highest[b, n] >= positive:
                state[b, n] = 1
            elif negative[0] <= highest[b, n] < negative[1]:
                if all(covered(anchors[b, n], boxes[b, m]) < negative[1] for m in forgiven):
                    state[b, n] = 0
        for m in objects if best else []:
            overlaps = [iou(anchors[b, n], boxes[b, m]) for n in can]
            for n, overlap in zip(can, overlaps, strict=True):
                if overlap > 0 and overlap > (1 - 1e-4) * max(overlaps):
                    state[b, n] = 1
    return {"index": index, "iou": highest, "state": state}


def grid_anchors(shape=(7, 9), stride=8, sides=((16, 16), (12, 24), (24, 12))):
    y, x = np.mgrid[: shape[0], : shape[1]] * stride + stride / 2
    centres = np.stack([x, y], -1)[:, :, None]
    sides = np.float32(sides)
    return np.concatenate([centres - sides / 2, centres + sides / 2], -1).reshape(-1, 4)


def random_objects(seed, batch=3, most=5):
    rng = np.random.default_rng(seed)
    centres, sides = rng.uniform(0, 64, (batch, most, 2)), rng.uniform(8, 30, (batch, most, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], -1).astype("float32")
    present = np.arange(most) < np.arange(batch)[:, None] * 2
    return np.where(present[..., None], boxes, np.float32(-1)), present


def numpy(found):
    return {key: ops.convert_to_numpy(x) for key, x in found.items()}


@pytest.mark.parametrize("best", [True, False])
@pytest.mark.parametrize("negative", [0.3, (0.1, 0.4)])
@pytest.mark.parametrize("together", [targets.OBJECTS_TOGETHER, 2])
def test_match_equals_the_naive_loop(best, negative, together, monkeypatch):
    monkeypatch.setattr(targets, "OBJECTS_TOGETHER", together)
    anchors = grid_anchors().astype("float32")
    valid = (anchors[:, :2] >= 0).all(-1) & (anchors[:, 2:] <= [72, 56]).all(-1)
    seen = set()
    for seed in range(3):
        boxes, present = random_objects(seed)
        ignored = np.random.default_rng(seed).random(present.shape) < 0.3
        arguments = {"best": best, "valid": valid, "ignored": ignored}
        found = numpy(match(anchors, boxes, present, 0.5, negative, **arguments))
        pair = negative if isinstance(negative, tuple) else (0, negative)
        expected = matched_naively(anchors, boxes, present, 0.5, pair, **arguments)
        seen |= set(np.unique(expected["state"]))
        for key in expected:
            np.testing.assert_allclose(found[key], expected[key], atol=1e-5, err_msg=key)
    assert seen == {-1, 0, 1}
    per_image = numpy(match(np.stack([anchors] * 3), boxes, present, 0.5, negative, **arguments))
    for key in found:
        np.testing.assert_array_equal(per_image[key], found[key])


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_graph_matches_as_the_naive_loop_does(share):
    anchors = grid_anchors().astype("float32")
    boxes, present = random_objects(5)
    ignored = np.random.default_rng(5).random(present.shape) < share
    assert (ignored & present).any() == (share > 0)
    given = [ops.convert_to_tensor(x) for x in (anchors, boxes, present, ignored)]

    def found(anchors, boxes, present, ignored):
        return match(anchors, boxes, present, 0.5, ignored=ignored)["state"]

    expected = matched_naively(anchors, boxes, present, 0.5, (0, 0.3), True, True, ignored)
    np.testing.assert_array_equal(compiled(found, given, False)(), expected["state"])


def states(anchors, boxes, present=True, valid=True, ignored=False):
    """The states of anchors in one image; padded to one shape, so that JAX compiles once."""

    def pad(x, value):
        return np.pad(x, [(0, 6 - len(x)), (0, 0)][: np.ndim(x)], constant_values=value)

    found = match(
        pad(np.float32(anchors), -1),
        pad(np.float32(boxes), -1)[None],
        pad(np.full(len(boxes), present), False)[None],
        valid=pad(np.full(len(anchors), valid), True),
        ignored=pad(np.full(len(boxes), ignored), False)[None],
    )
    return ops.convert_to_numpy(found["state"])[0].tolist()[: len(anchors)]


def test_all_anchors_that_tie_for_an_object_are_its_best():
    # Trap 5: two anchors are mirrored about the object's centre, so their IoUs are equal, but for
    # rounding; the object lies far from the origin, where the rounding is large.
    box = np.float32([1000.1, 700.3, 1030.4, 731.0])
    shifted = [box + [dx, 0, dx, 0] for dx in (10.1, -10.1, 12.0)]
    assert states([*shifted, box + 500], [box]) == [1, 1, -1, 0]


def test_an_object_that_no_anchor_overlaps_has_no_best():
    anchors = [[0, 0, 10, 10], [20, 0, 30, 10]]
    assert states(anchors, [[50, 50, 60, 60]]) == [0, 0]
    # It shares no more than an edge.
    assert states(anchors, [[10, 0, 20, 10]]) == [0, 0]


def test_objects_are_looked_at_where_any_image_has_some(monkeypatch):
    monkeypatch.setattr(targets, "OBJECTS_TOGETHER", 2)
    looked, look = [], targets._look
    monkeypatch.setattr(targets, "_look", lambda *a: looked.append(a[3].shape) or look(*a))
    anchors = np.float32([[0, 0, 10, 10], [30, 30, 40, 40]])
    boxes, present = np.full((2, 8, 4), -1, "float32"), np.zeros((2, 8), bool)
    # One image has an object, the other a crowd and nothing before it.
    boxes[0, 0], boxes[1, 4] = [0, 0, 10, 9], [0, 0, 50, 20]
    present[0, 0] = present[1, 4] = True
    ignored = np.zeros((2, 8), bool)
    ignored[1, 4] = True
    found = numpy(match(anchors, boxes, present, ignored=ignored))
    assert found["state"].tolist() == [[1, 0], [-1, 0]]
    if keras.backend.backend() == "torch":  # What compiles traces all branches.
        assert looked == [(2, 2, 4)] * 2


def test_padded_and_degenerate_objects_have_no_anchors():
    anchors = [[0, 0, 10, 10], [-2, -2, 2, 2]]
    bad = [[-1, -1, -1, -1], [3, 3, 3, 9], [9, 9, 3, 3], [np.nan, 0, 9, 9], [0, 0, np.inf, 9]]
    assert states(anchors, bad) == [0, 0]
    assert states(anchors, [[0, 0, 10, 10]], present=[False]) == [0, 0]
    assert states(anchors, [*bad, [0, 0, 10, 9]]) == [1, 0]


def test_degenerate_anchors_are_ignored():
    anchors = [[-1, -1, -1, -1], [np.nan, 0, 9, 9], [9, 9, 3, 3], [0, 0, 10, 8], [30, 0, 40, 8]]
    assert states(anchors, [[0, 0, 10, 10]]) == [-1, -1, -1, 1, 0]


def test_anchors_across_the_border_are_ignored_and_are_no_best():
    anchors = [[-1, 0, 10, 10], [2, 0, 12, 10], [40, 40, 50, 50]]
    assert states(anchors, [[0, 0, 10, 10]]) == [1, -1, 0]
    assert states(anchors, [[0, 0, 10, 10]], valid=[False, True, False]) == [-1, 1, -1]


def test_difficult_objects_have_neither_positives_nor_negatives():
    anchors = [[0, 0, 10, 10], [0, 0, 10, 5], [40, 40, 50, 50], [0, 0, 30, 30]]
    objects = [[0, 0, 10, 10], [40, 40, 50, 50]]
    assert states(anchors, objects, present=[True, False], ignored=True) == [-1, -1, 0, 0]


def test_a_crowd_forgives_what_is_inside_it():
    # Its IoU with each of these is below 0.04.
    anchors = [[40, 40, 60, 60], [190, 190, 210, 210], [197, 197, 217, 217]]
    assert states(anchors, [[0, 0, 200, 200]], ignored=True) == [-1, 0, 0]
    assert states([[186, 180, 206, 200]], [[0, 0, 200, 200]], ignored=True) == [-1]


def test_an_object_far_smaller_than_the_anchors_has_one_best():
    anchors = [[0, 0, 100, 100], [0, 0, 200, 200], [0, 0, 300, 300]]
    assert states(anchors, [[5, 5, 6, 6]]) == [1, 0, 0]


@pytest.mark.parametrize("match", [match, lambda _, *y: in_cells(*y, 2, 8, 8)])
def test_no_room_for_an_object(match):
    with pytest.raises(ValueError, match="There is no room for an object"):
        match(np.zeros((1, 4)), np.zeros((2, 0, 4)), np.zeros((2, 0), "int32"))


def test_no_anchor():
    with pytest.raises(ValueError, match="There is no anchor"):
        match(np.zeros((2, 0, 4)), np.zeros((2, 1, 4)), np.zeros((2, 1), "int32"))


def test_matching_and_sampling_of_no_object():
    boxes, present = np.full((3, 5, 4), -1, "float32"), np.zeros((3, 5), bool)
    found = match(grid_anchors(), boxes, present)
    assert (ops.convert_to_numpy(found["state"]) == 0).all()
    drawn = numpy(sample(found["state"], 8, 0.5, keras.random.SeedGenerator(0)))
    assert drawn["valid"].all()


STATES = np.int32([[1] * 10 + [0] * 30 + [-1] * 10, [0] * 30 + [-1] * 18 + [1] * 2, [-1] * 50])


def drawn_states(drawn, state=STATES):
    found = np.take_along_axis(state, drawn["indices"], 1)
    return [row[valid].tolist() for row, valid in zip(found, drawn["valid"], strict=True)]


def test_sample_fills_with_negatives_up_to_its_share():
    drawn = numpy(sample(STATES, 12, 0.5, keras.random.SeedGenerator(0)))
    assert drawn["indices"].shape == drawn["valid"].shape == (3, 12)
    assert drawn_states(drawn) == [[1] * 6 + [0] * 6, [1] * 2 + [0] * 10, []]
    for indices, valid in zip(drawn["indices"], drawn["valid"], strict=True):
        assert len(set(indices[valid])) == valid.sum()


def test_positives_do_not_stand_in_for_negatives():
    state = np.int32([[1, 1, 1, 1, 0, -1]])
    drawn = numpy(sample(state, 4, 0.5, keras.random.SeedGenerator(0)))
    assert drawn_states(drawn, state) == [[1, 1, 0]]


def test_more_places_than_anchors():
    state = np.int32([[0, 1, -1]])
    drawn = numpy(sample(state, 8, 0.25, keras.random.SeedGenerator(0)))
    assert drawn["indices"].shape == (1, 8) and drawn_states(drawn, state) == [[1, 0]]


def test_every_anchor_is_drawn_as_often_as_another():
    drawn = numpy(sample(np.tile(STATES[:1], (400, 1)), 12, 0.5, keras.random.SeedGenerator(1)))
    counts = np.bincount(drawn["indices"].ravel(), minlength=50)
    # Binomial of 400 with 6 / 10 and 6 / 30: the mean, give or take 5 standard deviations.
    assert abs(counts[:10] - 240).max() < 50 and abs(counts[10:40] - 80).max() < 41
    assert not counts[40:].any()


def test_the_seed_decides():
    first, again, other = (
        numpy(sample(STATES, 12, 0.5, keras.random.SeedGenerator(s)))["indices"] for s in (3, 3, 4)
    )
    assert (first == again).all() and (first != other).any()


class Sampled(keras.Model):
    """Learns from the sampled anchors only; the loss is where a two-stage detector samples."""

    def __init__(self):
        inputs = keras.Input((50, 1))
        super().__init__(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
        self.seed = keras.random.SeedGenerator(0)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        found = match(grid_anchors((5, 10), sides=((9, 9),)), y, ops.ones((3, 2), "bool"))
        drawn = sample(found["state"], 16, 0.5, self.seed)
        values = ops.take_along_axis(y_pred[..., 0], drawn["indices"], 1)
        return ops.mean(ops.where(drawn["valid"], ops.square(values), 0.0))


def test_in_a_compiled_training_step():
    model = Sampled()
    model.compile("sgd")
    before = model.get_weights()[0]
    boxes = np.float32([[[0, 0, 9, 9], [20, 20, 30, 31]]] * 3)
    model.fit(np.ones((3, 50, 1), "float32"), boxes, batch_size=3, epochs=2, verbose=0)
    assert (model.get_weights()[0] != before).all()
    assert ops.convert_to_numpy(model.seed.state).tolist() != [0, 0]


class Drawn(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(0)

    def call(self, state):
        return sample(state, 4, 0.5, self.seed)["valid"]


def test_compiled_for_any_number_of_regions():
    state = keras.Input((None,), dtype="int32")
    model = keras.Model(state, Drawn()(state))
    drawn = [model.predict(np.zeros((1, n), "int32"), verbose=0).sum() for n in (2, 3, 9)]
    assert drawn == [2, 3, 4]


def test_masks_in_their_own_boxes_are_the_same_and_elsewhere_what_is_there():
    mask = np.zeros((1, 1, 8, 8), "float32")
    mask[0, 0, :, 4:] = 1  # the right half
    box = np.float32([[[10, 20, 26, 28]]])

    def seen(region):
        return ops.convert_to_numpy(masks_in(np.float32([[region]]), box, mask, 4))[0, 0]

    np.testing.assert_array_equal(seen([10, 20, 26, 28]), [[0, 0, 1, 1]] * 4)
    np.testing.assert_array_equal(seen([18, 20, 34, 28]), [[1, 1, 0, 0]] * 4)
    # From 8 pixels above, and twice as wide.
    expected = [[0] * 4, [0] * 4, [0, 1, 0, 0], [0, 1, 0, 0]]
    np.testing.assert_array_equal(seen([10, 12, 42, 28]), expected)
    assert not seen([100, 100, 120, 120]).any() and not seen([12, 21, 12, 21]).any()


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [np.nan] * 4, [-1] * 4])
def test_masks_of_boxes_without_area_are_nowhere(box):
    masks = np.ones((1, 1, 8, 8), "float32")
    for region in ([10, 10, 20, 20], [0, 0, 1, 1]):
        found = masks_in(np.float32([[region]]), np.float32([[box]]), masks, 4)
        assert not ops.convert_to_numpy(found).any()


def test_iou_of_masks_counts_what_lies_outside_the_region():
    # 100 pixels of region: 50 are predicted, of 40 that are the object, which has 60 in all.
    masks, targets = np.zeros((2, 1, 2, 10, 10), bool)
    masks[0, 0, :5], targets[0, 0, 2:6] = True, True
    regions = np.float32([[[0, 0, 10, 10], [3, 3, 3, 3]]])
    found = ops.convert_to_numpy(masks_iou(masks, targets, regions, np.float32([[60, 0]])))
    np.testing.assert_allclose(found, [[30 / (50 + 60 - 30), 0]], rtol=1e-6)
