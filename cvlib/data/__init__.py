"""Data: `load` names and reads it, `batches` feeds it to training, `arrays` makes it two arrays,
`to_keras` feeds it to Keras's layers."""

import importlib
import warnings
from collections import Counter

import numpy as np

from cvlib.data.reading import Faults
from cvlib.data.sample import DataError, Dataset, MissingSplit

__all__ = ["DataError", "Dataset", "MissingSplit", "arrays", "batches", "load", "to_keras"]


def load(data, split, on_error="raise"):
    """A split of a data set, as a random-access sequence of samples.

    A sample is a flat dict of what the data set has:

    | key | shape | meaning |
    |---|---|---|
    | `image` | (H, W, 3) uint8 | RGB |
    | `image_id`, `size` | str, (2,) int32 | identifier; original height and width |
    | `label` | int | the image's class |
    | `boxes`, `labels` | (N, 4) float32, (N,) int32 | `x1, y1, x2, y2` in pixels; classes |
    | `difficult`, `crowd` | (N,) bool | VOC: neither right nor wrong; COCO: forgiving region |
    | `area` | (N,) float32 | square pixels, of the mask where there is one |
    | `masks` | N run-length masks | see `cvlib.masks` |
    | `keypoints` | (N, K, 3) float32 | x, y, visible 2, occluded 1, not labelled 0 |
    | `segmentation` | (H, W) uint8 | class of each pixel, 255 = void |

    Coordinates are continuous: pixel (i, j) covers [j, j + 1) x [i, i + 1), so a box is
    `x2 - x1` wide. Boxes that reach past their image are clipped to it. What was clipped or left
    out is counted in the dataset's `report` and said in one warning.

    Args:
        data: `"scenes"` or `"scenes:VARIANT"` (rendered), `"voc:FOLDER"` (VOC's devkit layout, or
            its XML anywhere in the folder), `"coco:FOLDER"` (COCO's JSON, one per split),
            `"coco:FILE.json"` or `"tfds:NAME"` (TensorFlow Datasets, prepared in `TFDS_DATA_DIR` as
            array_record).
        split: name of the split, such as `"train"`. Where a folder has no lists of splits, no
            folders and no JSON that are called so, `"train"`, `"val"` and `"test"` are drawn by the
            hash of the identifiers, 80, 10 and 10 %, which one warning says; `"all"` is everything.
        on_error: `"raise"`: faulty annotations raise here, images that cannot be read when they
            are accessed. `"skip"`: such objects and images are left out; every image is read once
            to find them. What the files have in common (folder, split, JSON) raises in any case.

    Returns:
        `Dataset`

    Raises:
        DataError: the data cannot be used; one sentence names the file and the fault.
        ImportError: `tfds:` without tensorflow-datasets.
    """
    kind, _, name = data.partition(":")
    faults = Faults(on_error)
    if kind == "scenes":
        from cvlib.data.scenes import scenes

        return scenes(name, split, on_error)
    if kind not in ("voc", "coco", "tfds") or not name:
        raise DataError(
            f"data {data!r} must be scenes, scenes:VARIANT, voc:FOLDER, coco:FOLDER or tfds:NAME."
        )
    dataset = importlib.import_module(f"cvlib.data.{kind}").load(name, split, faults)
    if faults.skip:
        dataset = _readable(dataset, faults)
    # A copy: readers that find faults on access would count them again with every epoch.
    dataset.report = Counter(faults.report)
    for note in faults.notes:
        warnings.warn(f"{dataset.name}: {note}.", stacklevel=2)
    if dataset.report:
        changes = ", ".join(f"{count} {reason}" for reason, count in dataset.report.items())
        warnings.warn(f"{dataset.name} {split}: {changes}.", stacklevel=2)
    return dataset


def to_keras(sample):
    """A sample in the nested form of Keras's and KerasHub's preprocessing layers.

    Their layers change the dict they are given, but not its arrays.

    Args:
        sample: a sample of a `Dataset`.

    Returns:
        `{"images": (H, W, 3)}` and, of what the sample has, `"bounding_boxes"` (`{"boxes": (N, 4),
        "labels": (N,)}`, for `bounding_box_format="xyxy"`), `"segmentation_masks"` (H, W, 1) and
        `"labels"` (the image's class).
    """
    nested = {"images": sample["image"]}
    if "boxes" in sample:
        nested["bounding_boxes"] = {"boxes": sample["boxes"], "labels": sample["labels"]}
    if "segmentation" in sample:
        nested["segmentation_masks"] = sample["segmentation"][..., None]
    if "label" in sample:
        nested["labels"] = np.asarray(sample["label"], np.int32)
    return nested


def __getattr__(name):
    # grain takes a second to import, which only training needs.
    if name in ("arrays", "batches"):
        return getattr(importlib.import_module("cvlib.data.pipeline"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _readable(dataset, faults):
    readable = []
    for i in range(len(dataset)):
        try:
            dataset[i]
            readable.append(i)
        except DataError as error:
            faults.add("images left out (unreadable)", error)
    return dataset.take(readable)
