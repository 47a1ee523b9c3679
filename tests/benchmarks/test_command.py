import numpy as np
import pytest

from benchmarks.command import main, scores
from cvlib import cli, masks
from cvlib.models import FCN, backbone
from cvlib.records import load_records


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


def test_the_record_names_the_weights_that_the_trunk_began_with(tmp_path, monkeypatch):
    trained = []

    def train(command):
        args = cli.parser().parse_args(command)
        trained.append(args.weights)
        FCN(backbone("tiny"), 2, (32, 32), classes=("a", "b")).save(args.out)

    pixels = [{"segmentation": np.zeros((2, 2), np.uint8)}]
    monkeypatch.setattr(cli, "main", train)
    monkeypatch.setattr(cli, "detect", lambda *_: (pixels, pixels))
    monkeypatch.setattr("sys.argv", ["command", "fcn", "scenes", "--out", str(tmp_path)])
    monkeypatch.setenv("CVLIB_RECORDS", str(tmp_path / "records"))
    for weights in ("here/one.weights.h5", "here/two.weights.h5", "there/two.weights.h5"):
        monkeypatch.setenv("CVLIB_WEIGHTS", weights)
        main()
    # What another began with is another model; a folder does not matter.
    assert trained == ["here/one.weights.h5", "here/two.weights.h5"]
    found = load_records(tmp_path / "records")
    named = {(r["settings"]["weights"], r["settings"]["epochs"]) for r in found}
    assert named == {("one.weights.h5", 24), ("two.weights.h5", 24)} and len(found) == 2
