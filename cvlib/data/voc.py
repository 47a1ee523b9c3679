"""PASCAL VOC's devkit layout (Everingham et al. 2010): XML boxes, class and instance PNGs."""

from contextlib import suppress
from functools import partial

import defusedxml.ElementTree as ElementTree
import numpy as np
from defusedxml import DefusedXmlException
from PIL import Image
from scipy.optimize import linear_sum_assignment

from cvlib import masks
from cvlib.data.reading import digest, existing_folder, missing_split, read_sized
from cvlib.data.sample import DataError, Dataset, read_image

CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
).split()
VOID = 255


def load(folder, split, faults):
    """A split in VOC's layout, its images in `JPEGImages/`.

    Args:
        folder: of the data set, as in `VOCdevkit/VOC2012`.
        split: `ImageSets/Main/SPLIT.txt`, or `ImageSets/Segmentation/SPLIT.txt` where there is no
            such file; `"Segmentation/train"` names the second although there is the first.
        faults: `Faults`.

    Samples have `boxes`, `labels` and `difficult` if there is a folder `Annotations/`. Its boxes
    count pixels from 1, first and last included, so `xmin - 1, ymin - 1, xmax, ymax` are their
    continuous borders; an `xmin` of 0, which some tools write, reaches past the image and is
    clipped. Samples of a split in `Segmentation`, or of which every image has the PNG, have
    `segmentation` from `SegmentationClass/`; with boxes and `SegmentationObject/` also `masks`,
    each instance going to the box it fits best, and `area`.

    Classes are the lines of `classes.txt`; without it VOC's 20 if all objects are of these, or the
    sorted names of all objects of the data set. With boxes, `segmentation` is 0 on the background
    and `labels + 1` on objects as in VOC; without boxes it indexes the classes, which without a
    `classes.txt` are the background and VOC's 20.

    Returns:
        `Dataset`

    Raises:
        DataError: the folder or the split does not exist; or, if faults are raised, an annotation
            is missing or cannot be read, or an object has an unknown class, a box outside the image
            or of zero size.
    """
    folder = existing_folder(folder)
    ids_file = _ids_file(folder, split)
    ids = [line.split()[0] for line in ids_file.read_text().splitlines() if line.strip()]
    classes_file = folder / "classes.txt"
    classes = classes_file.read_text().split("\n") if classes_file.is_file() else []
    classes = [name.strip() for name in classes if name.strip()]
    sources = [ids_file] + [classes_file] * bool(classes)

    if has_boxes := (folder / "Annotations").is_dir():
        annotations = {}
        for image_id in ids:
            path = folder / "Annotations" / f"{image_id}.xml"
            try:
                annotations[path] = _parse(path)
                sources.append(path)
            except DataError as error:
                faults.add("images left out (no usable annotation)", error)
        ids = [path.stem for path in annotations]
        classes = classes or _found_classes(folder, annotations)
        objects, sizes, ends = _objects(annotations, classes, faults)
    else:
        existing_folder(folder / "SegmentationClass")
        classes = classes or ["background", *CLASSES]
        objects, sizes, ends = {}, None, np.zeros(len(ids), int)

    def has_pngs(kind):
        if not (folder / kind).is_dir():
            return False
        present = {path.stem for path in (folder / kind).glob("*.png")}
        return ids_file.parent.name == "Segmentation" or present.issuperset(ids)

    kinds = ["SegmentationClass"] + ["SegmentationObject"] * has_boxes
    kinds = [kind for kind in kinds if has_pngs(kind)]
    records = {
        "folder": folder,
        "ids": ids,
        "sizes": sizes,
        "objects": objects,
        "ends": ends,
        "kinds": kinds,
        "num_values": len(classes) + has_boxes,
    }
    files = [folder / "JPEGImages" / f"{image_id}.jpg" for image_id in ids]
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
    folder, image_id = records["folder"], records["ids"][i]
    start, end = records["ends"][i - 1] if i else 0, records["ends"][i]
    path = folder / "JPEGImages" / f"{image_id}.jpg"
    if records["sizes"] is None:
        image = read_image(path)
    else:
        image = read_sized(path, records["sizes"][i])
    sample = {
        "image": image,
        "image_id": image_id,
        "size": np.array(image.shape[:2], np.int32),
        **{key: value[start:end].copy() for key, value in records["objects"].items()},
    }
    for kind in records["kinds"]:
        path = folder / kind / f"{image_id}.png"
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
    lists = existing_folder(folder / "ImageSets")
    for path in (lists / "Main", lists / "Segmentation", lists):
        path = path / f"{split}.txt"
        if path.is_file():
            return path
    existing = [path.stem for kind in ("Main", "Segmentation") for path in lists.glob(f"{kind}/*")]
    raise missing_split(folder, split, existing)


