import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvlib.data import DataError, load

HERE = Path(__file__).parent
HEAD = "<annotation><size><width>30</width><height>20</height></size><object><bndbox>" + (
    "<xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>10</ymax></bndbox></object></annotation>"
)
BOXES = {"a": [("cat", 0, 3, 4, 10, 12), ("dog", 1, 1, 1, 30, 20)], "b": []}
OBJECT = {"image_id": 9, "iscrowd": 0, "area": 50, "category_id": 3}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder for what TFDS prepares, once, from `sources`."""
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture
def sources(tmp_path, voc_folder, coco_folder, write_image):
    """Files in the formats of VOC 2007 and 2012, COCO 2017 and Oxford-IIIT Pet."""
    for year in (2007, 2012):
        voc_folder(BOXES, folder=f"VOCdevkit/VOC{year}")
    text = (tmp_path / "VOCdevkit/VOC2007/Annotations/a.xml").read_text()
    text = text.replace("</name>", "</name><pose>Left</pose><truncated>0</truncated>")
    for year in (2007, 2012):
        (tmp_path / f"VOCdevkit/VOC{year}/Annotations/a.xml").write_text(text)

    annotations = [
        OBJECT | {"bbox": [2, 3, 10, 8]},
        OBJECT | {"bbox": [0, 0, 30, 20], "iscrowd": 1, "category_id": 70},
        OBJECT | {"bbox": [5, 5, 0, 8]},
    ]
    path = coco_folder(annotations) / "annotations" / "instances_train.json"
    source = json.loads(path.read_text())
    # TFDS's builder insists on COCO's 80 classes.
    source["categories"] += [{"id": i, "name": f"class {i}"} for i in range(100, 178)]
    source["categories"].sort(key=lambda category: category["id"])
    path.write_text(json.dumps(source))

    oxford = tmp_path / "oxford"
    for kind in ("trimaps", "xmls"):
        (oxford / "annotations" / kind).mkdir(parents=True)
    for name in ("Abyssinian_1", "pug_2", "pug_3"):
        image = write_image(oxford / "images" / f"{name}.jpg")
        trimap = Image.fromarray((np.arange(600).reshape(20, 30) % 3 + 1).astype(np.uint8))
        trimap.save(oxford / "annotations" / "trimaps" / f"{name}.png")
    (oxford / "annotations" / "xmls" / "Abyssinian_1.xml").write_text(HEAD)
    image.write_bytes(image.read_bytes()[:-200])
    names = "Abyssinian_1 1 1 1\npug_2 26 2 1\npug_3 26 2 1\n"
    (oxford / "annotations" / "trainval.txt").write_text(names)
    return tmp_path


@pytest.fixture
def data_dir(prepared, sources, monkeypatch):
    if not any(prepared.iterdir()):
        command = [sys.executable, HERE / "prepare_tfds.py", sources, prepared]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    return prepared


def by_objects(dataset):
    """The samples in the order of their numbers of objects: TFDS shuffles."""
    return sorted(dataset, key=lambda sample: -len(sample["boxes"]))


def test_voc_equals_the_folder(data_dir, sources):
    dataset = load("tfds:voc/2007", "train")
    assert (dataset.name, dataset.split) == ("tfds:voc/2007", "train")
    expected = load(f"voc:{sources}/VOCdevkit/VOC2007", "train")
    assert dataset.classes == expected.classes
    for found, sample in zip(by_objects(dataset), by_objects(expected), strict=True):
        assert found.keys() == sample.keys()
        for key in sample.keys() - {"image_id"}:
            np.testing.assert_array_equal(found[key], sample[key])
            assert found[key].dtype == sample[key].dtype


@pytest.mark.filterwarnings("ignore:.*box of zero size:UserWarning")
def test_coco_equals_the_folder(data_dir, sources):
    found = load("tfds:coco/2017", "train", on_error="skip")
    expected = load(f"coco:{sources}/pets", "train", on_error="skip")
    assert found.classes == expected.classes
    for sample, other in zip(by_objects(found), by_objects(expected), strict=True):
        assert sample.keys() == other.keys()
        for key in sample.keys() - {"image_id"}:
            np.testing.assert_array_equal(sample[key], other[key])
    # Reading finds the fault again, but the report is of loading.
    assert found.report == expected.report == {"objects left out (box of zero size)": 1}


def test_faulty_boxes_raise_on_access(data_dir):
    dataset = load("tfds:coco/2017", "train")
    with pytest.raises(DataError, match=r"tfds:coco train: record \d: object 2 .*zero size .*\.$"):
        list(dataset)


def test_oxford_iiit_pet(data_dir):
    with pytest.warns(UserWarning, match=r"1 images left out \(unreadable\)"):
        dataset = load("tfds:oxford_iiit_pet", "train", on_error="skip")
    assert len(dataset.classes) == 37
    cat, dog = by_objects(dataset)
    assert dataset.classes[cat["label"]] == "Abyssinian" and dataset.classes[dog["label"]] == "pug"
    np.testing.assert_array_equal(cat["boxes"], [[3, 4, 12, 10]])
    np.testing.assert_array_equal(cat["labels"], [cat["label"]])
    assert dog["boxes"].shape == (0, 4)
    np.testing.assert_array_equal(cat["segmentation"], np.arange(600).reshape(20, 30) % 3)
    assert cat["segmentation"].dtype == np.uint8


def test_reading_needs_no_tensorflow(data_dir):
    code = """
import sys
from cvlib.data import load
for name in ("voc/2007", "coco/2017", "oxford_iiit_pet"):
    assert len([sample["image"] for sample in load(f"tfds:{name}", "train", "skip")]) == 2
assert "tensorflow" not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_datasets_cross_processes(data_dir):
    dataset = load("tfds:voc/2007", "train")
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_equal(copy[0], dataset[0])
    assert copy.digest == dataset.digest


def test_corrupt_images(data_dir):
    dataset = load("tfds:oxford_iiit_pet", "train")
    message = r"tfds:oxford_iiit_pet train: record \d holds an image that cannot be read\.$"
    with pytest.raises(DataError, match=message):
        list(dataset)


def test_tfrecord_is_refused(data_dir):
    with pytest.raises(DataError, match=r"^tfds:voc/2012: tfrecord in .* --file_format=array_rec"):
        load("tfds:voc/2012", "train")


def test_missing_splits(data_dir):
    with pytest.raises(DataError, match="tfds:voc/2007: there is no split 'val'; there are train"):
        load("tfds:voc/2007", "val")


def test_what_is_not_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match="prepare it with `tfds build voc/2007 --file_format=arr"):
        load("tfds:voc/2007", "train")


def test_without_tensorflow_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="^tfds:voc needs tensorflow-datasets"):
        load("tfds:voc", "train")
