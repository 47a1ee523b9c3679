import numpy as np
import pytest

from cvlib import metrics
from cvlib.metrics import BoxIoU, LabelAccuracy, LocalizationAccuracy

TRUE = {
    "boxes": np.float32([[[0, 0, 4, 4]], [[0, 0, 4, 4]], [[0, 0, 4, 4]], [[-1, -1, -1, -1]]]),
    "labels": np.int32([[0], [1], [2], [-1]]),
}
# IoU 1 and class right; IoU exactly 0.5 and class right; IoU 0.75 and class wrong; padding.
PREDICTED = {
    "boxes": np.float32([[[0, 0, 4, 4]], [[0, 0, 4, 2]], [[0, 0, 4, 3]], [[0, 0, 9, 9]]]),
    "labels": np.int32([[0], [1], [0], [-1]]),
}


@pytest.mark.parametrize(
    "metric, expected",
    [(LabelAccuracy(), 2 / 3), (BoxIoU(), 2.25 / 3), (LocalizationAccuracy(), 1 / 3)],
)
def test_by_hand_over_two_batches(metric, expected):
    for part in (slice(0, 1), slice(1, 4)):
        metric.update_state(*({k: v[part] for k, v in y.items()} for y in (TRUE, PREDICTED)))
    assert float(metric.result()) == pytest.approx(expected)
    metric.reset_state()
    assert float(metric.result()) == 0


def test_config_round_trip():
    metric = BoxIoU.from_config(BoxIoU(name="iou").get_config())
    assert metric.name == "iou"


def test_every_exported_name_exists():
    assert all(callable(getattr(metrics, name)) for name in metrics.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Accuracy'"):
        metrics.Accuracy  # noqa: B018
