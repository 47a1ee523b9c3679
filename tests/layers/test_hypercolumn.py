import keras
import numpy as np
import pytest
from keras import ops

from cvlib.layers import ClassifierGrid, Hypercolumn, HypercolumnMasks

from .harness import run_layer_test


def inputs():
    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((2, *shape)).astype("float32") for shape in ((6, 5, 2), (3, 3, 4))]
    whole = rng.standard_normal((2, 3, 5)).astype("float32")
    corners = rng.uniform(-3, 12, (2, 3, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(2, 13, (2, 3, 2))], axis=-1)
    return {
        "features": [*maps, whole],
        "boxes": boxes.astype("float32"),
        "labels": np.int32([[0, 1, -1], [1, 1, 0]]),
    }


def interpolated(grid, y, x):
    """What a grid (H, W, ...) holds at a place in indices; beyond its border it goes on."""
    y, x = (np.clip(v, 0, n - 1) for v, n in zip((y, x), grid.shape, strict=False))
    value = 0.0
    for i, j in np.ndindex(grid.shape[:2]):
        value = value + grid[i, j] * max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j))
    return value


def columns(features, boxes, strides, size):
    """The hypercolumns (B, R, height, width, all channels), one number below the other."""
    result = []
    for b, r, i, j in np.ndindex(*boxes.shape[:2], *size):
        x1, y1, x2, y2 = boxes[b, r]
        y, x = y1 + (y2 - y1) * (i + 0.5) / size[0], x1 + (x2 - x1) * (j + 0.5) / size[1]
        result.append(
            np.concatenate(
                [
                    f[b, r] if s is None else interpolated(f[b], y / s - 0.5, x / s - 0.5)
                    for f, s in zip(features, strides, strict=True)
                ]
            )
        )
    return np.reshape(result, (*boxes.shape[:2], *size, -1))


def classified(strides, size, channels, scales=(1, 1, 1)):
    """Hypercolumns first, then a linear classifier of them."""

    def reference(features, boxes, labels=None, *, weights):
        scaled = [s * f for s, f in zip(scales, features, strict=False)]
        kernel = np.concatenate([w.reshape(-1, w.shape[-1]) for w in weights[::2]])
        scores = columns(scaled, boxes, strides, size) @ kernel + sum(weights[1::2])
        scores = scores.reshape(*scores.shape[:4], -1, channels)
        own = np.maximum(np.zeros(boxes.shape[:2], int) if labels is None else labels, 0)
        b, r = np.indices(own.shape)
        return scores[b, r, :, :, own]

    return reference


@pytest.mark.slow
def test_scores_of_maps_upsampled_are_those_of_hypercolumns():
    arguments = {
        "channels": 3,
        "strides": (2, 4, None),
        "size": (4, 5),
        "num_classes": 2,
        "scales": (0.5, 2.0, 1.0),
    }
    reference = classified((2, 4, None), (4, 5), 3, arguments["scales"])
    run_layer_test(
        Hypercolumn,
        arguments,
        inputs(),
        reference,
        float32=("boxes",),
        differentiable=("features",),
    )


def test_without_classes_and_without_maps():
    whole = {"features": inputs()["features"][2:], "boxes": inputs()["boxes"]}
    arguments = {"channels": 3, "strides": (None,), "size": (2, 3)}
    reference = classified((None,), (2, 3), 3)
    run_layer_test(
        Hypercolumn,
        arguments,
        whole,
        reference,
        float32=("boxes",),
        differentiable=("features",),
    )


@pytest.mark.slow
def test_boxes_move_scores():
    given = inputs()
    one = {"features": given["features"][1:2], "boxes": given["boxes"], "labels": given["labels"]}
    arguments = {"channels": 1, "strides": (4,), "size": (2, 2), "num_classes": 2}
    one["boxes"] = np.float32([[[2.2, 3.1, 9.4, 8.3]], [[3.7, 2.6, 8.8, 9.2]]])
    one["labels"] = np.int32([[1], [0]])
    run_layer_test(Hypercolumn, arguments, one, classified((4,), (2, 2), 1), float32=("boxes",))


def test_a_larger_kernel_sees_the_neighbours_of_a_cell():
    x = np.zeros((1, 5, 5, 1), "float32")
    x[0, 2, 3] = 1
    boxes = np.float32([[[0, 0, 40, 40]]])
    for size, seen in ((1, 1), (3, 9)):
        layer = Hypercolumn(1, (8,), (5, 5), kernel_size=size)
        layer([x], boxes)
        layer.set_weights([np.ones((size, size, 1, 1)), np.zeros(1)])
        found = ops.convert_to_numpy(layer([x], boxes))[0, 0, :, :, 0]
        assert found.sum() == seen
        assert found[2, 3] == 1


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 strides, but 3 `scales`"):
        Hypercolumn(1, (8, 16), scales=(1, 1, 1))
    with pytest.raises(ValueError, match="2 strides, but 1 features"):
        Hypercolumn(1, (8, 16))([np.zeros((1, 4, 4, 2))], np.zeros((1, 1, 4)))
    with pytest.raises(ValueError, match="no `strides`"):
        Hypercolumn(1, ())


@pytest.mark.parametrize("layer", [lambda h: h, HypercolumnMasks])
@pytest.mark.parametrize("labels, features", [(1, 3), (3, 1), (4, 3)])
def test_each_box_needs_its_label_and_its_features(layer, labels, features):
    given = [np.zeros((1, 4, 4, 2)), np.zeros((1, features, 5))]
    hypercolumn = layer(Hypercolumn(1, (8, None), (6, 6), num_classes=2))
    with pytest.raises(ValueError, match=rf"3 boxes, .* for \[{labels}, {features}\]"):
        hypercolumn(given, np.zeros((1, 3, 4)), np.zeros((1, labels), "int32"))


