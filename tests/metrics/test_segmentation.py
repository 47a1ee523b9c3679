import keras
import numpy as np
import pytest

from cvlib.metrics import MeanIoU, edge_distance

VOID = 255


def pixels(classes=4, images=5, seed=0):
    """True classes, 2 never, with void pixels, and predicted ones, 3 never."""
    rng = np.random.default_rng(seed)
    true = rng.choice([0, 1, 3, VOID], (images, 6, 7), p=[0.6, 0.2, 0.1, 0.1])
    found = np.where(rng.random(true.shape) < 0.3, rng.integers(0, 3, true.shape), true % classes)
    return true.astype("uint8"), np.where(found == 3, 1, found).astype("int32")


def naively(true, found, classes):
    """The IoU of each class, pixel accuracy and class accuracy, by loops over the classes."""
    true, found = true[true != VOID], found[true != VOID]
    iou, accuracy = [], []
    for c in range(classes):
        union = np.sum((true == c) | (found == c))
        iou.append(np.sum((true == c) & (found == c)) / union if union else np.nan)
        if np.any(true == c):
            accuracy.append(np.mean(found[true == c] == c))
    return np.array(iou), np.mean(true == found), np.mean(accuracy)


def number(x):
    return float(keras.ops.convert_to_numpy(x))


def test_by_hand():
    metric = MeanIoU(3)
    metric.update_state([[[0, 0, 1, VOID]]], [[[0, 1, 1, 2]]])
    np.testing.assert_array_equal(metric.confusion(), [[1, 1, 0], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(metric.per_class(), [1 / 2, 1 / 2, np.nan])
    assert number(metric.result()) == 1 / 2
    assert number(metric.pixel_accuracy()) == pytest.approx(2 / 3)
    assert number(metric.class_accuracy()) == 3 / 4


def test_one_matrix_over_all_batches_equals_a_loop():
    true, found = pixels()
    metric = MeanIoU(4)
    for part in (slice(0, 2), slice(2, 5)):
        metric.update_state(true[part], found[part])
    iou, pixel, by_class = naively(true, found, 4)
    assert (iou[:2] > 0).all() and (iou[2:] == 0).all()
    np.testing.assert_allclose(metric.per_class(), iou, rtol=1e-6)
    assert number(metric.result()) == pytest.approx(np.mean(iou), rel=1e-6)
    assert number(metric.pixel_accuracy()) == pytest.approx(pixel, rel=1e-6)
    assert number(metric.class_accuracy()) == pytest.approx(by_class, rel=1e-6)
    of_images = np.mean([np.nanmean(naively(t, f, 4)[0]) for t, f in zip(true, found, strict=True)])
    assert abs(number(metric.result()) - of_images) > 1e-4


def test_what_is_nowhere_is_left_out_and_without_pixels_all_is_nan():
    metric = MeanIoU(9)
    assert np.isnan(number(metric.result())) and np.isnan(number(metric.pixel_accuracy()))
    true, found = pixels()
    metric.update_state(true, found)
    np.testing.assert_array_equal(np.isnan(metric.per_class()), [False] * 4 + [True] * 5)
    assert number(metric.result()) == pytest.approx(np.mean(naively(true, found, 4)[0]), rel=1e-6)
    metric.reset_state()
    metric.update_state(np.full((1, 2, 2), VOID), np.zeros((1, 2, 2)))
    assert np.isnan(number(metric.result()))


@pytest.mark.parametrize("true, found", [(4, 0), (254, 0), (-1, 0), (0, 4), (0, 255), (0, -1)])
def test_a_label_that_is_no_class_makes_the_result_nan(true, found):
    metric = MeanIoU(4)
    metric.update_state(*pixels())
    metric.update_state(np.array([[[true]]]), np.array([[[found]]]))
    assert np.isnan(number(metric.result())) and np.isnan(number(metric.class_accuracy()))
    assert np.isnan(number(metric.pixel_accuracy()))


def test_pixels_add_up_exactly_beyond_what_a_float32_counts():
    metric = MeanIoU(1)
    many = np.zeros((1, 4096, 4096), "uint8")
    for _ in range(2):
        metric.update_state(many, many)
    for _ in range(3):
        metric.update_state(many[:, :1, :1], many[:, :1, :1])
    low, high = (keras.ops.convert_to_numpy(w)[0] for w in (metric.low, metric.high))
    assert int(high) * 2**24 + int(low) == 2 * 4096**2 + 3


def test_inside_a_compiled_graph_with_scores():
    true, found = pixels(images=8)
    scores = np.eye(4, dtype="float32")[found]
    inputs = keras.Input((6, 7, 4))
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile("sgd", lambda t, p: keras.ops.sum(0 * p), metrics=[MeanIoU(4)])
    measured = model.evaluate(scores, true, batch_size=3, verbose=0, return_dict=True)
    assert measured["mIoU"] == pytest.approx(np.mean(naively(true, found, 4)[0]), rel=1e-6)


def test_config_round_trip():
    metric = MeanIoU.from_config(MeanIoU(4, void=3, name="iou").get_config())
    assert metric.name == "iou"
    metric.update_state([[[0, 3, 1]]], [[[0, 2, 2]]])
    np.testing.assert_allclose(metric.per_class(), [1, 0, 0, np.nan])


def test_other_sizes_and_sample_weights_are_refused():
    true, found = pixels()
    for other in (found[:, :1], found[0], found[:1]):
        with pytest.raises(ValueError, match=r"y_true is \(5, 6, 7\), but"):
            MeanIoU(4).update_state(true, other)
    with pytest.raises(ValueError, match="takes no sample weights"):
        MeanIoU(4).update_state(true, found, sample_weight=np.ones(5))


def test_distance_to_the_nearest_edge():
    rng = np.random.default_rng(0)
    classes = np.kron(rng.integers(0, 3, (3, 4)), np.ones((5, 4), int))
    places = np.stack(np.mgrid[:15, :16], axis=-1).reshape(-1, 2)
    at_edge = []
    for y, x in places:
        sides = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [(i, j) for i, j in sides if 0 <= i < 15 and 0 <= j < 16]
        if any(classes[side] != classes[y, x] for side in inside):
            at_edge.append((y, x))
    expected = 1 + np.abs(places[:, None] - at_edge).max(axis=-1).min(axis=1)
    np.testing.assert_array_equal(edge_distance(classes).ravel(), expected)
    assert (edge_distance(np.zeros((3, 5))) == 5).all()
