"""COCO's JSON format (Lin et al. 2014): boxes, polygons, run-length masks, crowds, keypoints."""

import json
from functools import partial

import numpy as np

from cvlib import masks
from cvlib.data.reading import digest, existing_folder, missing_split, read_sized
from cvlib.data.sample import DataError, Dataset

PREFIXES = ("instances_", "person_keypoints_")

# The 68 points of iBUG's 300-W (Sagonas et al. 2013) in a mirror: jaw, brows, bridge of the nose,
# nostrils, eyes, outer lips, inner lips; counted from 0.
MIRRORED_68 = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *range(54, 47, -1),
    *range(59, 54, -1),
    *range(64, 59, -1),
    *range(67, 64, -1),
)


def load(folder, split, faults):
    """A split in COCO's format: `annotations/instances_SPLIT.json`, its images in `SPLIT/`.

    Where there is no such file it is `annotations/person_keypoints_SPLIT.json`. Boxes
    `x, y, width, height` are continuous in COCO too. Classes are the categories in the order of
    their ids. Samples have `crowd` and `area`; `masks` and `keypoints` (visible 2, occluded 1, not
    labelled 0) if the file has any; and a `label` if each of its images has exactly one object. Of
    such a split, an image is left out with its object.

    Args:
        folder: of the data set.
        split: the split's name.
        faults: `Faults`.

    Returns:
        `Dataset`

    Raises:
        DataError: the folder or the split does not exist or the file is not in COCO's format; or,
            if faults are raised, an object has an unknown image or class, a box outside the image
            or of zero size, or a mask that cannot be.
    """
    folder = existing_folder(folder)
    path = _annotation_file(folder, split)
    try:
        source = json.loads(path.read_bytes())
        images, annotations = source["images"], source["annotations"]
        categories = sorted(source["categories"], key=lambda category: category["id"])
        classes = [category["name"] for category in categories]
        image_rows = {image["id"]: i for i, image in enumerate(images)}
        class_rows = {category["id"]: i for i, category in enumerate(categories)}
        names = [image["file_name"] for image in images]
        sizes = [(image["height"], image["width"]) for image in images]
        sizes = np.array(sizes, np.int32).reshape(len(images), 2)
        rows = np.array([image_rows.get(a["image_id"], -1) for a in annotations], int)
        labels = np.array([class_rows.get(a["category_id"], -1) for a in annotations], np.int32)
        boxes = np.array([a["bbox"] for a in annotations], float).reshape(len(annotations), 4)
        area = [a.get("area", a["bbox"][2] * a["bbox"][3]) for a in annotations]
        objects = {
            "labels": labels,
            "crowd": np.array([a.get("iscrowd", 0) for a in annotations], bool),
            "area": np.array(area, np.float32),
        }
        joints = next((c for c in categories if "keypoints" in c), {"keypoints": ()})
        num_joints = len(joints["keypoints"])
        if num_joints:
            absent = [0] * (3 * num_joints)
            keypoints = [a.get("keypoints", absent) for a in annotations]
            objects["keypoints"] = np.array(keypoints, np.float32).reshape(-1, num_joints, 3)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not valid JSON ({error}).") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{path}: not in COCO's format ({error!r}).") from None

    def describe(row):
        return f"{path}: object {annotations[row].get('id', row)}"

    for row in np.flatnonzero(rows < 0):
        image = annotations[row]["image_id"]
        faults.add(
            "objects left out (unknown image)", f"{describe(row)} is in the unknown image {image}."
        )
    for row in np.flatnonzero((rows >= 0) & (labels < 0)):
        category = annotations[row]["category_id"]
        faults.add(
            "objects left out (unknown class)", f"{describe(row)} has unknown class {category}."
        )
    kept = np.flatnonzero((rows >= 0) & (labels >= 0))
    boxes[:, 2:] += boxes[:, :2]
    clipped, good = faults.check_boxes(
        boxes[kept], sizes[rows[kept]], lambda i: f"{describe(kept[i])} ({names[rows[kept[i]]]})"
    )
    kept = kept[good]
    objects["boxes"] = boxes.astype(np.float32)
    objects["boxes"][kept] = clipped

    has_masks = any(a.get("segmentation") for a in annotations)
    if has_masks:
        faulty = np.zeros(len(annotations), bool)
        for row in kept:
            if fault := _mask_fault(annotations[row].get("segmentation"), sizes[rows[row]]):
                faults.add("objects left out (impossible mask)", f"{describe(row)} has {fault}.")
                faulty[row] = True
        kept = kept[~faulty[kept]]

    kept = kept[np.argsort(rows[kept], kind="stable")]
    counts = np.bincount(rows[kept], minlength=len(images))
    has_label = len(images) > 0 and (np.bincount(rows[rows >= 0], minlength=len(images)) == 1).all()
    chosen = np.arange(len(images))
    if has_label and not counts.all():
        faults.report["images left out (no object remains)"] += int((counts == 0).sum())
        chosen = np.flatnonzero(counts)
    records = {
        "folder": folder / split,
        "names": [names[i] for i in chosen],
        "ids": [str(images[i]["id"]) for i in chosen],
        "sizes": sizes[chosen],
        "ends": np.cumsum(counts[chosen]),
        "objects": {key: value[kept] for key, value in objects.items()},
        "masks": [annotations[i]["segmentation"] for i in kept] if has_masks else None,
        "has_label": has_label,
    }
    return Dataset(
        name=f"coco:{folder.resolve().name}",
        split=split,
        classes=classes,
        image_ids=records["ids"],
        read=partial(_read, records),
        digest=partial(digest, [path], [folder / split / name for name in names]),
        keypoint_names=joints["keypoints"],
        limbs=[(a - 1, b - 1) for a, b in joints.get("skeleton", ())],
        flip_keypoints=_mirrored(joints["keypoints"]),
    )


