import pickle
import subprocess
import sys

import numpy as np
import pytest

from cvlib.data import DataError, load, to_keras

CAT = {"image_id": 9, "category_id": 3, "bbox": [2, 3, 10, 8]}
DOG = {"image_id": 4, "category_id": 70, "bbox": [0, 0, 4, 12]}


def test_scenes():
    sample = load("scenes:single", "train")[0]
    assert len(sample["boxes"]) == 1
    assert len(load("scenes", "val")[0]["boxes"]) >= 1


@pytest.mark.parametrize("data", ["", "scene", "voc", "coco:", "tfds", "imagenet:folder"])
def test_unknown_data(data):
    with pytest.raises(DataError, match="must be scenes, scenes:VARIANT, voc:FOLDER"):
        load(data, "train")


def test_unknown_on_error(coco_folder):
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip', not 'ignore'"):
        load(f"coco:{coco_folder([CAT])}", "train", on_error="ignore")


def test_names_hold_no_path(coco_folder, monkeypatch):
    monkeypatch.chdir(coco_folder([CAT]))
    assert load("coco:.", "train").name == "coco:pets"


def test_import_is_light():
    code = "import sys, cvlib.data; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"tensorflow", "keras", "grain", "jax", "torch", "scipy"} & set(run.stdout.split())


def test_batches_come_from_the_pipeline():
    import cvlib.data
    from cvlib.data.pipeline import batches

    assert cvlib.data.batches is batches


def test_datasets_cross_processes(coco_folder, voc_folder):
    datasets = [
        load(f"coco:{coco_folder([CAT, DOG])}", "train"),
        load(f"voc:{voc_folder({'a': [('cat', 0, 1, 1, 5, 5)]})}", "train"),
    ]
    for dataset in datasets:
        copy = pickle.loads(pickle.dumps(dataset))
        np.testing.assert_equal(copy[0], dataset[0])
        assert copy.digest == dataset.digest


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (6, 10, 3), np.uint8),
        "boxes": np.array([[1, 2, 4, 5], [0, 0, 10, 6]], np.float32),
        "labels": np.array([3, 1], np.int32),
        "segmentation": rng.integers(0, 4, (6, 10), np.uint8),
        "label": 2,
    }


def test_to_keras_feeds_keras_layers(sample):
    import keras

    flip = keras.layers.RandomFlip("horizontal", bounding_box_format="xyxy", seed=0)
    flips = []
    for _ in range(12):
        out = flip(to_keras(sample))
        image = keras.ops.convert_to_numpy(out["images"])
        flipped = not np.array_equal(image, sample["image"])
        step = -1 if flipped else 1
        expected = np.array([[6, 2, 9, 5], [0, 0, 10, 6]]) if flipped else sample["boxes"]
        np.testing.assert_array_equal(image, sample["image"][:, ::step])
        np.testing.assert_array_equal(out["bounding_boxes"]["boxes"], expected)
        np.testing.assert_array_equal(out["bounding_boxes"]["labels"], [3, 1])
        segmentation = keras.ops.convert_to_numpy(out["segmentation_masks"])[..., 0]
        np.testing.assert_array_equal(segmentation, sample["segmentation"][:, ::step])
        assert int(out["labels"]) == 2
        flips.append(flipped)
    assert len(set(flips)) == 2


def test_to_keras_without_objects(sample):
    import keras

    sample |= {"boxes": sample["boxes"][:0], "labels": sample["labels"][:0]}
    out = keras.layers.RandomFlip(bounding_box_format="xyxy")(to_keras(sample))
    assert tuple(out["bounding_boxes"]["boxes"].shape) == (0, 4)


def test_to_keras_has_what_the_sample_has(sample):
    assert to_keras({"image": sample["image"]}).keys() == {"images"}
