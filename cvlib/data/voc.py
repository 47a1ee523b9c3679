"""PASCAL VOC's devkit layout (Everingham et al. 2010): XML boxes, class and instance PNGs."""

import math
import os
import re
from collections import Counter
from contextlib import suppress
from functools import partial

import defusedxml.ElementTree as ElementTree
import numpy as np
from defusedxml import DefusedXmlException
from scipy.optimize import linear_sum_assignment

from cvlib import masks
from cvlib.data.reading import (
    PICTURES,
    Files,
    check_inside,
    checked_size,
    digest,
    drawn_split,
    existing_folder,
    missing_split,
    read_lines,
    split_kind,
)
from cvlib.data.sample import DataError, Dataset, open_image, read_image

CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
).split()
VOID = 255
CORNERS = ("xmin", "ymin", "xmax", "ymax")
# What stands in <difficult>, by what it means; an empty one is none.
TRUTH = {"": False, "0": False, "false": False, "unspecified": False, "1": True, "true": True}


def load(folder, split, faults):
    """A split in VOC's layout, or of VOC's XML wherever it lies in the folder.

    Args:
        folder: of the data set, as in `VOCdevkit/VOC2012`.
        split: `ImageSets/Main/SPLIT.txt`, or `ImageSets/Segmentation/SPLIT.txt` where there is no
            such file; `"Segmentation/train"` names the second although there is the first. Without
            lists there, `SPLIT.txt` anywhere; without any lists, what lies in folders of that name,
            or what `drawn_split` draws. `"all"` is every annotation.
        faults: `Faults`.

    Annotations are `Annotations/ID.xml`, or `ID.xml` anywhere where there is no such folder. Images
    are `JPEGImages/ID.jpg`, or else the picture that `<filename>` names or that is called ID, with
    any suffix in any folder. IDs in lists may have a suffix and folders.

    Samples have `boxes`, `labels` and `difficult` if there is any XML. Its boxes count pixels from
    1, first and last included, so `xmin - 1, ymin - 1, xmax, ymax` are their continuous borders; an
    `xmin` of 0, which some tools write, reaches past the image and is clipped. Without a `<size>`
    the image's is taken. Samples of a split in `Segmentation`, or of which every image has the PNG,
    have `segmentation` from `SegmentationClass/`; with boxes and `SegmentationObject/` also
    `masks`, each instance going to the box it fits best, and `area`.

    Classes are the lines of `classes.txt`; without it VOC's 20 if all objects are of these, or the
    sorted names of all objects of the data set. With boxes, `segmentation` is 0 on the background
    and `labels + 1` on objects as in VOC; without boxes it indexes the classes, which without a
    `classes.txt` are the background and VOC's 20.

    Returns:
        `Dataset`

    Raises:
        DataError: the folder or the split does not exist, a list is not UTF-8 or leaves the folder,
            a class is listed twice; or, if faults are raised, an annotation is missing or cannot be
            read, has no or another's image, or an object has no name, an unknown class, no box, or
            one outside the image or of zero size.
    """
    folder = existing_folder(folder)
    files = Files(folder / "Annotations", (".xml",))
    if not files.folder.is_dir():
        files = Files(folder, (".xml",))
    if has_boxes := files.folder != folder or bool(files.paths):
        cause = "images left out (no usable annotation)"
    else:
        files = Files(folder / "SegmentationClass", (".png",))
        if not files.folder.is_dir():
            raise DataError(
                f"{folder}: holds no annotations, neither XML files nor a folder SegmentationClass."
            )
        cause = "images left out (no image)"
    if ids_file := _ids_file(folder, split):
        found = _listed(ids_file, folder, files)
    else:
        found = _unlisted(folder, split, files, faults)
    classes_file = folder / "classes.txt"
    classes = read_lines(classes_file) if classes_file.is_file() else []
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise DataError(f"{classes_file}: the class {twice[0]!r} is there twice.")

    pictures, annotations, images = Files(folder, PICTURES), {}, {}
    for image_id, path in found.items():
        try:
            annotation = _parse(path) if has_boxes else {"filename": ""}
            names = annotation["filename"], image_id
            images[image_id] = _image(folder, image_id, names, pictures, path, split)
            if has_boxes:
                size = checked_size(path, annotation["size"], images[image_id])
                annotations[image_id] = annotation | {"path": path, "size": size}
        except DataError as error:
            images.pop(image_id, None)
            faults.add(cause, error)
    uses = Counter(images.values())
    for image_id in [image_id for image_id, path in images.items() if uses[path] > 1]:
        path = images.pop(image_id)
        annotations.pop(image_id, None)
        faults.add(
            "images left out (of several annotations)",
            f"{found[image_id]}: the image {path} is that of another annotation too.",
        )
    ids = list(images)
    sources = [ids_file] * bool(ids_file) + [classes_file] * bool(classes)
    if has_boxes:
        sources += [annotation["path"] for annotation in annotations.values()]
        classes = classes or _found_classes(files.paths, annotations)
        objects, sizes, ends = _objects(list(annotations.values()), classes, faults)
    else:
        classes = classes or ["background", *CLASSES]
        objects, sizes, ends = {}, [None] * len(ids), np.zeros(len(ids), int)

    def has_pngs(kind):
        paths = [folder / kind / f"{image_id}.png" for image_id in ids]
        if not (folder / kind).is_dir():
            return False
        listed = ids_file and ids_file.parent.name == "Segmentation"
        return listed or all(os.path.isfile(path) for path in paths)

    kinds = ["SegmentationClass"] + ["SegmentationObject"] * has_boxes
    kinds = [kind for kind in kinds if has_pngs(kind)]
    records = {
        "folder": folder,
        "ids": ids,
        "images": list(images.values()),
        "sizes": sizes,
        "objects": objects,
        "ends": ends,
        "kinds": kinds,
        "num_values": len(classes) + has_boxes,
    }
    files = list(images.values())
    files += [folder / kind / f"{image_id}.png" for kind in kinds for image_id in ids]
    return Dataset(
        name=f"voc:{folder.resolve().name}",
        split=split,
        classes=classes,
        image_ids=ids,
        read=partial(_read, records),
        digest=partial(digest, sources, files),
    )


