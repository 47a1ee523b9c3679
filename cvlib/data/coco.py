"""COCO's JSON format (Lin et al. 2014): boxes, polygons, run-length masks, crowds, keypoints."""

import json
import math
import os
import re
import reprlib
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from cvlib import masks
from cvlib.data.reading import (
    PICTURES,
    Files,
    check_inside,
    checked_size,
    digest,
    drawn_split,
    existing_folder,
    is_inside,
    is_number,
    missing_split,
    split_kind,
)
from cvlib.data.sample import DataError, Dataset, read_image

SURROGATE = re.compile("[\ud800-\udfff]")
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


def load(name, split, faults):
    """A split in COCO's format: `annotations/instances_SPLIT.json`, its images in `SPLIT/`.

    Where there is no such file it is `annotations/person_keypoints_SPLIT.json`, or else the JSON
    that names the split: `SPLIT.json`, `SPLIT/_annotations.coco.json` and such. One JSON that names
    no split is divided by `drawn_split`. Where an image is not `SPLIT/FILE_NAME` it is the only one
    of that name in the folder.

    Boxes `x, y, width, height` are continuous in COCO too. Classes are the categories in the order
    of their ids. Samples have `crowd` and `area`; `masks` and `keypoints` (visible 2, occluded 1,
    not labelled 0) if the file has any; and a `label` if each of its images has exactly one object.
    Of such a split, an image is left out with its object.

    Args:
        name: folder of the data set, or one JSON file.
        split: the split's name; `"all"` is all of a JSON that is named or that names no split.
        faults: `Faults`.

    Returns:
        `Dataset`

    Raises:
        DataError: the folder or the split does not exist or the file is not in COCO's format; or,
            if faults are raised, an image has no identifier or name of its own, an object has an
            unknown image or class, no box, or one outside the image or of zero size, or an area, a
            mask or keypoints that cannot be.
    """
    folder, path, drawn = _annotation_file(Path(name), split)
    source = _parse(path)
    annotations = source["annotations"]
    categories = _categories(path, source["categories"])
    class_rows = {category["id"]: i for i, category in enumerate(categories)}
    joints, limbs = _joints(path, categories, faults)
    images, image_rows = _images(path, folder, source["images"], split, drawn, faults)
    sizes = np.array([image["size"] for image in images], np.int32).reshape(-1, 2)

    def describe(row):
        return f"{path}: object {reprlib.repr(annotations[row].get('id', int(row)))}"

    kept, rows = [], np.full(len(annotations), -1)
    for row, annotation in enumerate(annotations):
        if not isinstance(annotation, dict):
            fault = f"{path}: object {row} of the list is no annotation."
            faults.add("objects left out (no annotation)", fault)
            continue
        image, category = annotation.get("image_id"), annotation.get("category_id")
        if not _is_id(image) or image not in image_rows:
            fault = f"{describe(row)} is in the unknown image {reprlib.repr(image)}."
            faults.add("objects left out (unknown image)", fault)
        elif image_rows[image] is not None:
            rows[row] = image_rows[image]
            if _is_id(category) and category in class_rows:
                kept.append(row)
            else:
                fault = f"{describe(row)} has unknown class {reprlib.repr(category)}."
                faults.add("objects left out (unknown class)", fault)

    kept = np.array(kept, int)
    boxes = np.array([_box(annotations[row]) for row in kept], float).reshape(-1, 4)
    box_areas = dict(zip(kept, boxes[:, 2] * boxes[:, 3], strict=True))
    boxes[:, 2:] += boxes[:, :2]
    boxes, good = faults.check_boxes(
        boxes,
        sizes[rows[kept]],
        lambda i: f"{describe(kept[i])} ({images[rows[kept[i]]]['path'].name})",
    )
    kept = kept[good]

    has_masks = any(a.get("segmentation") for a in annotations if isinstance(a, dict))
    good = np.ones(len(kept), bool)
    for i, row in enumerate(kept):
        size = images[rows[row]]["size"]
        if fault := _fault(annotations[row], size, len(joints), has_masks):
            faults.add(
                f"objects left out (impossible {fault[0]})", f"{describe(row)} has {fault[1]}."
            )
            good[i] = False
    order = np.flatnonzero(good)[np.argsort(rows[kept[good]], kind="stable")]
    kept, boxes = kept[order], boxes[order]

    counts = np.bincount(rows[kept], minlength=len(images))
    has_label = len(images) > 0 and (np.bincount(rows[rows >= 0], minlength=len(images)) == 1).all()
    chosen = np.arange(len(images))
    if has_label and not counts.all():
        faults.report["images left out (no object remains)"] += int((counts == 0).sum())
        chosen = np.flatnonzero(counts)
    found = [annotations[row] for row in kept]
    areas = [
        box_areas[row] if a.get("area") is None else a["area"]
        for row, a in zip(kept, found, strict=True)
    ]
    objects = {
        "boxes": boxes,
        "labels": np.array([class_rows[a["category_id"]] for a in found], np.int32),
        "crowd": np.array([a.get("iscrowd") or 0 for a in found], bool),
        "area": np.array(areas, np.float32),
    }
    if joints:
        absent = [0] * (3 * len(joints))
        points = [[v if is_number(v) else 0 for v in a.get("keypoints") or absent] for a in found]
        objects["keypoints"] = np.array(points, np.float32).reshape(-1, len(joints), 3)
    records = {
        "paths": [images[i]["path"] for i in chosen],
        "ids": [images[i]["id"] for i in chosen],
        "sizes": sizes[chosen],
        "ends": np.cumsum(counts[chosen]),
        "objects": objects,
        "masks": [a["segmentation"] for a in found] if has_masks else None,
        "has_label": has_label,
    }
    return Dataset(
        name=f"coco:{folder.resolve().name}",
        split=split,
        classes=[category["name"] for category in categories],
        image_ids=records["ids"],
        read=partial(_read, records),
        digest=partial(digest, [path], [image["path"] for image in images]),
        keypoint_names=joints,
        limbs=limbs,
        flip_keypoints=_mirrored(joints),
    )


