"""Folders as people have them: small copies of the layouts of public sets."""

import json
import os

import numpy as np
import pytest

from cvlib.data import DataError, load

CAT = ("cat", 0, 3, 4, 10, 12)
DOG = ("dog", 1, 1, 1, 30, 20)
DRAWN = "ignore:.* nothing says which images are for training"


@pytest.fixture
def write_coco(write_image):
    """write_coco(path, {picture: file name}): COCO's JSON and its pictures, each as many pixels
    wider than 30 as its number says, with one object, whose area is the width."""

    def write(path, images):
        path.parent.mkdir(parents=True, exist_ok=True)
        entries, objects = [], []
        for image_id, (file, name) in enumerate(images.items(), 1):
            width = 30 + int(file.stem.split("_")[-1])
            write_image(file, 20, width)
            entries.append({"id": image_id, "file_name": name, "height": 20, "width": width})
            box = [0, 0, 2, 3]
            objects.append({"image_id": image_id, "category_id": 1, "bbox": box, "area": width})
        source = {"images": entries, "annotations": objects}
        path.write_text(json.dumps(source | {"categories": [{"id": 1, "name": "cat"}]}))
        return path

    return write


def widths(dataset):
    """Of the pictures, which say who they are; the annotations must agree."""
    found = [sample["image"].shape[1] for sample in dataset]
    assert found == [sample["area"][0] for sample in dataset]
    return found


@pytest.mark.parametrize(
    ("annotation", "picture"),
    [
        ("{0}.xml", "{0}.jpg"),  # beside each other
        ("images/{0}.xml", "images/{0}.jpg"),
        ("annots/{0}.xml", "images/{0}.jpg"),
        ("annotations/xmls/{0}.xml", "image/{0}.png"),
        ("Annotations/{0}.xml", "Images/deep/{0}.JPG"),
        ("annots/{0}.XML", "images/{0}.jpeg"),
    ],
)
def test_xml_without_lists(tmp_path, write_image, write_xml, annotation, picture):
    for i in range(20):
        write_xml(tmp_path / annotation.format(i), [CAT, DOG])
        path = write_image(tmp_path / picture.format(i).lower())
        (tmp_path / picture.format(i)).parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, tmp_path / picture.format(i))
    data = f"voc:{tmp_path}"
    parts = {}
    for split in ("train", "val", "test"):
        with pytest.warns(UserWarning, match=r"nothing says .*\(train 16, val 2, test 2;") as said:
            parts[split] = load(data, split)
        assert len(said) == 1
    whole = load(data, "all")
    assert sorted(whole.image_ids) == sorted(str(i) for i in range(20))
    assert sorted(sum((part.image_ids for part in parts.values()), [])) == sorted(whole.image_ids)
    assert [len(part) for part in parts.values()] == [16, 2, 2]
    assert len({part.digest for part in (whole, *parts.values())}) == 4
    sample = parts["val"][0]
    np.testing.assert_array_equal(sample["boxes"], [[2, 3, 10, 12], [0, 0, 30, 20]])
    assert sample["image"].shape == (20, 30, 3)
    with pytest.raises(DataError, match="no split 'dev'; there are all, test, train, val"):
        load(data, "dev")


@pytest.mark.filterwarnings(DRAWN)
@pytest.mark.filterwarnings(DRAWN)
def test_linked_folders_are_read_once(tmp_path, write_image, write_xml):
    folder, disk = tmp_path / "set", tmp_path / "disk"
    for i in range(3):
        write_xml(disk / f"xmls/{i}.xml", [CAT])
        write_image(disk / f"pictures/{i}.jpg")
    folder.mkdir()
    for link, to in {"a": disk / "xmls", "b": disk / "pictures", "c": disk / "xmls"}.items():
        (folder / link).symlink_to(to)
    (disk / "pictures" / "back").symlink_to(folder)
    assert load(f"voc:{folder}", "all").image_ids == ["0", "1", "2"]


def test_a_few_images_are_in_every_split(tmp_path, write_image, write_xml):
    for i in range(3):
        write_xml(tmp_path / f"{i}.xml", [CAT])
        write_image(tmp_path / f"{i}.jpg")
    assert [len(load(f"voc:{tmp_path}", s)) for s in ("train", "val", "test", "all")] == [
        1,
        1,
        1,
        3,
    ]


def test_xml_in_folders_of_splits(tmp_path, write_image, write_xml):
    for split, count in (("train", 3), ("valid", 2)):
        for i in range(count):
            write_xml(tmp_path / split / f"{i}.xml", [DOG if split == "valid" else CAT])
            write_image(tmp_path / split / f"{i}.jpg")
    data = f"voc:{tmp_path}"
    assert load(data, "train").image_ids == ["train/0", "train/1", "train/2"]
    valid = load(data, "val")
    assert len(valid) == 2 and valid[0]["labels"] == 11
    assert len(load(data, "all")) == 5
    with pytest.raises(DataError, match="no split 'test'; there are all, train, val"):
        load(data, "test")


