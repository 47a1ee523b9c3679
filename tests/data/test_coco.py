import json

import numpy as np
import pytest
from PIL import Image

from cvlib import masks
from cvlib.data import DataError, load
from cvlib.data.coco import _mirrored

CAT = {"image_id": 9, "category_id": 3, "bbox": [2, 3, 10.5, 8], "iscrowd": 0}
DOG = {"image_id": 4, "category_id": 70, "bbox": [0, 0, 1, 12], "area": 11.5}


def read(folder, split="train", **kwargs):
    return load(f"coco:{folder}", split, **kwargs)


def test_boxes_classes_and_area(coco_folder):
    crowd = CAT | {"bbox": [0, 0, 30, 20], "iscrowd": 1}
    dataset = read(coco_folder([DOG, CAT, crowd]))
    assert (dataset.name, dataset.split, dataset.classes) == ("coco:pets", "train", ("cat", "dog"))
    assert dataset.image_ids == ["9", "4"]
    cat, dog = dataset[0], dataset[1]
    np.testing.assert_array_equal(cat["boxes"], [[2, 3, 12.5, 11], [0, 0, 30, 20]])
    np.testing.assert_array_equal(cat["labels"], [0, 0])
    np.testing.assert_array_equal(cat["crowd"], [False, True])
    np.testing.assert_array_equal(cat["area"], [84, 600])
    np.testing.assert_array_equal(dog["boxes"], [[0, 0, 1, 12]])
    np.testing.assert_array_equal(dog["area"], [11.5])
    assert dog["image"].shape == (12, 16, 3)
    np.testing.assert_array_equal(dog["size"], [12, 16])
    assert dog["image_id"] == "4"
    dtypes = {"boxes": "float32", "labels": "int32", "crowd": "bool", "area": "float32"}
    assert {key: cat[key].dtype for key in dtypes} == dtypes
    assert not {"label", "masks", "keypoints", "difficult"} & cat.keys()
    assert not dataset.report


def test_images_without_objects(coco_folder):
    sample = read(coco_folder([CAT]))[1]
    assert sample["boxes"].shape == (0, 4) and sample["boxes"].dtype == np.float32
    assert sample["labels"].shape == sample["area"].shape == (0,)


def test_objects_keep_their_order(coco_folder):
    objects = [CAT | {"area": i} for i in range(50)]
    dataset = read(coco_folder([annotation for obj in objects for annotation in (obj, DOG)]))
    np.testing.assert_array_equal(dataset[0]["area"], np.arange(50))


def test_samples_are_independent(coco_folder):
    dataset = read(coco_folder([CAT, DOG]))
    dataset[0]["boxes"][:] = 0
    dataset[0]["size"][:] = 0
    assert dataset[0]["boxes"].any() and dataset[0]["size"].any()


def test_one_object_per_image_is_a_label(coco_folder):
    dataset = read(coco_folder([CAT, DOG]))
    assert [sample["label"] for sample in dataset] == [0, 1]


def test_masks_in_all_three_encodings(coco_folder):
    expected = np.zeros((20, 30), bool)
    expected[3:11, 2:12] = True
    compressed = masks.encode(expected)
    # Down the columns: before the object, its 10 columns of 8 rows, after it.
    runs = [2 * 20 + 3] + [8, 12] * 9 + [8, 9 + 18 * 20]
    sources = [
        [[2, 3, 12, 3, 12, 11, 2, 11]],
        {"size": [20, 30], "counts": compressed["counts"].decode()},
        {"size": [20, 30], "counts": runs},
    ]
    dataset = read(coco_folder([CAT | {"segmentation": s} for s in sources]))
    for mask in masks.decode(dataset[0]["masks"]):
        np.testing.assert_array_equal(mask, expected)
    assert dataset[1]["masks"] == []


def test_keypoints(coco_folder):
    points = [[1, 2, 2], [3, 4, 1], [0, 0, 0]]
    annotation = CAT | {"keypoints": sum(points, [])}
    folder = coco_folder(
        [annotation, DOG],
        prefix="person_keypoints",
        keypoints=["left_eye", "nose", "right_eye"],
        skeleton=[[1, 2], [2, 3]],
    )
    dataset = read(folder)
    np.testing.assert_array_equal(dataset[0]["keypoints"], [points])
    np.testing.assert_array_equal(dataset[1]["keypoints"], np.zeros((1, 3, 3)))
    assert dataset[0]["keypoints"].dtype == np.float32
    assert dataset.keypoint_names == ("left_eye", "nose", "right_eye")
    assert dataset.limbs == ((0, 1), (1, 2))
    assert dataset.flip_keypoints == (2, 1, 0)