def _read(records, i):
    start, end = records["ends"][i - 1] if i else 0, records["ends"][i]
    size = records["sizes"][i]
    sample = {
        "image": read_image(records["paths"][i], size),
        "image_id": records["ids"][i],
        "size": size.copy(),
        **{key: value[start:end].copy() for key, value in records["objects"].items()},
    }
    if records["has_label"]:
        sample["label"] = int(sample["labels"][0])
    if records["masks"] is not None:
        size = size.tolist()
        sample["masks"] = [_to_mask(source, size) for source in records["masks"][start:end]]
    return sample


def _annotation_file(path, split):
    """The folder of the data set, the JSON of the split, and whether the split is to be drawn."""
    if path.is_file():
        folder = path.parent.parent if path.parent.name == "annotations" else path.parent
        named = {_split_name(path, folder): [path]}
        if split == "all":
            return folder, path, False
    else:
        folder = existing_folder(path)
        named = defaultdict(list)
        for file in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
            named[_split_name(file, folder)].append(file)
    kind = split_kind(split)
    alike = [file for name, files in named.items() if kind == split_kind(name) for file in files]
    found = sorted(named.get(split) or (alike if kind else []), key=_rank)
    if len(found) > 1 and _rank(found[0]) == _rank(found[1]):
        raise DataError(f"{folder}: {split} may be {found[0]} or {found[1]}: name one of them.")
    if found:
        return folder, found[0], False
    if len(named) == 1 and len(*named.values()) == 1 and not split_kind(*named):
        return folder, *named.popitem()[1], True
    raise missing_split(path, split, named)


def _split_name(path, folder):
    """What a JSON file says its split is, in its name or in that of its folder."""
    for prefix in PREFIXES:
        if path.stem.startswith(prefix):
            return path.stem.removeprefix(prefix)
    name = re.sub(r"(?<![a-z0-9])(annotations?|coco|instances|labels)(?![a-z0-9])", "", path.stem)
    if name := name.strip("._- "):
        return name
    return "" if path.parent in (folder, folder / "annotations") else path.parent.name


def _rank(path):
    """Of files of one split, that with all kinds of objects goes first."""
    return [not path.name.startswith(prefix) for prefix in PREFIXES]


def _parse(path):
    try:
        source = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path}: not valid JSON in {where}.") from None
    except (ValueError, RecursionError):
        # Bytes that are no text, numbers of thousands of digits, lists in lists in lists.
        raise DataError(f"{path}: not JSON that can be read.") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(source, dict) or not isinstance(source.get(key), list):
            raise DataError(f"{path}: not in COCO's format: there is no list of {key}.")
    return source


