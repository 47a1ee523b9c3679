import re

import numpy as np
import pytest
from PIL import Image

from cvlib import masks
from cvlib.data import DataError, load
from cvlib.data.voc import CLASSES

CAT = ("cat", 0, 3, 4, 10, 12)
DOG = ("dog", 1, 1, 1, 30, 20)
BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotation><size><width>30</width><height>20</height></size><filename>&b;</filename></annotation>"""


def read(folder, split="train", **kwargs):
    return load(f"voc:{folder}", split, **kwargs)


def write_indices(path, values, palette=True):
    path.parent.mkdir(exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    if palette:
        image.putpalette(np.random.default_rng(0).permutation(768).astype(np.uint8).tobytes())
    image.save(path)


def test_boxes_are_one_based_and_inclusive(voc_folder):
    dataset = read(voc_folder({"000007": [CAT, DOG], "000009": []}))
    assert (dataset.name, dataset.classes) == ("voc:VOC2007", tuple(CLASSES))
    assert dataset.image_ids == ["000007", "000009"]
    sample = dataset[0]
    np.testing.assert_array_equal(sample["boxes"], [[2, 3, 10, 12], [0, 0, 30, 20]])
    np.testing.assert_array_equal(sample["labels"], [7, 11])
    np.testing.assert_array_equal(sample["difficult"], [False, True])
    np.testing.assert_array_equal(sample["size"], [20, 30])
    dtypes = {"boxes": "float32", "labels": "int32", "difficult": "bool", "size": "int32"}
    assert {key: sample[key].dtype for key in dtypes} == dtypes
    assert sample["image"].shape == (20, 30, 3)
    assert sample.keys() == {"image", "image_id", *dtypes}
    assert dataset[1]["boxes"].shape == (0, 4)
    assert not dataset.report


def test_one_pixel_is_a_box(voc_folder):
    dataset = read(voc_folder({"a": [("cat", 0, 5, 6, 5, 6)]}))
    np.testing.assert_array_equal(dataset[0]["boxes"], [[4, 5, 5, 6]])


def test_zero_is_past_the_border(voc_folder):
    folder = voc_folder({"a": [("cat", 0, 0, 1, 31, 6)]})
    with pytest.warns(UserWarning, match="voc:VOC2007 train: 1 boxes clipped to the image"):
        dataset = read(folder)
    np.testing.assert_array_equal(dataset[0]["boxes"], [[0, 0, 30, 6]])


def test_classes_agree_between_splits(voc_folder):
    voc_folder({"a": [CAT]}, split="val")
    folder = voc_folder({"b": [("zebra", 0, 1, 1, 5, 5)]})
    assert read(folder, "train").classes == read(folder, "val").classes == ("cat", "zebra")
    assert read(folder, "val")[0]["labels"] == 0


def test_classes_of_a_list(voc_folder):
    folder = voc_folder({"a": [CAT, DOG]})
    (folder / "classes.txt").write_text("dog\ncat\n\n")
    dataset = read(folder)
    assert dataset.classes == ("dog", "cat")
    np.testing.assert_array_equal(dataset[0]["labels"], [1, 0])


def test_unknown_class(voc_folder):
    folder = voc_folder({"a": [DOG, CAT]})
    (folder / "classes.txt").write_text("dog\n")
    with pytest.raises(DataError, match=r"a\.xml: the class 'cat' of an object is not in classes"):
        read(folder)
    with pytest.warns(UserWarning, match=r"1 objects left out \(unknown class\)"):
        dataset = read(folder, on_error="skip")
    np.testing.assert_array_equal(dataset[0]["labels"], [0])
    np.testing.assert_array_equal(dataset[0]["difficult"], [True])


def test_segmentation_and_instances(voc_folder):
    folder = voc_folder({"a": [CAT, DOG]}, kind="Segmentation")
    objects = np.zeros((20, 30), int)
    objects[:, :] = 1
    objects[3:12, 2:10] = 2
    objects[2, :] = 255
    write_indices(folder / "SegmentationObject" / "a.png", objects)
    values = np.choose(np.minimum(objects, 3), [0, 12, 8, 255])
    write_indices(folder / "SegmentationClass" / "a.png", values)
    sample = read(folder)[0]
    np.testing.assert_array_equal(sample["segmentation"], values)
    assert sample["segmentation"].dtype == np.uint8
    # Instance 2 fits the first object's box, whatever their order in the file.
    cat, dog = masks.decode(sample["masks"])
    np.testing.assert_array_equal(cat, objects == 2)
    np.testing.assert_array_equal(dog, objects == 1)
    np.testing.assert_array_equal(sample["area"], [72, 20 * 30 - 72 - 30])


def test_an_object_without_an_instance_has_an_empty_mask(voc_folder):
    folder = voc_folder({"a": [CAT, DOG]}, kind="Segmentation")
    objects = np.ones((20, 30))
    write_indices(folder / "SegmentationObject" / "a.png", objects)
    np.testing.assert_array_equal(read(folder)[0]["area"], [0, 600])
    write_indices(folder / "SegmentationObject" / "a.png", np.arange(600).reshape(20, 30) % 4)
    with pytest.raises(DataError, match=r"a\.png: there are 3 instances but 2 objects\.$"):
        read(folder)[0]


def test_main_goes_before_segmentation(voc_folder):
    voc_folder({"a": [CAT]}, kind="Segmentation")
    folder = voc_folder({"a": [CAT], "b": [DOG]})
    write_indices(folder / "SegmentationClass" / "a.png", np.zeros((20, 30)))
    assert read(folder).image_ids == ["a", "b"]
    assert "segmentation" not in read(folder)[0]
    dataset = read(folder, "Segmentation/train")
    assert dataset.image_ids == ["a"]
    assert "segmentation" in dataset[0]


def segmentation_only(folder, write_image, values, palette):
    write_image(folder / "JPEGImages" / "a.jpg")
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    (folder / "classes.txt").write_text("sky\nroad\n")
    write_indices(folder / "SegmentationClass" / "a.png", values, palette)


@pytest.mark.parametrize("palette", [False, True])
def test_segmentation_without_boxes(tmp_path, write_image, palette):
    values = np.random.default_rng(1).choice([0, 1, 255], (20, 30))
    segmentation_only(tmp_path, write_image, values, palette)
    dataset = read(tmp_path)
    assert dataset.classes == ("sky", "road")
    np.testing.assert_array_equal(dataset[0]["segmentation"], values)
    assert dataset[0].keys() == {"image", "image_id", "size", "segmentation"}


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (np.full((20, 30), 2), "the pixels' class 2 is unknown"),
        (np.zeros((20, 29)), "not of the size of their image"),
        (np.zeros((20, 30, 3)), r"holds colours \(RGB\)"),
        (None, "the image does not exist"),
    ],
)
def test_faulty_segmentation(tmp_path, write_image, values, fault):
    segmentation_only(tmp_path, write_image, np.zeros((20, 30)), palette=False)
    path = tmp_path / "SegmentationClass" / "a.png"
    path.unlink()
    if values is not None:
        write_indices(path, values, palette=False)
    with pytest.raises(DataError, match=rf"a\.png: .*{fault}.*\.$"):
        read(tmp_path)[0]
    with pytest.warns(UserWarning, match="1 images left out"):
        assert len(read(tmp_path, on_error="skip")) == 0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (BOMB, "declares XML entities"),
        ("<annotation>", "not VOC's XML"),
        ("", "not VOC's XML"),
        ("<html></html>", "not VOC's XML: it is a <html>"),
        ('<?xml version="1.0" encoding="foo"?><annotation/>', "not VOC's XML: it cannot be parsed"),
        (
            '<?xml version="1.0" encoding="big5"?><annotation/>',
            "not VOC's XML: it cannot be parsed",
        ),
        (None, "does not exist"),
    ],
)
def test_faulty_annotations(voc_folder, text, fault):
    folder = voc_folder({"a": [CAT], "b": [DOG]})
    path = folder / "Annotations" / "a.xml"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=rf"a\.xml: the annotation .*{fault}.*\.$"):
        read(folder)
    with pytest.warns(UserWarning, match=r"1 images left out \(no usable annotation\)"):
        dataset = read(folder, on_error="skip")
    assert dataset.image_ids == ["b"]
    np.testing.assert_array_equal(dataset[0]["labels"], [11])


@pytest.mark.parametrize(
    ("corners", "fault"),
    [
        ((9, 4, 8, 12), "zero size"),
        ((31, 4, 40, 12), "outside the image"),
        ((1, 1, "inf", 12), "no box of four numbers"),
        ((1, 1, "nan", 12), "no box of four numbers"),
        ((1, 1, 1e300, 12), "no box of four numbers"),
        ((1, 1, "ten", 12), "no box of four numbers"),
        ((1, "", 9, 12), "no box of four numbers"),
    ],
)
def test_faulty_boxes(voc_folder, corners, fault):
    folder = voc_folder({"a": [DOG], "b": [DOG, ("cat", 0, *corners)]})
    with pytest.raises(DataError, match=rf"b\.xml: a cat has .*{fault}.*\.$"):
        read(folder)
    with pytest.warns(UserWarning, match="1 objects left out"):
        dataset = read(folder, on_error="skip")
    assert [len(sample["boxes"]) for sample in dataset] == [1, 1]


@pytest.mark.parametrize(
    ("cut", "fault"),
    [
        ("<bndbox>.*?</bndbox>", "a cat has no box of four numbers"),
        ("<xmin>.*?</xmin>", "a cat has no box of four numbers"),
        ("<name>cat</name>", "an object has no name"),
        ("(?<=<name>)cat", "an object has no name"),
    ],
)
def test_objects_without_a_part(voc_folder, cut, fault):
    folder = voc_folder({"a": [CAT, DOG]})
    path = folder / "Annotations" / "a.xml"
    path.write_text(re.sub(cut, " ", path.read_text(), count=1, flags=re.DOTALL))
    with pytest.raises(DataError, match=rf"a\.xml: {fault}\.$"):
        read(folder)
    with pytest.warns(UserWarning, match="1 objects left out"):
        sample = read(folder, on_error="skip")[0]
    np.testing.assert_array_equal(sample["labels"], [11])


@pytest.mark.parametrize(
    "size",
    ["", "<size/>", "<size><width>0</width><height>0</height></size>", "<width>7</width>"]
    + ["<size><width>30.0</width><height>20.0</height></size>"],
)
def test_the_size_of_the_image_where_none_is_stated(voc_folder, write_xml, size):
    folder = voc_folder({"a": [CAT]})
    write_xml(folder / "Annotations" / "a.xml", [("cat", 0, 3, 4, 99, 12)], size)
    with pytest.warns(UserWarning, match="1 boxes clipped to the image"):
        sample = read(folder)[0]
    np.testing.assert_array_equal(sample["boxes"], [[2, 3, 30, 12]])


@pytest.mark.parametrize("width", ["4294967296", "1e400", "nan", "-30", "30.5", "wide"])
def test_impossible_sizes(voc_folder, write_xml, width):
    folder = voc_folder({"a": [CAT], "b": [DOG]})
    size = f"<size><width>{width}</width><height>20</height></size>"
    write_xml(folder / "Annotations" / "a.xml", [CAT], size)
    with pytest.raises(DataError, match=r"a\.xml: the size is not that of an image\.$"):
        read(folder)
    with pytest.warns(UserWarning, match="1 images left out"):
        assert read(folder, on_error="skip").image_ids == ["b"]


def test_difficult_in_words(voc_folder):
    words = {"1": True, "True": True, " true ": True, "0": False, "FALSE": False, "": False}
    folder = voc_folder({"a": [("cat", word, 1, 1, 5, 5) for word in words]})
    np.testing.assert_array_equal(read(folder)[0]["difficult"], list(words.values()))
    folder = voc_folder({"a": [CAT, ("dog", "perhaps", 1, 1, 5, 5)]})
    with pytest.raises(DataError, match=r"a\.xml: it is not clear whether a dog is difficult\.$"):
        read(folder)


def test_classes_listed_twice(voc_folder):
    folder = voc_folder({"a": [CAT]})
    (folder / "classes.txt").write_text("cat\ndog\ncat\n")
    with pytest.raises(DataError, match=r"classes\.txt: the class 'cat' is there twice\.$"):
        read(folder)


@pytest.mark.parametrize("name", ["classes.txt", "ImageSets/Main/train.txt"])
def test_lists_that_are_not_utf_8(voc_folder, name):
    folder = voc_folder({"a": [CAT]})
    (folder / name).write_bytes("Kätzchen".encode("latin-1"))
    with pytest.raises(DataError, match=rf"{name}: the text is not UTF-8\.$"):
        read(folder)


def test_faulty_images(voc_folder):
    folder = voc_folder({"a": [CAT], "b": [DOG]})
    path = folder / "JPEGImages" / "a.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"a\.jpg: the image cannot be read .*\.$"):
        read(folder)[0]
    with pytest.warns(UserWarning, match="1 images left out"):
        assert read(folder, on_error="skip").image_ids == ["b"]


def test_missing_splits_and_folders(voc_folder, tmp_path):
    folder = voc_folder({"a": [CAT]})
    voc_folder({"a": [CAT]}, split="val", kind="Segmentation")
    with pytest.raises(DataError, match=r"VOC2007: there is no split 'test'; there are train, val"):
        read(folder, "test")
    with pytest.raises(DataError, match="nowhere: the folder does not exist"):
        read(tmp_path / "nowhere")


def test_digest_follows_annotations(voc_folder):
    before = read(voc_folder({"a": [CAT], "b": []})).digest
    moved = read(voc_folder({"a": [DOG], "b": []})).digest
    shorter = read(voc_folder({"a": [DOG]})).digest
    assert len({before, moved, shorter}) == 3
    assert read(voc_folder({"a": [CAT], "b": []})).digest == before


def test_bccd(real_data):
    dataset = read(real_data / "bccd", "val")
    assert dataset.classes == ("Platelets", "RBC", "WBC")
    assert len(dataset) == 87 and not dataset.report
    assert dataset[0]["image"].shape == (480, 640, 3)
    boxes = np.concatenate([sample["boxes"] for sample in dataset])
    assert boxes.min() == 0 and boxes[:, 2].max() == 640 and boxes[:, 3].max() == 480


def test_camvid(real_data):
    dataset = read(real_data / "camvid", "val")
    assert len(dataset) == 101 and len(dataset.classes) == 11
    values = np.unique([sample["segmentation"] for sample in dataset[:10]])
    assert set(values) <= {*range(11), 255}