def test_instances_come_before_keypoints(coco_folder):
    coco_folder([CAT, DOG], prefix="person_keypoints")
    assert len(read(coco_folder([CAT]))[1]["boxes"]) == 0


@pytest.mark.filterwarnings("ignore:coco:UserWarning")
def test_faces_are_mirrored_as_they_look(real_data):
    dataset = read(real_data / "faces68")
    mirror = np.array(dataset.flip_keypoints)
    np.testing.assert_array_equal(mirror[mirror], np.arange(68))
    points = np.concatenate([sample["keypoints"] for sample in dataset[:300]])[..., :2]
    mean = np.mean((points - points.mean(1, keepdims=True)) / points.std(1, keepdims=True), axis=0)
    distance = np.hypot(*(mean[:, None] * (-1, 1) - mean).transpose(2, 0, 1))
    # Points of the upper and the lower lip touch, so the nearest point may be a neighbour.
    assert distance[np.arange(68), mirror].max() < 0.25
    assert (distance.argmin(axis=1) == mirror).mean() > 0.9


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"bbox": [2, 3, 0, 5]}, "zero size"),
        ({"bbox": [9, 3, -4, 5]}, "zero size"),
        ({"bbox": [float("nan"), 3, 4, 5]}, "no box of four numbers"),
        ({"bbox": [2, 3, float("inf"), 5]}, "no box of four numbers"),
        ({"bbox": [2, 3, 10**400, 5]}, "no box of four numbers"),
        ({"bbox": [2, 3, 4]}, "no box of four numbers"),
        ({"bbox": []}, "no box of four numbers"),
        ({"bbox": None}, "no box of four numbers"),
        ({"bbox": ["2", "3", "4", "5"]}, "no box of four numbers"),
        ({"bbox": [[2], 3, 4, 5]}, "no box of four numbers"),
        ({"bbox": [30, 3, 4, 5]}, "outside the image"),
        ({"bbox": [2, -8, 4, 5]}, "outside the image"),
        ({"category_id": 4}, "unknown class 4"),
        ({"category_id": None}, "unknown class None"),
        ({"category_id": [3]}, r"unknown class \[3\]"),
        ({"image_id": 5}, "unknown image 5"),
        ({"image_id": "9"}, "unknown image '9'"),
        ({"image_id": {"id": 9}}, "unknown image {'id': 9}"),
        ({"image_id": True}, "unknown image True"),
        ({"image_id": 2**80}, "unknown image 1208925819614629174706176"),
        ({"area": -1}, "an area that is not a number from 0"),
        ({"area": float("nan")}, "an area that is not a number from 0"),
        ({"area": float("inf")}, "an area that is not a number from 0"),
        ({"area": "80"}, "an area that is not a number from 0"),
        ({"iscrowd": "0"}, "an iscrowd that is neither 0 nor 1"),
        ({"iscrowd": 2}, "an iscrowd that is neither 0 nor 1"),
        ({"segmentation": [[1, 2, 3, 4]]}, "fewer than three points"),
        ({"segmentation": [[]]}, "fewer than three points"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "neither polygons nor runs"),
        ({"segmentation": "polygon"}, "neither polygons nor runs"),
        ({"segmentation": [[2, 3, 12, 3, 12, float("nan")]]}, "in or near its image"),
        ({"segmentation": [[float("nan"), 3, 12, 3, 12, 9]]}, "in or near its image"),
        ({"segmentation": [[2, 3, 12, 3, 12, float("inf")]]}, "in or near its image"),
        ({"segmentation": [[2, 3, 12, 3, 12, 1e300]]}, "in or near its image"),
        ({"segmentation": [[2, 3, 12, 3, 12, -1e7]]}, "in or near its image"),
        ({"segmentation": [[2, 3, 12, 3, 12, 10**400]]}, "in or near its image"),
        ({"segmentation": [[2, 3, 12, 3, 12, "5"]]}, "in or near its image"),
        ({"segmentation": [[[2, 3], [12, 3], [12, 5]]]}, "in or near its image"),
        ({"segmentation": [[31, 3, 40, 3, 40, 11]]}, "a mask outside the image"),
        ({"segmentation": [[2, -9, 12, -9, 12, 0]]}, "a mask outside the image"),
        ({"segmentation": {"size": [20, 30], "counts": [600]}}, "a mask without a pixel"),
        ({"segmentation": {"size": [20, 30], "counts": [99.5, 500.5]}}, "do not cover"),
        ({"segmentation": {"size": [20, 30], "counts": [700, -100]}}, "do not cover"),
        ({"segmentation": {"size": [20, 30], "counts": "\ud800"}}, "do not cover"),
        ({"segmentation": {"size": [20, 31], "counts": [620]}}, "another size"),
        ({"segmentation": {"size": [20, 30], "counts": [601]}}, "do not cover"),
        ({"segmentation": {"size": [20, 30], "counts": "0"}}, "do not cover"),
        ({"segmentation": {"size": [20, 30]}}, "neither polygons nor runs"),
        ({"segmentation": []}, "no mask, unlike others"),
    ],
)
def test_faulty_objects(coco_folder, change, fault):
    good = dict(CAT)
    if "segmentation" in change:
        good["segmentation"] = [[2, 3, 12, 3, 12, 11]]
    folder = coco_folder([good, good | change, good])
    with pytest.raises(DataError, match=rf"instances_train\.json: object 101 .*{fault}.*\.$"):
        read(folder)
    with pytest.warns(UserWarning, match=r"coco:pets train: 1 objects? left out"):
        dataset = read(folder, on_error="skip")
    assert len(dataset[0]["boxes"]) == 2
    assert sum(dataset.report.values()) == 1


