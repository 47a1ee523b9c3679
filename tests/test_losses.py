import numpy as np
import pytest
from keras import ops

from cvlib import losses

TRUE = np.float32([[0, 0, 4, 4], [1, 1, 3, 3]])
PREDICTED = np.float32([[0, 0, 4, 4], [1, 1, 3.5, 1]])


def test_l2():
    values = ops.convert_to_numpy(losses.l2(TRUE, PREDICTED))
    np.testing.assert_allclose(values, [0, (0.25 + 4) / 4])


def test_smooth_l1_on_both_sides_of_beta():
    values = ops.convert_to_numpy(losses.smooth_l1(TRUE, PREDICTED, beta=1.0))
    np.testing.assert_allclose(values, [0, (0.25 / 2 + 1.5) / 4])
    steeper = ops.convert_to_numpy(losses.smooth_l1(TRUE, PREDICTED, beta=0.1))
    np.testing.assert_allclose(steeper, [0, (0.45 + 1.95) / 4], rtol=1e-6)


def test_iou_loss():
    half = np.float32([[0, 0, 4, 2], [10, 10, 12, 12]])
    np.testing.assert_allclose(ops.convert_to_numpy(losses.iou_loss(TRUE, half)), [0.5, 1])


def test_mean_where():
    values = np.float32([[1, 2], [4, 100]])
    assert float(losses.mean_where(values < 50, values)) == pytest.approx(7 / 3)
    assert float(losses.mean_where(values > 100, values)) == 0


def test_pixel_cross_entropy():
    logits = np.log(np.float32([[[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.2, 0.4, 0.4]]]]))

    def loss(*labels):
        return float(losses.pixel_cross_entropy(np.uint8([[labels]]), logits))

    assert loss(0, 255, 1) == pytest.approx(-np.log([0.5, 0.4]).mean(), rel=1e-5)
    assert loss(255, 255, 255) == 0
    assert np.isnan(loss(0, 3, 255))


@pytest.mark.parametrize("loss", [losses.l2, losses.smooth_l1])
def test_half_precision_does_not_overflow_and_types_may_differ(loss):
    true, found = np.float32([[0, 0, 300, 300]]), np.float32([[300, 300, 600, 600]])
    expected = ops.convert_to_numpy(loss(true, found))
    halves = loss(ops.cast(true, "float16"), ops.cast(found, "float16"))
    np.testing.assert_allclose(ops.convert_to_numpy(halves), expected)
    mixed = loss(ops.cast(true, "int32"), ops.cast(found, "float16"))
    np.testing.assert_allclose(ops.convert_to_numpy(mixed), expected)