def _read(records, i):
    start, end = records["ends"][i - 1] if i else 0, records["ends"][i]
    size = records["sizes"][i]
    sample = {
        "image": read_sized(records["folder"] / records["names"][i], size),
        "image_id": records["ids"][i],
        "size": size.copy(),
        **{key: value[start:end].copy() for key, value in records["objects"].items()},
    }
    if records["has_label"]:
        sample["label"] = int(sample["labels"][0])
    if records["masks"] is not None:
        sample["masks"] = [_to_mask(source, size) for source in records["masks"][start:end]]
    return sample


def _annotation_file(folder, split):
    annotations = existing_folder(folder / "annotations")
    for prefix in PREFIXES:
        path = annotations / f"{prefix}{split}.json"
        if path.is_file():
            return path
    existing = [p.stem.removeprefix(pre) for pre in PREFIXES for p in annotations.glob(f"{pre}*")]
    raise missing_split(folder, split, existing)


def _to_mask(source, size):
    """A run-length mask of COCO's polygons, or of its uncompressed or compressed runs."""
    if isinstance(source, list):
        return masks.from_polygons(source, *size.tolist())
    if isinstance(source["counts"], list):
        return masks.from_uncompressed(source)
    return {"size": source["size"], "counts": source["counts"].encode()}


def _mask_fault(source, size):
    """What is wrong with the mask of an object, or `None`."""
    try:
        if not source:
            return "no mask, unlike others"
        if isinstance(source, list):
            # pycocotools takes four numbers for a box.
            if not all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in source):
                return "a polygon of fewer than three points"
        elif tuple(source["size"]) != tuple(size):
            return "a mask of another size than its image"
        elif isinstance(runs := source["counts"], list):
            if min(runs, default=-1) < 0 or sum(runs) != size.prod():
                return "a mask whose runs do not cover its image"
        elif not masks.is_complete(_to_mask(source, size)):
            return "a mask whose runs do not cover its image"
    except (KeyError, TypeError, AttributeError):
        return "a mask that is neither polygons nor runs"


def _mirrored(names):
    """The permutation of keypoints in a mirror; those called neither left nor right stay."""
    if list(names) == [f"p{i + 1}" for i in range(68)]:
        return MIRRORED_68
    other = {"left": "right", "right": "left"}
    rows = {name: i for i, name in enumerate(names)}
    sides = [name.partition("_") for name in names]
    return [
        rows.get(f"{other.get(side, side)}{bar}{part}", i)
        for i, (side, bar, part) in enumerate(sides)
    ]