def test_boxes_past_the_border_are_clipped_and_counted(coco_folder):
    folder = coco_folder([CAT | {"bbox": [-1, 15, 8, 9]}, CAT])
    with pytest.warns(UserWarning, match="coco:pets train: 1 boxes clipped to the image"):
        dataset = read(folder)
    np.testing.assert_array_equal(dataset[0]["boxes"][0], [0, 15, 7, 20])
    assert dataset.report == {"boxes clipped to the image": 1}


def test_rounding_is_not_clipping(coco_folder):
    dataset = read(coco_folder([CAT | {"bbox": [0.1, 0.2, 29.900000000000002, 19.8]}]))
    assert not dataset.report


def test_an_image_goes_with_the_object_that_labels_it(coco_folder):
    folder = coco_folder([CAT | {"bbox": [2, 3, 0, 5]}, DOG])
    with pytest.warns(UserWarning, match="1 images left out"):
        dataset = read(folder, on_error="skip")
    assert dataset.image_ids == ["4"]
    assert dataset[0]["label"] == 1


def corrupt(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b"")


def missing(path):
    path.unlink()


def shrunk(path):
    Image.new("RGB", (29, 20)).save(path)


@pytest.mark.parametrize("damage", [corrupt, empty, missing, shrunk])
def test_faulty_images(coco_folder, damage):
    folder = coco_folder([CAT, DOG, DOG])
    damage(folder / "train" / "9.jpg")
    with pytest.raises(DataError, match=r"9\.jpg: the image .*\.$"):
        read(folder)[0]
    with pytest.warns(UserWarning, match="1 images left out"):
        dataset = read(folder, on_error="skip")
    assert dataset.image_ids == ["4"]


def change_json(folder, change):
    """Replaces the text of the split's JSON, or changes its tree."""
    path = folder / "annotations" / "instances_train.json"
    if callable(change):
        source = json.loads(path.read_text())
        change(source)
        change = json.dumps(source)
    path.write_bytes(change.encode() if isinstance(change, str) else change)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not valid JSON in line 1, column 2"),
        ("[]", "not in COCO's format: there is no list of images"),
        ('{"images": []}', "not in COCO's format: there is no list of annotations"),
        ('{"images": 3, "annotations": []}', "not in COCO's format: there is no list of images"),
        ("[" * 200_000, "not JSON that can be read"),
        ('{"images": ' + "9" * 5000 + "}", "not JSON that can be read"),
        (b'{"images": "\xff"}', "not JSON that can be read"),
    ],
)
def test_malformed_files(coco_folder, text, fault):
    folder = coco_folder([])
    change_json(folder, text)
    for on_error in ("raise", "skip"):
        with pytest.raises(DataError, match=rf"instances_train\.json: {fault}\.$"):
            read(folder, on_error=on_error)


def test_a_byte_order_mark(coco_folder):
    folder = coco_folder([CAT])
    path = folder / "annotations" / "instances_train.json"
    path.write_text("\ufeff" + path.read_text(), "utf-8")
    assert len(read(folder)[0]["boxes"]) == 1