def _is_text(value):
    """Whether a value is a text that a file or a class can be called."""
    # Half of a surrogate pair, which JSON can hold, is no character and cannot be written.
    return isinstance(value, str) and bool(value.strip()) and not SURROGATE.search(value)


def _is_id(value):
    return type(value) is int or _is_text(value)


def _categories(path, categories):
    """The categories in the order of their ids."""
    for i, category in enumerate(categories):
        named = isinstance(category, dict) and _is_text(category.get("name"))
        if not named or not _is_id(category.get("id")):
            raise DataError(f"{path}: not in COCO's format: category {i} has no name or no id.")
    ids = Counter(category["id"] for category in categories)
    if twice := [i for i, count in ids.items() if count > 1]:
        raise DataError(f"{path}: two categories have the id {reprlib.repr(twice[0])}.")
    if len(set(map(type, ids))) > 1:
        raise DataError(f"{path}: the ids of some categories are numbers and of others texts.")
    return sorted(categories, key=lambda category: category["id"])


def _joints(path, categories, faults):
    """The names of the keypoints and the limbs, pairs of their indices."""
    articulated = [category for category in categories if category.get("keypoints")]
    for category in articulated:
        where, joints = f"{path}: the category {category['name']}", category["keypoints"]
        texts = isinstance(joints, list) and all(map(_is_text, joints))
        if not texts or len(set(joints)) < len(joints):
            raise DataError(f"{where} has keypoints that are not a list of different names.")
        if joints != articulated[0]["keypoints"]:
            raise DataError(f"{where} has other keypoints than {articulated[0]['name']}.")
    if not articulated:
        return [], []
    limbs, skeleton = [], articulated[0].get("skeleton") or []
    for limb in skeleton if isinstance(skeleton, list) else [skeleton]:
        pair = isinstance(limb, list) and len(limb) == 2
        if pair and all(type(j) is int and 1 <= j <= len(joints) for j in limb):
            limbs.append((limb[0] - 1, limb[1] - 1))
        else:
            fault = f"{path}: the limb {reprlib.repr(limb)} does not join two keypoints."
            faults.add("limbs left out (unknown keypoint)", fault)
    return joints, limbs


def _images(path, folder, source, split, drawn, faults):
    """The `id`, `path` and `size` of each image of the split, and the row of every id in the file,
    `None` where its image is left out."""

    def image_id(image):
        return image.get("id") if isinstance(image, dict) else None

    # Identifiers are texts in samples, where 1 and "1" are one.
    ids = [str(i) if _is_id(i := image_id(image)) else None for image in source]
    counts = Counter(ids)
    chosen = {i for i in ids if i is not None}
    if drawn:
        chosen = set(drawn_split(path, split, sorted(chosen), faults))
    files = Files(folder, PICTURES)
    images, rows = [], {}
    for i, (name, image) in enumerate(zip(ids, source, strict=True)):
        if name is None:
            faults.add("images left out (no id)", f"{path}: image {i} of the list has no id.")
            continue
        where = f"{path}: image {reprlib.repr(image['id'])}"
        rows[image["id"]] = None
        if name not in chosen:
            continue
        try:
            if counts[name] > 1:
                raise DataError(f"{where} has the id of another image.")
            file = _image(where, folder, path, image.get("file_name"), split, files)
            size = checked_size(where, (image.get("height"), image.get("width")), file)
            rows[image["id"]] = len(images)
            images.append({"id": name, "path": file, "size": size})
        except DataError as error:
            faults.add("images left out (no usable entry)", error)
    return images, rows


def _image(where, folder, path, name, split, files):
    """The file of an image, `folder / split / name` if there is none."""
    if not _is_text(name):
        raise DataError(f"{where} has no file_name.")
    name = name.replace("\\", "/")
    check_inside(where, folder, folder / split / name)
    for base in (folder / split, path.parent, folder):
        file = Path(os.path.normpath(base / name))
        if os.path.isfile(file) and is_inside(folder, file):
            return file
    return files.find(name, path, split) or folder / split / name


def _box(annotation):
    """Its four numbers, NaN if it has other ones."""
    box = annotation.get("bbox")
    good = isinstance(box, list) and len(box) == 4 and all(map(is_number, box))
    return box if good else [math.nan] * 4