def _parse(path):
    """The size, names, boxes and difficult flags of an annotation."""
    try:
        root = ElementTree.parse(path).getroot()
        objects = root.findall("object")
        corners = ("xmin", "ymin", "xmax", "ymax")
        return {
            "size": [int(root.findtext(f"size/{side}")) for side in ("height", "width")],
            "names": [obj.findtext("name").strip() for obj in objects],
            "boxes": [[float(obj.findtext(f"bndbox/{c}")) for c in corners] for obj in objects],
            "difficult": [obj.findtext("difficult", "0").strip() == "1" for obj in objects],
        }
    except FileNotFoundError:
        raise DataError(f"{path}: the annotation does not exist.") from None
    except DefusedXmlException:
        raise DataError(f"{path}: the annotation declares XML entities and is not read.") from None
    except (SyntaxError, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: the annotation is not VOC's XML ({error}).") from None


def _found_classes(folder, annotations):
    names = {name for annotation in annotations.values() for name in annotation["names"]}
    # All splits must agree on the classes, so the other splits' objects count too.
    for path in (folder / "Annotations").glob("*.xml"):
        if path not in annotations:
            with suppress(DataError):
                names.update(_parse(path)["names"])
    return CLASSES if names <= set(CLASSES) else sorted(names)


def _objects(annotations, classes, faults):
    """All objects that are kept, the images' sizes, and where each image's objects end."""
    paths, found = list(annotations), list(annotations.values())
    sizes = np.array([a["size"] for a in found], np.int32).reshape(-1, 2)
    rows = np.repeat(np.arange(len(found)), [len(a["names"]) for a in found])
    names = [name for a in found for name in a["names"]]
    boxes = np.array([box for a in found for box in a["boxes"]]).reshape(-1, 4) - (1, 1, 0, 0)
    difficult = np.array([flag for a in found for flag in a["difficult"]], bool)
    index = {name: i for i, name in enumerate(classes)}
    labels = np.array([index.get(name, -1) for name in names], np.int32)

    for i in np.flatnonzero(labels < 0):
        faults.add(
            "objects left out (unknown class)",
            f"{paths[rows[i]]}: the class {names[i]!r} of an object is not in classes.txt.",
        )
    known = np.flatnonzero(labels >= 0)
    boxes, good = faults.check_boxes(
        boxes[known], sizes[rows[known]], lambda i: f"{paths[rows[known[i]]]}: a {names[known[i]]}"
    )
    kept = known[good]
    objects = {"boxes": boxes, "labels": labels[kept], "difficult": difficult[kept]}
    return objects, sizes, np.cumsum(np.bincount(rows[kept], minlength=len(found)))


def _read_indices(path, size):
    """The indices of a palette or grey PNG, (H, W) uint8."""
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.array(image)
    except FileNotFoundError:
        raise DataError(f"{path}: the image does not exist.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: the image cannot be read ({error}).") from None
    if mode not in ("P", "L"):
        raise DataError(f"{path}: the image holds colours ({mode}), not indices.")
    if values.shape != tuple(size):
        raise DataError(f"{path}: the indices are not of the size of their image.")
    return values


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