JOINTS = {"keypoints": ["left_eye", "nose", "right_eye"], "skeleton": [[1, 2]]}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda c: c.append(dict(c[0])), "two categories have the id 70"),
        (lambda c: c[0].update(id="70"), "the ids of some categories are numbers and of others"),
        (lambda c: c[0].update(id=[70]), "category 0 has no name or no id"),
        (lambda c: c[0].update(name=" "), "category 0 has no name or no id"),
        (lambda c: c[1].pop("name"), "category 1 has no name or no id"),
        (lambda c: c.append(None), "category 2 has no name or no id"),
        (lambda c: c[1].update(keypoints=[["eye"]]), "the category cat has keypoints that are not"),
        (
            lambda c: c[1].update(keypoints=["a", "a"]),
            "the category cat has keypoints that are not",
        ),
        (
            lambda c: c[0].update(keypoints=["tail"]),
            "the category dog has other keypoints than cat",
        ),
    ],
)
def test_faulty_categories(coco_folder, change, fault):
    folder = coco_folder([], **JOINTS)
    change_json(folder, lambda source: change(source["categories"]))
    for on_error in ("raise", "skip"):
        with pytest.raises(DataError, match=rf"instances_train\.json: .*{fault}.*\.$"):
            read(folder, on_error=on_error)


@pytest.mark.parametrize("skeleton", [[[0, 1]], [[1, 4]], [[1]], [1], "1-2", [["nose", 1]]])
def test_faulty_skeletons(coco_folder, skeleton):
    good = skeleton if isinstance(skeleton, str) else [[1, 2], *skeleton]
    folder = coco_folder([], **JOINTS | {"skeleton": good})
    with pytest.raises(DataError, match=r"train\.json: the limb .* does not join two keypoints\.$"):
        read(folder)
    with pytest.warns(UserWarning, match="1 limbs left out"):
        assert len(read(folder, on_error="skip").limbs) == len(good) - 1 or good == "1-2"


@pytest.mark.parametrize("category", [{"skeleton": None}, {"keypoints": None}])
def test_null_is_none(coco_folder, category):
    dataset = read(coco_folder([CAT], **JOINTS | category))
    assert dataset.limbs == () and len(dataset[0]["boxes"]) == 1


@pytest.mark.parametrize(
    ("points", "fault"),
    [
        ([1, 2, 2] * 6, "not three numbers for each of its 3 keypoints"),
        ([1, 2, 2], "not three numbers for each of its 3 keypoints"),
        ("none", "not three numbers for each of its 3 keypoints"),
        ([1, 2, 3] * 3, "a keypoint whose visibility is not 0, 1 or 2"),
        ([1, 2, 0.5] * 3, "a keypoint whose visibility is not 0, 1 or 2"),
        ([1, 2, None] * 3, "a keypoint whose visibility is not 0, 1 or 2"),
        ([1, 2, "2"] * 3, "a keypoint whose visibility is not 0, 1 or 2"),
        ([1, None, 2] * 3, "a keypoint that is no two numbers in or near its image"),
        ([float("nan"), 2, 1] * 3, "a keypoint that is no two numbers in or near its image"),
        ([1, 1e23, 2] * 3, "a keypoint that is no two numbers in or near its image"),
        ([1, 41, 2] * 3, "a keypoint that is no two numbers in or near its image"),
    ],
)
def test_faulty_keypoints(coco_folder, points, fault):
    good = CAT | {"keypoints": [1, 2, 2, 3, 4, 1, 0, 0, 0]}
    folder = coco_folder([good, good | {"keypoints": points}, good], **JOINTS)
    with pytest.raises(DataError, match=rf"object 101 has {fault}\.$"):
        read(folder)
    with pytest.warns(UserWarning, match=r"1 objects left out \(impossible keypoints\)"):
        sample = read(folder, on_error="skip")[0]
    np.testing.assert_array_equal(sample["keypoints"], [[[1, 2, 2], [3, 4, 1], [0, 0, 0]]] * 2)


@pytest.mark.parametrize("points", [None, [], [None, None, 0] * 3, [float("nan"), 1e23, 0] * 3])
def test_keypoints_that_nobody_labelled(coco_folder, points):
    sample = read(coco_folder([CAT | {"keypoints": points}], **JOINTS))[0]
    assert np.isfinite(sample["keypoints"]).all() and not sample["keypoints"][..., 2].any()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"id": 4}, "image 4 has the id of another image"),
        ({"id": "4"}, "image '?4'? has the id of another image"),
        ({"id": None}, "image 0 of the list has no id"),
        ({"id": 9.5}, "image 0 of the list has no id"),
        ({"file_name": None}, "image 9 has no file_name"),
        ({"file_name": "\ud800"}, "image 9 has no file_name"),
        ({"height": 2**40}, "image 9: the size is not that of an image"),
        ({"height": -20}, "image 9: the size is not that of an image"),
        ({"height": "20"}, "image 9: the size is not that of an image"),
        ({"height": 20.5}, "image 9: the size is not that of an image"),
    ],
)
def test_faulty_images_of_the_list(coco_folder, change, fault):
    folder = coco_folder([CAT | {"image_id": change.get("id", 9)}, DOG])
    change_json(folder, lambda source: source["images"][0].update(change))
    with pytest.raises(DataError, match=rf"instances_train\.json: {fault}\.$"):
        read(folder)
    with pytest.warns(UserWarning, match="[12] images left out"):
        dataset = read(folder, on_error="skip")
    assert dataset.image_ids == ([] if str(change.get("id")) == "4" else ["4"])