def _read(records, i):
    start, end = records["ends"][i - 1] if i else 0, records["ends"][i]
    image = read_image(records["images"][i], records["sizes"][i])
    sample = {
        "image": image,
        "image_id": records["ids"][i],
        "size": np.array(image.shape[:2], np.int32),
        **{key: value[start:end].copy() for key, value in records["objects"].items()},
    }
    for kind in records["kinds"]:
        path = records["folder"] / kind / f"{sample['image_id']}.png"
        values = _read_indices(path, image.shape[:2])
        if kind == "SegmentationClass":
            if (highest := values.max(where=values != VOID, initial=0)) >= records["num_values"]:
                raise DataError(f"{path}: the pixels' class {highest} is unknown.")
            sample["segmentation"] = values
        else:
            sample["masks"] = _instances(path, values, sample["boxes"])
            sample["area"] = masks.areas(sample["masks"])
    return sample


def _ids_file(folder, split):
    """The list of a split; `None` for `"all"`, and where the folder has no lists."""
    lists = [folder / "ImageSets" / kind for kind in ("Main", "Segmentation", "")]
    for path in lists:
        if os.path.isfile(path / f"{split}.txt"):
            return path / f"{split}.txt"
    existing = {path for kind in lists for path in kind.glob("*.txt")}
    if not existing:
        existing = {path for path in Files(folder, (".txt",)).paths if split_kind(path.stem)}
        found = [path for path in existing if split in (path.stem, split_kind(path.stem))]
        if len(found) == 1:
            return found[0]
    if existing and split != "all":
        raise missing_split(folder, split, [path.stem for path in existing])


def _listed(ids_file, folder, files):
    """The annotation of every identifier of a list."""
    named = Files(folder, (".xml", *PICTURES))
    found = {}
    for line in read_lines(ids_file):
        # The lists of one class say after each identifier whether it is there.
        bare = re.sub(r"(\s+-?\d+)+$", "", line)
        for image_id in (line, named.stem(line), bare, named.stem(bare)):
            check_inside(ids_file, folder, folder / image_id)
            path = files.folder / f"{image_id}{files.suffixes[0]}"
            if not os.path.isfile(path):
                path = files.find(image_id, ids_file, ids_file.stem) or path
            if os.path.isfile(path):
                break
        found[files.stem(image_id)] = path
    return found


def _unlisted(folder, split, files, faults):
    """The annotation of every identifier, of those in folders called `split` where some are."""
    paths = files.paths
    root = os.path.commonpath([path.parent for path in paths]) if paths else folder
    found = {files.stem(path.relative_to(root).as_posix()): path for path in paths}
    kinds = {image_id: Files(folder, ()).kinds(path) for image_id, path in found.items()}
    if split == "all" or not any(kinds.values()):
        return {image_id: found[image_id] for image_id in drawn_split(folder, split, found, faults)}
    if split_kind(split) not in (existing := set().union(*kinds.values())):
        raise missing_split(folder, split, existing | {"all"})
    return {i: path for i, path in found.items() if split_kind(split) in kinds[i]}


