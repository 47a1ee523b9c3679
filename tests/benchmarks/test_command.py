import numpy as np
import pytest

from benchmarks.command import main, scores
from cvlib import masks


def test_what_is_right_scores_one_under_each_name_of_its_kind():
    boxes, labels = np.float32([[0, 0, 4, 4], [2, 2, 8, 8]]), np.array([0, 1])
    sample = {"boxes": boxes, "labels": labels}
    found = sample | {"confidence": np.float32([0.9, 0.8])}
    assert scores([sample], [found], 2) == {"mAP@0.5": 1, "mAP": 1}
    whole = np.ones((2, 14, 14), "float32")
    sample |= {"masks": masks.paste(whole, boxes, 9, 9)}
    assert scores([sample], [found | {"masks": whole}], 2) == {
        "mAP@0.5": 1,
        "mAP": 1,
        "mAPr@0.5": 1,
        "mAPr@0.7": 1,
    }
    classes = np.uint8([[0, 1], [1, 255]])
    found = {"segmentation": np.uint8([[0, 1], [0, 0]])}
    values = scores([{"segmentation": classes}], [found], 2)
    assert values == pytest.approx({"mIoU": 0.5, "pixel_accuracy": 2 / 3})


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.setattr("sys.argv", ["command", "yolo", "voc:$NO_SUCH/x"])
    with pytest.raises(SystemExit, match="the environment variable is not set"):
        main()
