import keras
import numpy as np

from cvlib.layers import RoIWarping

from .harness import _gradients, run_layer_test
from .test_crop_and_resize import cropped_naively

BOXES = np.float32(
    [
        [[9.3, 4.7, 41.1, 20.4], [-20.2, 3.3, 59.6, 30.1], [200, 200, 240, 230]],
        [[30.3, 20.1, 3.1, 4.8], [27.1, 13.3, 29.4, 15.2], [1.2, 0.7, 55.3, 39.1]],
    ]
)


def features(dtype="float32"):
    return np.random.default_rng(0).standard_normal((2, 5, 7, 2)).astype(dtype)


def warped_naively(features, boxes):
    """Crops of a map whose border goes on far beyond all boxes."""
    margin = 40
    sides = (margin, margin)
    extended = np.pad(features, ((0, 0), sides, sides, (0, 0)), "edge")
    return cropped_naively((3, 4))(extended, boxes / 8 + margin)


def test_layer():
    run_layer_test(
        RoIWarping,
        {"size": (3, 4), "stride": 8},
        {"features": features(), "boxes": BOXES},
        warped_naively,
        float32=("boxes",),
    )


def test_gradient_of_the_boxes_in_float64():
    """The cascades' release rounds the boxes forward: its gradient is not that of its output."""
    if keras.backend.backend() == "jax":
        import jax

        with jax.enable_x64(True):
            check_gradient()
    else:
        check_gradient()


def check_gradient():
    maps = keras.ops.convert_to_tensor(features("float64"), "float64")
    layer = RoIWarping((3, 4), 8, dtype="float64")
    upstream = np.random.default_rng(1).standard_normal((2, 3, 3, 4, 2))

    def objective(boxes):
        boxes = keras.ops.convert_to_tensor(boxes, "float64")
        crops = keras.ops.convert_to_numpy(layer(maps, boxes))
        assert crops.dtype == "float64"
        return np.vdot(crops, upstream)

    boxes = BOXES.astype("float64")
    inputs = {"boxes": keras.ops.convert_to_tensor(boxes, "float64"), "features": maps}
    projection = keras.ops.convert_to_tensor(upstream, "float64")
    expected = np.zeros_like(boxes)
    for place in np.ndindex(boxes.shape):
        step = np.zeros_like(boxes)
        step[place] = 1e-5
        expected[place] = (objective(boxes + step) - objective(boxes - step)) / 2e-5
    gradient, *_ = _gradients(layer, inputs, [0], [projection])
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-9)