def _image(folder, image_id, names, pictures, annotation, split):
    """The image of an annotation, that of an identifier of VOC's own first."""
    path = folder / "JPEGImages" / f"{image_id}.jpg"
    if os.path.isfile(path):
        return path
    found = (pictures.find(name, annotation, split) for name in names if name)
    return next(filter(None, found), path)


def _parse(path):
    """The file name, size (`None` where there is none) and objects of an annotation."""
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise DataError(f"{path}: the annotation does not exist.") from None
    except DefusedXmlException:
        raise DataError(f"{path}: the annotation declares XML entities and is not read.") from None
    except (OSError, SyntaxError, LookupError, ValueError):
        raise DataError(f"{path}: the annotation is not VOC's XML: it cannot be parsed.") from None
    if root.tag != "annotation":
        raise DataError(f"{path}: the annotation is not VOC's XML: it is a <{root.tag}>.")
    return {
        "filename": root.findtext("filename", "").strip(),
        "size": [_number(root.findtext(f"size/{side}")) for side in ("height", "width")],
        "objects": [
            {
                "name": obj.findtext("name", "").strip(),
                "box": [_number(obj.findtext(f"bndbox/{c}")) for c in CORNERS],
                "difficult": TRUTH.get(obj.findtext("difficult", "").strip().lower()),
            }
            for obj in root.findall("object")
        ],
    }


def _number(text):
    """The number in a text; `None` in an empty one, NaN where there is another."""
    try:
        return float(text) if text and text.strip() else None
    except ValueError:
        return math.nan


def _found_classes(paths, annotations):
    parsed = {annotation["path"]: annotation for annotation in annotations.values()}
    # All splits must agree on the classes, so the other splits' objects count too.
    for path in set(paths) - parsed.keys():
        with suppress(DataError):
            parsed[path] = _parse(path)
    names = {obj["name"] for annotation in parsed.values() for obj in annotation["objects"]} - {""}
    return CLASSES if names <= set(CLASSES) else sorted(names)


def _objects(annotations, classes, faults):
    """All objects that are kept, the images' sizes, and where each image's objects end."""
    sizes = np.array([annotation["size"] for annotation in annotations], np.int32).reshape(-1, 2)
    rows = np.repeat(np.arange(len(sizes)), [len(a["objects"]) for a in annotations])
    found = [obj for annotation in annotations for obj in annotation["objects"]]
    index = {name: i for i, name in enumerate(classes)}

    def fault(i):
        if not found[i]["name"]:
            return "no name", "an object has no name"
        if found[i]["difficult"] is None:
            return "difficult or not", f"it is not clear whether a {found[i]['name']} is difficult"
        if found[i]["name"] not in index:
            name = found[i]["name"]
            return "unknown class", f"the class {name!r} of an object is not in classes.txt"

    known = []
    for i, row in enumerate(rows):
        if said := fault(i):
            faults.add(f"objects left out ({said[0]})", f"{annotations[row]['path']}: {said[1]}.")
        else:
            known.append(i)
    known = np.array(known, int)
    boxes = np.array([found[i]["box"] for i in known], float).reshape(-1, 4) - (1, 1, 0, 0)
    boxes, good = faults.check_boxes(
        boxes,
        sizes[rows[known]],
        lambda i: f"{annotations[rows[known[i]]]['path']}: a {found[known[i]]['name']}",
    )
    kept = known[good]
    objects = {
        "boxes": boxes,
        "labels": np.array([index[found[i]["name"]] for i in kept], np.int32),
        "difficult": np.array([found[i]["difficult"] for i in kept], bool),
    }
    return objects, sizes, np.cumsum(np.bincount(rows[kept], minlength=len(sizes)))


def _read_indices(path, size):
    """The indices of a palette or grey PNG, (H, W) uint8."""
    with open_image(path) as image:
        if image.mode not in ("P", "L"):
            raise DataError(f"{path}: the image holds colours ({image.mode}), not indices.")
        if image.size != (size[1], size[0]):
            raise DataError(f"{path}: the indices are not of the size of their image.")
        return np.array(image)


def _instances(path, values, boxes):
    """One run-length mask per box, from instances numbered from 1; empty for a box without one."""
    numbers = np.setdiff1d(values, (0, VOID))
    if len(numbers) > len(boxes):
        raise DataError(f"{path}: there are {len(numbers)} instances but {len(boxes)} objects.")
    found = masks.encode(values == numbers[:, None, None])
    distances = abs(boxes[:, None] - masks.to_boxes(found)).sum(axis=-1)
    fitted = [masks.encode(np.zeros(values.shape, bool)) for _ in boxes]
    for i, j in zip(*linear_sum_assignment(distances), strict=True):
        fitted[i] = found[j]
    return fitted
