import numpy as np
import pytest
from keras import ops

from cvlib.layers import DistanceTransformPooling

from .harness import run_layer_test


def fits(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def moved_naively(fit, weights, reach, strides):
    """Every displacement of every part at every place, one after the other."""
    batch, height, width, channels = fit.shape
    size = -(-height // strides), -(-width // strides)
    scores = np.full((batch, *size, channels), -np.inf, "float32")
    displacements = np.zeros((*scores.shape, 2), "int32")
    for n, i, j, c in np.ndindex(scores.shape):
        ay, by, ax, bx = weights[c]
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                y, x = strides * i + dy, strides * j + dx
                if not (0 <= y < height and 0 <= x < width):
                    continue
                score = fit[n, y, x, c] - (ay * dy**2 + by * dy + ax * dx**2 + bx * dx)
                if score > scores[n, i, j, c]:
                    scores[n, i, j, c] = score
                    displacements[n, i, j, c] = dy, dx
    return {"scores": scores, "displacements": displacements}


@pytest.mark.parametrize(("reach", "strides"), [(2, 1), (3, 2)])
def test_distance_transform_pooling(reach, strides):
    run_layer_test(
        DistanceTransformPooling,
        {"reach": reach, "strides": strides},
        fits(2, 5, 7, 2),
        # Drawn weights may be negative: then farther away is better, and the bound is what counts.
        lambda x, weights: moved_naively(x, weights[0], reach, strides),
    )


def test_displacement_is_target_minus_source():
    fit = np.zeros((1, 9, 9, 1), "float32")
    fit[0, 6, 3] = 5
    layer = DistanceTransformPooling()
    outputs = layer(fit)
    scores, displacements = (ops.convert_to_numpy(outputs[k]) for k in outputs)
    assert displacements[0, 4, 4, 0].tolist() == [2, -1]
    np.testing.assert_allclose(scores[0, 4, 4, 0], 5 - 0.1 * (2**2 + 1**2), rtol=1e-6)
    # A positive weight of dy makes it cost to move down, as this part has to.
    layer.deformation.assign([[0.1, 0.5, 0.1, 0.5]])
    found = ops.convert_to_numpy(layer(fit)["scores"])[0, 4, 4, 0]
    np.testing.assert_allclose(found, 5 - 0.1 * 5 - 0.5 * 2 + 0.5 * 1, rtol=1e-6)


def test_bound_does_not_matter_where_moving_costs_enough():
    """Fits differ by at most 1, so no part moves beyond 4 cells at a price of 1 / 16 per square."""
    fit = np.random.default_rng(0).uniform(0, 1, (1, 12, 11, 3)).astype("float32")
    weights = np.tile(np.float32([1 / 16, 0, 1 / 16, 0]), (3, 1))
    layer = DistanceTransformPooling()
    layer.build(fit.shape)
    layer.deformation.assign(weights)
    expected = moved_naively(fit, weights, 12, 1)
    for key, values in layer(fit).items():
        np.testing.assert_allclose(ops.convert_to_numpy(values), expected[key], atol=1e-6)


def test_equal_maxima():
    layer = DistanceTransformPooling(1)
    layer.build((1, 3, 3, 1))
    layer.deformation.assign(np.zeros((1, 4)))
    outputs = layer(np.ones((1, 3, 3, 1), "float32"))
    found = ops.convert_to_numpy(outputs["displacements"])[0, :, :, 0]
    assert found[1, 1].tolist() == [-1, -1] and found[0, 0].tolist() == [0, 0]


def test_starts_as_a_price_without_a_direction():
    layer = DistanceTransformPooling()
    layer.build((None, None, None, 2))
    weights = layer.get_weights()[0]
    np.testing.assert_allclose(weights, [[0.1, 0, 0.1, 0]] * 2)
