import hashlib
import json

import numpy as np
import pytest
import scipy.ndimage
from pycocotools import mask as rle

from cvlib.data.sample import DataError
from cvlib.data.scenes import CLASSES, KEYPOINTS, VARIANTS, render, scenes, segmentation_classes

# Of what is rendered, on every machine. They change with `VERSION`, and only then.
DIGESTS = {
    "": "af1501c63c4cfa6e",
    "single": "d638aa2a3459049a",
    "three": "c331fdb06d60496c",
    "figures": "89236a3939b83eb0",
    "large": "be8722b4a2d10c77",
    "crowd": "74ae616a21b0ea06",
}


def fingerprint(sample):
    """Hash of everything in a sample."""
    digest = hashlib.sha256()
    for key in sorted(sample):
        value = sample[key]
        if isinstance(value, np.ndarray):
            digest.update(f"{key} {value.dtype.str} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        else:
            digest.update(f"{key} {json.dumps(value, default=bytes.decode)}".encode())
    return digest.hexdigest()


def pictures(variant, split="train", number=12):
    return list(scenes(variant, split)[: number if variant != "large" else 3])


@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_byte_for_byte(variant):
    prints = [fingerprint(render(variant, "train", i)) for i in (0, 1, 2)]
    prints.append(fingerprint(render(variant, "test", 0)))
    assert hashlib.sha256("".join(prints).encode()).hexdigest()[:16] == DIGESTS[variant]


def test_order_of_reading_changes_nothing():
    dataset = scenes("", "val")
    first = fingerprint(dataset[3])
    dataset[0]
    assert fingerprint(dataset[3]) == first


def test_splits_and_variants_are_disjoint():
    samples = [
        render(variant, split, i)["image"].tobytes()
        for variant in ("", "single", "three")
        for split in ("pretrain", "train", "val", "test")
        for i in range(3)
    ]
    assert len(set(samples)) == len(samples)
    digests = {scenes(v, s).digest for v in VARIANTS for s in ("pretrain", "train", "val", "test")}
    assert len(digests) == 4 * len(VARIANTS)


def test_lengths():
    assert [len(scenes("", split)) for split in ("pretrain", "train", "val", "test")] == [
        8000,
        4000,
        500,
        1000,
    ]
    dataset = scenes("single", "val")
    assert len(set(dataset.image_ids)) == len(dataset)
    assert dataset[7]["image_id"] == dataset.image_ids[7]


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_and_types(variant):
    height, width = VARIANTS[variant].size
    for sample in pictures(variant, number=3):
        n = len(sample["labels"])
        assert sample["image"].shape == (height, width, 3)
        assert sample["image"].dtype == sample["segmentation"].dtype == np.uint8
        assert sample["segmentation"].shape == (height, width)
        assert sample["size"].tolist() == [height, width]
        assert sample["boxes"].shape == (n, 4) and sample["boxes"].dtype == np.float32
        assert sample["labels"].dtype == np.int32 and sample["area"].dtype == np.float32
        assert sample["difficult"].shape == sample["crowd"].shape == sample["area"].shape == (n,)
        assert sample["difficult"].dtype == sample["crowd"].dtype == bool


@pytest.mark.parametrize("variant", VARIANTS)
def test_annotations_agree(variant):
    names = segmentation_classes(variant)
    for sample in pictures(variant):
        masks = rle.decode(sample["masks"]).transpose(2, 0, 1)
        assert masks.sum(0).max() == 1  # what is behind is not visible
        objects = np.zeros(masks.shape[1:], np.uint8)
        for mask, box, label, area in zip(
            masks, sample["boxes"], sample["labels"], sample["area"], strict=True
        ):
            rows, columns = np.nonzero(mask)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == tight
            assert area == mask.sum()
            objects[mask == 1] = label + 1
        segmentation = sample["segmentation"]
        inside = (segmentation >= 1) & (segmentation <= len(VARIANTS[variant].classes))
        np.testing.assert_array_equal(np.where(inside, segmentation, 0), objects)
        assert segmentation.max() < len(names)


def test_number_of_objects():
    assert {len(sample["labels"]) for sample in pictures("", number=60)} == set(range(1, 7))
    assert {len(sample["labels"]) for sample in pictures("three", number=60)} == {3}
    for sample in pictures("single", number=60):
        assert sample["labels"].tolist() == [sample["label"]]
    assert all("label" not in sample for sample in pictures("", number=10))


def test_every_class_occurs():
    labels = np.concatenate([sample["labels"] for sample in pictures("", number=40)])
    assert set(labels) == set(range(len(CLASSES)))
    seen = set(np.concatenate([np.unique(s["segmentation"]) for s in pictures("", number=40)]))
    assert seen == set(range(len(segmentation_classes())))


def test_crowd_is_a_group():
    groups = []
    for sample in pictures("crowd", number=20):
        assert len(sample["labels"]) >= 6
        masks = rle.decode(sample["masks"])[..., sample["crowd"]]
        groups += [scipy.ndimage.label(mask)[1] for mask in masks.transpose(2, 0, 1)]
    assert np.median(groups) >= 3


def test_constant_box_is_no_rival():
    """The best constant box is found on the boxes that it is scored on, to its advantage."""
    boxes = np.concatenate([sample["boxes"] for sample in pictures("single", number=150)])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    best = 0.0
    for width in range(32, 129, 16):
        for height in range(32, 129, 16):
            x, y = 64 - width / 2, 64 - height / 2
            shared_x = np.minimum(boxes[:, 2], x + width) - np.maximum(boxes[:, 0], x)
            shared_y = np.minimum(boxes[:, 3], y + height) - np.maximum(boxes[:, 1], y)
            shared = np.maximum(shared_x, 0) * np.maximum(shared_y, 0)
            best = max(best, (shared / (area + width * height - shared)).mean())
    assert best < 0.35


def test_joints():
    dataset = scenes("figures", "train")
    assert dataset.keypoint_names == KEYPOINTS
    seen = set()
    for sample in dataset[:40]:
        (joints,) = sample["keypoints"]
        mask = rle.decode(sample["masks"][0])
        assert joints.shape == (14, 3)
        for x, y, visible in joints.tolist():
            seen.add(visible)
            if visible == 2:
                assert mask[int(y), int(x)]
            elif visible == 0:
                assert (x, y) == (0, 0)
            else:
                assert 0 <= x < 128 and 0 <= y < 128
    assert seen == {0, 1, 2}


def test_flip_exchanges_left_and_right():
    dataset = scenes("figures", "train")
    names, flip = dataset.keypoint_names, dataset.flip_keypoints
    for name, other in zip(names, flip, strict=True):
        exchanged = {"right": "left", "left": "right"}
        side, _, joint = name.partition("_")
        assert names[other] == (f"{exchanged[side]}_{joint}" if side in exchanged else name)
    assert [flip[i] for i in flip] == list(range(14))
    limbs = {frozenset(limb) for limb in dataset.limbs}
    assert {frozenset(flip[i] for i in limb) for limb in limbs} == limbs


def test_segmentation_classes():
    names = segmentation_classes("single")
    assert names[0] == "background" and names[1:9] == CLASSES and names[9] == "sky"
    assert segmentation_classes("figures")[:3] == ("background", "person", "sky")


def test_unknown_names():
    with pytest.raises(DataError) as error:
        scenes("four", "train")
    assert str(error.value) == (
        "scenes:four: there is no such variant; there are scenes, scenes:single, scenes:three, "
        "scenes:figures, scenes:large, scenes:crowd."
    )
    with pytest.raises(DataError) as error:
        scenes("three", "dev")
    assert str(error.value) == (
        "scenes:three: there is no split 'dev'; there are pretrain, train, val, test."
    )