def test_lists_anywhere(tmp_path, write_image, write_xml):
    for name in ("Abyssinian_1", "Bengal_2"):
        write_xml(tmp_path / "annotations" / "xmls" / f"{name}.xml", [CAT], "<filename/>")
        write_image(tmp_path / "images" / f"{name}.jpg")
        write_image(tmp_path / "annotations" / "trimaps" / f"._{name}.png")
    (tmp_path / "annotations" / "test.txt").write_text("Bengal_2 1 1 1\n")
    assert load(f"voc:{tmp_path}", "test").image_ids == ["Bengal_2"]
    assert len(load(f"voc:{tmp_path}", "all")) == 2
    with pytest.raises(DataError, match="no split 'train'; there are test"):
        load(f"voc:{tmp_path}", "train")


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg", ".bmp"])
@pytest.mark.parametrize("name", ["a{}", "other{}"])
def test_pictures_of_any_suffix(voc_folder, write_image, write_xml, suffix, name):
    folder = voc_folder({"a": []})
    (folder / "JPEGImages" / "a.jpg").unlink()
    filename = "" if name == "a{}" else f"<filename>{name.format(suffix)}</filename>"
    write_xml(folder / "Annotations" / "a.xml", [CAT], filename)
    write_image(folder / "JPEGImages" / name.format(suffix))
    dataset = load(f"voc:{folder}", "train")
    assert dataset.image_ids == ["a"]
    np.testing.assert_array_equal(dataset[0]["boxes"], [[2, 3, 10, 12]])


@pytest.mark.parametrize(
    ("line", "image_id"),
    [
        ("a.jpg", "a"),
        ("a.xml", "a"),
        ("JPEGImages/a.jpg", "JPEGImages/a"),
        ("./a", "a"),
        ("data\\a.JPG", "data/a"),
        ("a -1", "a"),
        ("my cat.png", "my cat"),
        ("my cat 2", "my cat 2"),
        ("my cat  1", "my cat"),
    ],
)
def test_identifiers_as_lists_write_them(voc_folder, line, image_id):
    folder = voc_folder({"a": [CAT], "my cat": [CAT], "my cat 2": [CAT]})
    (folder / "ImageSets" / "Main" / "train.txt").write_text(f"\ufeff{line}\r\n", "utf-8")
    dataset = load(f"voc:{folder}", "train")
    assert dataset.image_ids == [image_id]
    assert len(dataset[0]["boxes"]) == 1


def test_lists_of_classes_with_a_byte_order_mark(voc_folder):
    folder = voc_folder({"a": [CAT]})
    (folder / "classes.txt").write_text("\ufeffcat\r\ndog\r\n", "utf-8")
    assert load(f"voc:{folder}", "train").classes == ("cat", "dog")


def test_equal_names_in_two_folders(voc_folder, write_image, write_xml):
    folder = voc_folder({"x/a": [CAT], "y/a": [DOG]})
    write_image(folder / "JPEGImages" / "y" / "a.jpg", 40, 60)
    write_xml(folder / "Annotations" / "y" / "a.xml", [DOG], "<size/>")
    dataset = load(f"voc:{folder}", "train")
    assert [sample["image"].shape[0] for sample in dataset] == [20, 40]
    assert dataset.image_ids == ["x/a", "y/a"]
    for name in "xy":
        (folder / "JPEGImages" / name / "a.jpg").unlink()
    write_image(folder / "JPEGImages" / "a.jpg")
    with pytest.raises(DataError, match=r"x/a\.xml: the image .*a\.jpg is that of another annot"):
        load(f"voc:{folder}", "train")
    with pytest.warns(UserWarning, match="2 images left out"):
        assert len(load(f"voc:{folder}", "train", on_error="skip")) == 0


def test_one_of_two_pictures(voc_folder, write_image):
    folder = voc_folder({"a": [CAT]})
    (folder / "JPEGImages" / "a.jpg").unlink()
    for name in ("left", "right"):
        write_image(folder / name / "a.jpg")
    with pytest.raises(DataError, match=r"a\.xml: a may be .*left/a\.jpg or .*right/a\.jpg\.$"):
        load(f"voc:{folder}", "train")


@pytest.mark.parametrize("line", ["../../secret", "/etc/secret", "../secret.jpg"])
def test_lists_do_not_leave_the_folder(voc_folder, line):
    folder = voc_folder({"a": [CAT]})
    (folder / "ImageSets" / "Main" / "train.txt").write_text(line)
    with pytest.raises(DataError, match=r"train\.txt: .*secret.* is not in .*VOC2007\.$"):
        load(f"voc:{folder}", "train")