@pytest.mark.parametrize("depth", [0, 2])
def test_a_label_that_is_no_class_takes_nothing_from_another_image(depth):
    given = inputs()
    features, strides = [given["features"][depth]], [(2, 4, None)[depth]]
    layer = Hypercolumn(4, strides, (3, 4), num_classes=2)
    found, expected = (
        layer(features, given["boxes"], np.int32([[0, 1, label], [0, 0, label]]))
        for label in (2, 1)
    )
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (found, expected)))


def mixed(logits):
    """Each classifier's probability at each pixel, mixed one by one."""
    *shape, count = logits.shape
    result = np.zeros(shape)
    side = round(count**0.5)
    for b, r, i, j in np.ndindex(*shape):
        said = 1 / (1 + np.exp(-logits[b, r, i, j].reshape(side, side)))
        places = ((i + 0.5) * side / shape[2] - 0.5, (j + 0.5) * side / shape[3] - 0.5)
        result[b, r, i, j] = interpolated(said, *places)
    return result


def test_probabilities_are_interpolated_between_classifiers():
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((2, 2, 6, 5, 9)).astype("float32")
    run_layer_test(ClassifierGrid, {}, logits, mixed)


def test_what_is_interpolated_is_the_probability_and_the_border_goes_on():
    # Two classifiers in each direction: the left ones are sure, the right ones deny.
    logits = np.broadcast_to(np.float32([4, -8, 4, -8]), (1, 1, 4, 4, 4))
    found = ops.convert_to_numpy(ClassifierGrid()(logits))[0, 0]
    sure, denied = 1 / (1 + np.exp(-4.0)), 1 / (1 + np.exp(8.0))
    # Centres of four pixels over two parts: -0.25, 0.25, 0.75 and 1.25 parts.
    expected = [sure, 0.75 * sure + 0.25 * denied, 0.25 * sure + 0.75 * denied, denied]
    np.testing.assert_allclose(found, np.tile(expected, (4, 1)), rtol=1e-5)


def test_one_classifier_says_the_same_everywhere_and_grids_are_square():
    logits = np.random.default_rng(0).standard_normal((1, 2, 3, 4, 1)).astype("float32")
    found = ops.convert_to_numpy(ClassifierGrid()(logits))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits[..., 0])), rtol=1e-5)
    with pytest.raises(ValueError, match="5 classifiers are no square grid"):
        ClassifierGrid()(np.zeros((1, 1, 2, 2, 5)))


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [1, 2])
def test_masks_are_those_of_the_grid_though_each_classifier_is_asked_only_where_it_counts(
    num_classes,
):
    # 7 rows and 5 columns are no multiples of 3 parts.
    strides, size = (2, 4, None), (7, 5)
    hypercolumn = Hypercolumn(9, strides, size, num_classes, scales=(0.5, 2.0, 1.0))
    given = inputs()
    given["labels"] = np.minimum(given["labels"], num_classes - 1)
    scores = classified(strides, size, 9, hypercolumn.scales)

    def reference(features, boxes, labels, *, weights):
        return mixed(scores(features, boxes, labels, weights=weights))

    run_layer_test(
        HypercolumnMasks,
        {"hypercolumn": hypercolumn},
        given,
        reference,
        float32=("boxes",),
        differentiable=("features",),
    )


@pytest.mark.parametrize(("size", "side"), [((6, 6), 1), ((2, 9), 4), ((50, 50), 5)])
def test_masks_of_other_grids_and_of_whole_boxes_alone(size, side):
    given = inputs()
    for depths in ((0, 1, 2), (2,)):
        features = [given["features"][i] for i in depths]
        strides = [(2, 4, None)[i] for i in depths]
        hypercolumn = Hypercolumn(side**2, strides, size, num_classes=2, kernel_size=3)
        masks = HypercolumnMasks(hypercolumn)
        masks(features, given["boxes"], given["labels"])
        rng = np.random.default_rng(0)
        for weight in hypercolumn.weights:
            weight.assign(rng.standard_normal(weight.shape))
        found = masks(features, given["boxes"], given["labels"])
        expected = ClassifierGrid()(hypercolumn(features, given["boxes"], given["labels"]))
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (found, expected)), atol=1e-6)


def test_scores_of_half_precision_become_masks_of_full():
    given = inputs()
    hypercolumn = Hypercolumn(9, (2, 4, None), (7, 5), num_classes=2, dtype="mixed_bfloat16")
    found = HypercolumnMasks(hypercolumn, dtype="float32")(**given)
    expected = ClassifierGrid(dtype="float32")(hypercolumn(**given))
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (found, expected)), atol=1e-3)


def test_there_may_be_no_boxes():
    given = inputs()
    given = {
        "features": [*given["features"][:2], given["features"][2][:, :0]],
        "boxes": given["boxes"][:, :0],
        "labels": given["labels"][:, :0],
    }
    hypercolumn = Hypercolumn(4, (2, 4, None), (7, 5), num_classes=2)
    assert hypercolumn(**given).shape == (2, 0, 7, 5, 4)
    assert HypercolumnMasks(hypercolumn)(**given).shape == (2, 0, 7, 5)


def test_the_classifiers_of_masks_are_a_square():
    with pytest.raises(ValueError, match="5 classifiers are no square grid"):
        HypercolumnMasks(Hypercolumn(5))
    with pytest.raises(ValueError, match="0 classifiers are no square grid"):
        HypercolumnMasks(Hypercolumn(0))
