import time

import numpy as np

from benchmarks.latency import main, time_system
from cvlib.records import load_records


class Stage:
    """Takes a known time, and much longer while it warms up."""

    def __init__(self, shape, milliseconds):
        self.inputs, self.seconds, self.calls = [np.zeros((1, *shape))], milliseconds / 1000, 0

    def predict_on_batch(self, x):
        assert x.shape == (4, *self.inputs[0].shape[1:])
        self.calls += 1
        time.sleep(self.seconds if self.calls > 2 else 1)


def test_stages_are_timed_apart_and_without_the_warm_up():
    system, head = Stage((8, 8, 3), 60), Stage((2, 2, 5), 20)
    system.stages = lambda: [("head", head)]
    times = time_system(system, 4, runs=3, warmup=2)
    assert list(times) == ["graph", "head"] and len(times["graph"]) == 3
    assert 20 <= min(times["head"]) < 60 <= min(times["graph"])
    assert max(times["graph"]) < 1000 and head.calls == 5


def test_a_saved_system_gets_a_record_for_each_batch_size(tmp_path, monkeypatch, capsys):
    import keras

    from cvlib.models.system import System

    @keras.saving.register_keras_serializable("test_latency")
    class Small(System):
        def __init__(self, **kwargs):
            images, maps, row = (keras.Input(s) for s in ((32, 32, 3), (None, None, 3), (3,)))
            backbone = keras.Model(maps, keras.layers.GlobalAveragePooling2D()(maps))
            heads = keras.Model(row, keras.layers.Dense(2)(row))
            super().__init__(images, heads(backbone(images)), **kwargs)
            self.backbone, self.heads = backbone, heads

        def stages(self):
            return [("backbone", self.backbone), ("heads", self.heads)]

        def get_config(self):
            return {"name": self.name}

        @classmethod
        def from_config(cls, config, custom_objects=None):
            return cls(**config)

    path = tmp_path / "small.keras"
    Small().save(path)
    monkeypatch.setenv("CVLIB_RECORDS", str(tmp_path / "records"))
    arguments = ["latency", str(path), "--batch-size", "1", "2", "--runs", "3"]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    found = load_records(tmp_path / "records")
    assert sorted(r["settings"]["batch_size"] for r in found) == [1, 2]
    for one in found:
        assert list(one["milliseconds"]) == ["graph", "backbone", "heads"]
        assert one["milliseconds"]["graph"]["n"] == 3 and one["parameters"] > 0
        assert (one["backend"], one["resolution"]) == (keras.backend.backend(), [32, 32])
        assert one["precision"] == "float32"
    assert "batch 2, heads: p50" in capsys.readouterr().out
