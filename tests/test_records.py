import json
import os
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec

import numpy as np
import pytest

import cvlib
from cvlib.data.sample import Dataset
from cvlib.records import load_records, record, write_atomically


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CVLIB_RECORDS", str(tmp_path))
    monkeypatch.delenv("CVLIB_COMMAND", raising=False)
    return tmp_path


def measure(**changes):
    arguments = dict(system="Localizer", metrics={"box_iou": 0.5}, data="scenes", split="test")
    record(**(arguments | dict(seed=0, preset="quick", chapter="02") | changes))


def test_a_record_says_what_was_measured_and_where(folder):
    measure(settings={"trunk": "frozen"}, resolution=(96, 128), duration=1.5)
    (found,) = load_records(folder)
    assert found["metrics"] == {"box_iou": 0.5}
    assert found["settings"] == {"trunk": "frozen"}
    assert [found[k] for k in ("chapter", "preset", "data", "split", "seed")] == [
        *("02", "quick", "scenes", "test", 0)
    ]
    assert found["resolution"] == [96, 128]
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["cvlib"] == cvlib.__version__
    assert found["device"] and found["command"] and found["peak_memory_mib"]["host"] > 10


def test_measuring_again_replaces_and_any_other_run_does_not(folder):
    measure()
    measure(metrics={"box_iou": 0.75})
    assert [r["metrics"]["box_iou"] for r in load_records(folder)] == [0.75]
    others = [dict(seed=1), dict(preset="full"), dict(data="scenes:three"), dict(split="val")]
    others += [dict(settings={"trunk": "joint"}), dict(system="constant box"), dict(chapter="03")]
    for changes in others:
        measure(**changes)
    assert len(load_records(folder)) == 1 + len(others)


def test_settings_identify_whatever_their_order(folder):
    measure(settings={"a": 1, "b": 2})
    measure(settings={"b": 2, "a": 1})
    assert len(load_records(folder)) == 1


def test_a_dataset_gives_its_name_split_and_digest(folder):
    measure(data=Dataset("voc:bccd", "val", ["cell"], ["a"], None, lambda: "ab12"), split=None)
    (found,) = load_records(folder)
    assert (found["data"], found["split"], found["data_digest"]) == ("voc:bccd", "val", "ab12")


def test_numbers_of_numpy_become_plain(folder):
    measure(metrics={"mAP": np.float32(0.5)}, settings={"k": np.int64(3)}, seed=np.int64(7))
    (found,) = load_records(folder)
    assert (found["metrics"]["mAP"], found["settings"]["k"], found["seed"]) == (0.5, 3, 7)


NO_NUMBERS = [float("nan"), float("inf"), "high", "0.5", [1, 2], [1], None, {}, 10**400]


@pytest.mark.parametrize("value", [*NO_NUMBERS, np.ones(1), [[1], []]], ids=lambda v: str(v)[:9])
def test_a_metric_that_is_no_finite_number_is_refused(folder, value):
    with pytest.raises(ValueError, match="'box_iou'"):
        measure(metrics={"box_iou": value})
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "changes, message",
    [
        *(({"metrics": {"box_iou": value}}, "The metric 'box_iou' is") for value in NO_NUMBERS),
        ({"metrics": [0.5]}, "Metrics are a dict"),
        ({"settings": []}, "'settings' is no dict"),
        ({"peak_memory_mib": None}, "'peak_memory_mib' is no dict"),
        ({"system": 5}, "'system' is no str"),
        ({"per_image": [0.5]}, "per-image values are not a dict of lists"),
        ({"per_image": {"box_iou": "high"}}, "per-image values are not a dict of lists"),
        ({"per_image": {"box_iou": [[0.5, 1]]}}, "per-image values are not a dict of lists"),
        ({"per_image": {"box_iou": [float("nan")]}}, "per-image values .* not all finite"),
    ],
)
def test_a_record_that_was_changed_is_refused_when_it_is_read(folder, changes, message):
    measure()
    (path,) = folder.iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=f"{path.name}: .*{message}") as error:
        load_records(folder)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize("values", [0.5, [[0.5]], ["high"]])
def test_per_image_values_that_are_no_list_of_numbers_are_refused(folder, values):
    with pytest.raises(ValueError, match="per-image values are not a dict of lists of numbers"):
        measure(per_image={"box_iou": values})


def test_per_image_values_are_rounded_and_of_one_length(folder):
    measure(per_image={"box_iou": np.float32([1 / 3, 1]), "accuracy": [True, False]})
    (found,) = load_records(folder)
    assert found["per_image"] == {"box_iou": [0.3333, 1], "accuracy": [1, 0]}
    with pytest.raises(ValueError, match="differ in length"):
        measure(per_image={"box_iou": [0.1], "accuracy": [1, 0]})
    with pytest.raises(ValueError, match="not all finite"):
        measure(per_image={"box_iou": [np.nan]})


def test_times_are_summed_up_as_percentiles(folder):
    measure(milliseconds={"graph": np.arange(1, 12)})
    assert load_records(folder)[0]["milliseconds"] == {"graph": {"p50": 6.0, "p90": 10.0, "n": 11}}


def test_no_absolute_path_enters_a_record(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/train.py", "--data", "coco:/home/me/tiny"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    measure(settings={"weights": folder / "w.h5", "unit": "images/s"})
    (found,) = load_records(folder)
    assert found["command"] == "python train.py --data coco:tiny"
    assert found["settings"] == {"weights": "w.h5", "unit": "images/s"}
    assert str(folder) not in next(folder.iterdir()).read_text()


@pytest.mark.parametrize("name", ["benchmarks.latency", "benchmarks.latency.__main__"])
def test_the_command_of_a_module_can_be_typed_again(folder, monkeypatch, name):
    monkeypatch.setattr(sys, "argv", ["/home/me/benchmarks/latency.py", "scenes", "--runs", "2"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec(name, None))
    measure()
    assert load_records(folder)[0]["command"] == "python -m benchmarks.latency scenes --runs 2"


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"system": "Loc', "not valid JSON"),
        ("[" * 200_000, "not valid JSON"),
        ('{"a": 1}', "not a record"),
    ],
)
def test_a_half_written_or_foreign_file_is_named(folder, text, message):
    measure()
    (folder / "other.json").write_text(text)
    with pytest.raises(ValueError, match=f"other.json: .*{message}"):
        load_records(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="absent: the folder of records does not exist"):
        load_records(tmp_path / "absent")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    write_atomically(tmp_path / "a.json", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "a.json", "new \ud800")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_write_that_must_not_replace(tmp_path):
    write_atomically(tmp_path / "a.json", "old", replace=False)
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "a.json", "new", replace=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_without_links_a_file_is_made_all_the_same(tmp_path, monkeypatch):
    def link(*paths):
        raise PermissionError

    monkeypatch.setattr(os, "link", link)
    write_atomically(tmp_path / "a.json", "new", replace=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_killed_writers_left_is_removed_and_what_others_write_is_not(folder):
    for name, age in ((".killed.tmp", 100), (".written.tmp", 0)):
        (folder / name).write_text("{")
        os.utime(folder / name, (time.time() - age,) * 2)
    measure()
    assert [p.name for p in folder.glob(".*")] == [".written.tmp"]


def test_recording_loads_no_backend(tmp_path):
    code = (
        "import sys; from cvlib.records import record; record('x', {'a': 1}, 'scenes');"
        "assert not {'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    (path,) = (tmp_path / "records").iterdir()
    assert json.loads(path.read_text())["backend"] is None
