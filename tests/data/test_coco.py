import json

import numpy as np
import pytest
from PIL import Image

from cvlib import masks
from cvlib.data import DataError, load

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
        ({"bbox": [float("nan"), 3, 4, 5]}, "zero size"),
        ({"bbox": [30, 3, 4, 5]}, "outside the image"),
        ({"bbox": [2, -8, 4, 5]}, "outside the image"),
        ({"category_id": 4}, "unknown class 4"),
        ({"image_id": 5}, "unknown image 5"),
        ({"segmentation": [[1, 2, 3, 4]]}, "fewer than three points"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "neither polygons nor runs"),
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


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}', '{"images": 3, "annotations": []}'])
def test_malformed_files(coco_folder, text):
    folder = coco_folder([])
    (folder / "annotations" / "instances_train.json").write_text(text)
    for on_error in ("raise", "skip"):
        with pytest.raises(DataError, match=r"instances_train\.json: not .*\.$"):
            read(folder, on_error=on_error)


@pytest.mark.parametrize("key", ["bbox", "image_id", "category_id"])
def test_malformed_annotations(coco_folder, key):
    bad = {k: v for k, v in CAT.items() if k != key}
    with pytest.raises(DataError, match="not in COCO's format"):
        read(coco_folder([CAT, bad]))
    with pytest.raises(DataError, match="not in COCO's format"):
        read(coco_folder([CAT, CAT | {key: [1, 2, 3]}]))


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