def _fault(annotation, size, num_joints, has_masks):
    """What is impossible about an object and in which way, or `None`."""
    area = annotation.get("area")
    if area is not None and not (is_number(area) and area >= 0):
        return "area", "an area that is not a number from 0"
    if annotation.get("iscrowd") not in (0, 1, None):
        return "iscrowd", "an iscrowd that is neither 0 nor 1"
    if num_joints and (fault := _keypoint_fault(annotation.get("keypoints"), size, num_joints)):
        return "keypoints", fault
    if has_masks and (fault := _mask_fault(annotation.get("segmentation"), size)):
        return "mask", fault


def _keypoint_fault(values, size, num_joints):
    if not values:
        return None
    if not isinstance(values, list) or len(values) != 3 * num_joints:
        return f"not three numbers for each of its {num_joints} keypoints"
    for *point, visible in zip(values[::3], values[1::3], values[2::3], strict=True):
        if type(visible) not in (int, float) or visible not in (0, 1, 2):
            return "a keypoint whose visibility is not 0, 1 or 2"
        if visible and not _near(point, size):
            return "a keypoint that is no two numbers in or near its image"


def _near(values, size):
    """Whether x, y, x, y, ... are numbers that are no further from the image than its size."""
    if not set(map(type, values)) <= {int, float}:
        return False
    axes = [(values[axis::2], side) for axis, side in enumerate(size[::-1])]
    near = all(-side <= min(v, default=0) and max(v, default=0) <= 2 * side for v, side in axes)
    # NaN may be neither the least nor the greatest.
    return near and not math.isnan(sum(values))


def _to_mask(source, size):
    """A run-length mask of COCO's polygons, or of its uncompressed or compressed runs."""
    if isinstance(source, list):
        return masks.from_polygons(source, *size)
    if isinstance(source["counts"], list):
        return masks.from_uncompressed({"size": size, "counts": source["counts"]})
    return {"size": size, "counts": source["counts"].encode()}


def _mask_fault(source, size):
    """What is wrong with the mask of an object, or `None`."""
    if not source:
        return "no mask, unlike others"
    height, width = size
    if isinstance(source, list) and all(isinstance(polygon, list) for polygon in source):
        # pycocotools needs more memory the further a point is, and dies of NaN.
        if not all(_near(polygon, size) for polygon in source):
            return "a polygon that is not of numbers in or near its image"
        # It takes four numbers for a box.
        if not all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in source):
            return "a polygon of fewer than three points"
        if not any(
            min(polygon[::2]) < width
            and max(polygon[::2]) > 0
            and min(polygon[1::2]) < height
            and max(polygon[1::2]) > 0
            for polygon in source
        ):
            return "a mask outside the image"
        return None
    runs = source.get("counts") if isinstance(source, dict) else None
    if not isinstance(runs, list | str):
        return "a mask that is neither polygons nor runs"
    if source.get("size") != list(size):
        return "a mask of another size than its image"
    if isinstance(runs, list):
        complete = (
            all(type(run) is int and run >= 0 for run in runs) and sum(runs) == height * width
        )
    else:
        complete = runs.isascii() and masks.is_complete(_to_mask(source, list(size)))
    if not complete:
        return "a mask whose runs do not cover its image"
    if not masks.areas([_to_mask(source, list(size))])[0]:
        return "a mask without a pixel"


def _mirrored(names):
    """The permutation of keypoints in a mirror; those called neither left nor right stay.

    `left_eye`, `LeftEye`, `eye left` and `l-eye` are exchanged with what has `right` or `r` there.
    Empty where no name of several has a side: then nobody knows which are to be exchanged.
    """
    if list(names) == [f"p{i + 1}" for i in range(68)]:
        return MIRRORED_68
    other = {"left": "right", "right": "left", "l": "r", "r": "l"}
    # Words and what stands between them, a change from small to capital letters too.
    words = [
        re.split(r"([^a-z0-9]+)", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
        for name in names
    ]
    rows = {"".join(each): i for i, each in enumerate(words)}
    mirrored = [
        rows.get("".join(other.get(word, word) for word in each), i) for i, each in enumerate(words)
    ]
    return mirrored if len(names) == 1 or mirrored != list(range(len(names))) else []