@pytest.mark.parametrize("size", [{"height": None}, {"width": 0}, {"height": 20.0}])
def test_the_size_of_the_file_where_none_is_stated(coco_folder, size):
    folder = coco_folder([CAT | {"bbox": [2, 3, 40, 8]}])
    change_json(folder, lambda source: source["images"][0].update(size))
    with pytest.warns(UserWarning, match="1 boxes clipped to the image"):
        sample = read(folder)[0]
    np.testing.assert_array_equal(sample["boxes"], [[2, 3, 30, 11]])


def test_entries_that_are_no_annotations(coco_folder):
    folder = coco_folder([CAT, DOG])
    change_json(folder, lambda source: source["annotations"].insert(1, 5))
    with pytest.raises(DataError, match=r"train\.json: object 1 of the list is no annotation\.$"):
        read(folder)
    with pytest.warns(UserWarning, match="1 objects left out"):
        assert [len(sample["boxes"]) for sample in read(folder, on_error="skip")] == [1, 1]


def test_an_area_of_null_is_the_box_s(coco_folder):
    assert read(coco_folder([CAT | {"area": None}]))[0]["area"] == 84


def test_missing_splits_and_folders(coco_folder, tmp_path):
    folder = coco_folder([CAT])
    coco_folder([CAT], split="val", prefix="person_keypoints")
    with pytest.raises(DataError, match=r"pets: there is no split 'test'; there are train, val\.$"):
        read(folder, "test")
    with pytest.raises(DataError, match="nowhere: the folder does not exist"):
        read(tmp_path / "nowhere")


def test_digest_follows_annotations_and_images(coco_folder, write_image):
    folder = coco_folder([CAT])
    before = read(folder).digest
    assert read(folder).digest == before
    corrupt(folder / "train" / "4.jpg")
    images = read(folder).digest
    path = folder / "annotations" / "instances_train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"info": "changed"}))
    assert len({before, images, read(folder).digest}) == 3


@pytest.mark.parametrize(
    ("name", "split", "report"),
    [
        ("lsp_extended", "train", {}),
        ("faces68", "train", {"boxes clipped to the image": 6}),
        ("coco_mini", "train", {"boxes clipped to the image": 12}),
        ("coco_mini", "val", {"boxes clipped to the image": 15}),
        ("nuclei", "val", {}),
    ],
)
@pytest.mark.filterwarnings("ignore:coco:UserWarning")
def test_real_data(real_data, name, split, report):
    dataset = read(real_data / name, split)
    assert dataset.report == report
    for sample in dataset[:20]:
        assert len(sample["boxes"]) == len(sample["labels"]) == len(sample["area"])
        if "masks" in sample:
            decoded = masks.decode(sample["masks"]).sum(axis=(1, 2), dtype=float)
            regions = sample["area"] * ~sample["crowd"]
            np.testing.assert_allclose(decoded * ~sample["crowd"], regions, atol=60, rtol=0.15)


def test_boxes_of_zero_size_in_real_data(real_data):
    with pytest.raises(DataError, match="val_243.jpg.* zero size"):
        read(real_data / "tiny_imagenet20", "val")
    with pytest.warns(UserWarning, match="5 images left out"):
        dataset = read(real_data / "tiny_imagenet20", "val", on_error="skip")
    assert len(dataset) == 995


@pytest.mark.parametrize(
    "names, mirror",
    [
        (["L_Eye", "nose", "R_Eye"], (2, 1, 0)),
        (["ankle_left", "ankle_right"], (1, 0)),
        (["Left Eye", "Right Eye", "tail"], (1, 0, 2)),
        (["leftEye", "rightEye"], (1, 0)),
        (["l-ankle", "left_eye", "r-ankle"], (2, 1, 0)),
        (["beak", "tail"], ()),
        (["nose"], (0,)),
    ],
)
def test_names_say_what_a_mirror_exchanges(names, mirror):
    assert tuple(_mirrored(names)) == mirror
