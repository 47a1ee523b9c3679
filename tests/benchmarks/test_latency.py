import sys
import time

import keras
import numpy as np
import pytest

from benchmarks import latency
from benchmarks.latency import SYSTEMS, main, noise, time_system
from cvlib import models
from cvlib.models.system import System
from cvlib.records import load_records


@keras.saving.register_keras_serializable("test_latency")
class Small(System):
    """Two stages, of which the second takes boxes and what the first gives."""

    detections = ("boxes", "sums")

    def __init__(self, size=(32, 32), **kwargs):
        images = keras.Input((*size, 3), name="images")
        boxes = keras.Input((None, 4), name="boxes")
        means = keras.layers.GlobalAveragePooling2D()(images)
        sums = keras.layers.Dense(2, kernel_initializer="ones")(means)
        found = {"boxes": boxes + 1, "sums": sums}
        super().__init__({"images": images, "boxes": boxes}, found, **kwargs)
        self._parts = {"backbone": (images, means), "heads": ([boxes, means], found)}
        self._size = size

    def get_config(self):
        return {"size": self._size, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def test_noise_has_the_names_shapes_and_types_of_the_inputs():
    x = noise(Small(), 3)
    assert x["images"].shape == (3, 32, 32, 3) and x["images"].dtype == np.float32
    assert x["images"].min() < 5 < 250 < x["images"].max() < 255
    boxes = x["boxes"]
    assert boxes.shape == (3, 100, 4) and (boxes[..., :2] <= boxes[..., 2:]).all()
    assert 0 <= boxes.min() and 30 < boxes.max() <= 32
    assert noise(Small(size=(None, None)), 1)["images"].shape == (1, 128, 128, 3)


def test_stages_see_what_those_before_them_make_and_the_warm_up_does_not_count(monkeypatch):
    seen = []

    class Stage:
        def __init__(self, model):
            self.input, self.model, self.calls = model.input, model, 0

        def predict_on_batch(self, x):
            self.calls += 1
            seen.append((self.model.name, keras.tree.flatten(x)))
            time.sleep(0.02 if self.calls > 2 else 0.5)

    system = Small()
    stages = [(name, Stage(stage)) for name, stage in system.stages()]
    monkeypatch.setattr(system, "stages", lambda: stages)
    times = time_system(system, 4, runs=3, warmup=2)
    assert list(times) == ["graph", "backbone", "heads"]
    assert all(len(values) == 3 for values in times.values())
    assert 20 <= min(times["heads"]) and max(times["heads"]) < 400 and stages[1][1].calls == 5
    x = noise(system, 4)
    boxes, means = seen[-1][1]
    np.testing.assert_array_equal(boxes, x["boxes"])
    np.testing.assert_allclose(means, x["images"].mean(axis=(1, 2)), rtol=1e-4)


def test_a_saved_system_gets_a_record_for_each_batch_size(tmp_path, monkeypatch, capsys):
    path = tmp_path / "small.keras"
    Small().save(path)
    monkeypatch.setenv("CVLIB_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr("sys.argv", ["latency", str(path), "--batch-size", "1", "2", "--runs", "3"])
    monkeypatch.setattr("sys.argv", [*sys.argv, "--stages"])
    main()
    found = load_records(tmp_path / "records")
    assert sorted(r["settings"]["batch_size"] for r in found) == [1, 2]
    for one in found:
        assert list(one["milliseconds"]) == ["graph", "backbone", "heads"]
        assert one["milliseconds"]["graph"]["n"] == 3 and one["parameters"] > 0
        assert (one["backend"], one["resolution"]) == (keras.backend.backend(), [32, 32])
        assert one["precision"] == "float32" and one["data"] == "noise"
        metrics = one["metrics"]
        assert list(metrics) == ["images/s", "ms", "ms p90", "ms/backbone", "ms/heads"]
        batch_size = one["settings"]["batch_size"]
        assert metrics["images/s"] * metrics["ms"] == pytest.approx(1000 * batch_size)
    assert "batch 2, heads: p50" in capsys.readouterr().out


def test_a_file_that_is_no_system_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["latency", str(tmp_path / "no.keras")])
    with pytest.raises(SystemExit, match="no.keras: the file does not exist"):
        latency.main()


def test_the_systems_of_a_group_are_built_and_timed(tmp_path, monkeypatch, capsys):
    few = {"Localizer": SYSTEMS["scenes"]["Localizer"], "YOLO": SYSTEMS["scenes"]["YOLO"]}
    monkeypatch.setitem(SYSTEMS, "few", few)
    monkeypatch.setenv("CVLIB_RECORDS", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["latency", "few", "--batch-size", "2", "--runs", "2"])
    main()
    found = load_records(tmp_path)
    assert [r["system"] for r in found] == ["Localizer", "YOLO"]
    assert all(r["settings"] == {"model": "few", "batch_size": 2} for r in found)
    assert all(list(r["metrics"]) == ["images/s", "ms", "ms p90"] for r in found)


def test_every_system_of_the_course_has_an_entry():
    names = {getattr(build, "args", ["OverFeat"])[0] for build in SYSTEMS["scenes"].values()}
    assert names == {name for name, value in vars(models).items() if isinstance(value, type)}