@pytest.mark.parametrize(
    ("annotation", "picture", "name"),
    [
        ("{0}/_annotations.coco.json", "{0}/{1}.jpg", "{1}.jpg"),
        ("{0}.json", "{0}/{1}.jpg", "{1}.jpg"),
        ("{0}.json", "{0}/{1}.jpg", "{0}/{1}.jpg"),
        ("annotations/{0}.json", "images/{0}/{1}.jpg", "{1}.jpg"),
        ("annotations/instances_{0}.json", "image/{0}_{1}.jpg", "{0}_{1}.jpg"),
        ("annotations/instances_{0}2017.json", "{0}2017/{1}.jpg", "{1}.jpg"),
        ("annotations_{0}.json", "deep/images/{0}/{1}.png", "{0}\\{1}.jpg"),
        ("annotations/{0}.json", "images/{0}/{1}.jpg", "../images/{0}/{1}.jpg"),
    ],
)
def test_one_json_per_split(tmp_path, write_coco, annotation, picture, name):
    for split, numbers in (("train", (1, 2, 3)), ("valid" if "_a" in annotation else "val", (1,))):
        write_coco(
            tmp_path / annotation.format(split),
            {tmp_path / picture.format(split, i): name.format(split, i) for i in numbers},
        )
    data = f"coco:{tmp_path}"
    train, val = load(data, "train"), load(data, "val")
    assert train.classes == val.classes == ("cat",)
    assert len(widths(train)) == 3 and len(widths(val)) == 1
    with pytest.raises(DataError, match="there is no split 'test'; there are train"):
        load(data, "test")


def test_the_picture_of_another_split_is_not_taken(tmp_path, write_coco):
    for split in ("train", "val"):
        files = {tmp_path / "images" / split / f"{i}.jpg": f"{i}.jpg" for i in (1, 2)}
        write_coco(tmp_path / f"{split}.json", files)
    (tmp_path / "images" / "train" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"1\.jpg: the image does not exist\.$"):
        load(f"coco:{tmp_path}", "train")[0]


@pytest.mark.parametrize("name", ["result.json", "annotations.json", "_annotations.coco.json"])
def test_one_json_without_a_split(tmp_path, write_coco, name):
    folder = tmp_path / "pets"
    files = {folder / "images" / f"{i}.jpg": f"{i}.jpg" for i in range(20)}
    path = write_coco(folder / name, files)
    for data in (f"coco:{path}", f"coco:{folder}"):
        whole = load(data, "all")
        assert whole.name == "coco:pets"
        assert widths(whole) == list(range(30, 50))
        found = []
        for split, count in (("train", 16), ("val", 2), ("test", 2)):
            with pytest.warns(UserWarning, match="coco:pets: nothing says which images"):
                part = load(data, split)
            assert len(part) == count
            found += widths(part)
        assert sorted(found) == list(range(30, 50))


def test_one_json_of_a_split(tmp_path, write_coco):
    path = write_coco(tmp_path / "val.json", {tmp_path / "val" / "1.jpg": "1.jpg"})
    for split in ("val", "valid", "all"):
        assert widths(load(f"coco:{path}", split)) == [31]
    with pytest.raises(DataError, match=r"val\.json: there is no split 'train'; there are val\.$"):
        load(f"coco:{path}", "train")


def test_several_json_of_a_split(tmp_path, write_coco):
    for name in ("train.json", "annotations/train.json"):
        write_coco(tmp_path / name, {tmp_path / "train" / "1.jpg": "1.jpg"})
    with pytest.raises(DataError, match=r"train may be .*train\.json or .*: name one of them\.$"):
        load(f"coco:{tmp_path}", "train")
    assert len(load(f"coco:{tmp_path / 'train.json'}", "train")) == 1


@pytest.mark.parametrize(
    "name", ["../../secret.png", "/etc/secret.png", "..\\..\\secret.png", None]
)
def test_file_names_do_not_leave_the_folder(tmp_path, coco_folder, write_image, name):
    secret = write_image(tmp_path / "secret.png")
    folder = coco_folder([])
    path = folder / "annotations" / "instances_train.json"
    source = json.loads(path.read_text())
    source["images"][0]["file_name"] = name or str(secret)
    path.write_text(json.dumps(source))
    with pytest.raises(DataError, match=r"train\.json: image 9: .*secret\.png is not read, since"):
        load(f"coco:{folder}", "train")
    with pytest.warns(UserWarning, match="1 images left out"):
        assert load(f"coco:{folder}", "train", on_error="skip").image_ids == ["4"]
