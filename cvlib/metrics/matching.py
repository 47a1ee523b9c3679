"""Which detection found which object: what average precision and the error breakdown share.

Batches become rows, one per detection or object, and pairs of rows that overlap; everything after
that works on all images and classes at once.
"""

import keras
import numpy as np
from keras import ops
from pycocotools import mask as rle

from cvlib import masks

_DTYPES = {
    "boxes": np.float64,
    "confidence": np.float64,
    "area": np.float64,
    "difficult": bool,
    "crowd": bool,
}
# What stands for a column that a batch does not have.
_DEFAULTS = {"difficult": False, "crowd": False, "area": np.nan}  # nan: measured


def to_numpy(x, user):
    """`x` as an array.

    Raises:
        TypeError: `x` is symbolic, as in a compiled graph; `user` is what the sentence names.
    """
    try:
        if not isinstance(x, keras.KerasTensor):
            return ops.convert_to_numpy(x)
    except (NotImplementedError, TypeError):  # A graph tensor of TensorFlow, a tracer of JAX.
        pass
    raise TypeError(host_only(user))


def host_only(user):
    return (
        f"{user} runs on the host, outside the graph: call update_state in a loop over batches "
        "or use the callback EvaluateDetections, not compile."
    )


def num_images(batch):
    """The number of images in a padded batch or in a list of images."""
    return len(batch["labels"]) if isinstance(batch, dict) else len(batch)


def check_same_images(y_true, y_pred):
    """Raises a ValueError where objects and detections are of different numbers of images."""
    objects, detections = num_images(y_true), num_images(y_pred)
    if objects != detections:
        raise ValueError(f"y_true holds {objects} images, but y_pred {detections}.")


def read_objects(y_true, num_classes, with_masks=False, user="MeanAveragePrecision"):
    """The objects of a batch as rows, by image, then class.

    Args:
        y_true: as in `MeanAveragePrecision.update_state`.
        num_classes: labels are 0..num_classes-1.
        with_masks: whether masks are read.
        user: what error messages name.

    Returns:
        `rows`, a dict of columns of O rows: `image`, `labels`, `group` (one number for image and
        class), `boxes` (O, 4) float64, `difficult`, `crowd`, `area` and `masks` (run-length); and
        `sizes`, the (height, width) of images by number as far as known, `None` without masks.

    Raises:
        TypeError: a tensor is symbolic.
        ValueError: a key is missing, shapes do not fit, a label is outside the classes, a box is
            not finite or inverted, or an area is negative or infinite.
    """
    keys = ["boxes", "labels", *_DEFAULTS, *["masks"] * with_masks]
    rows = _read_rows("y_true", y_true, keys, num_classes, user)
    corners = np.isfinite(rows["boxes"]).all(axis=1)
    corners &= (rows["boxes"][:, :2] <= rows["boxes"][:, 2:]).all(axis=1)
    _refuse(~corners, rows, "y_true: an object", "a box that is not finite or inverted")
    unlikely = (rows["area"] < 0) | np.isinf(rows["area"])
    _refuse(unlikely, rows, "y_true: an object", "an area that is negative or infinite")
    sizes = _image_sizes(y_true, rows) if with_masks else None
    areas = _measure(rows, sizes)
    rows["area"] = np.where(np.isnan(rows["area"]), areas, rows["area"])
    return _reorder(rows, np.argsort(rows["group"], kind="stable")), sizes


def read_detections(y_pred, num_classes, sizes=None, user="MeanAveragePrecision"):
    """The detections of a batch as rows, by image, then class, then falling confidence.

    Args:
        y_pred: as in `MeanAveragePrecision.update_state`.
        num_classes: labels are 0..num_classes-1.
        sizes: of `read_objects`; with them masks are read.
        user: what error messages name.

    Returns:
        A dict of columns of D rows: `image`, `labels`, `group`, `boxes`, `area`, `masks` as of
        objects, `confidence`, and `rank`, the place among those of its image and class.

    Raises:
        TypeError: a tensor is symbolic.
        ValueError: a key is missing, shapes do not fit, a detection is not finite, its label is
            outside the classes, or there are more detections than rows.
    """
    keys = ["boxes", "labels", "confidence", *["masks"] * (sizes is not None)]
    rows = _read_rows("y_pred", y_pred, keys, num_classes, user)
    finite = np.isfinite(rows["boxes"]).all(axis=1) & np.isfinite(rows["confidence"])
    _refuse(~finite, rows, "y_pred: a detection", "a box or a confidence that is not finite")
    rows["area"] = _measure(rows, sizes)
    rows = _reorder(rows, np.lexsort((-rows["confidence"], rows["group"])))
    first = np.searchsorted(rows["group"], rows["group"])
    return rows | {"rank": np.arange(len(first)) - first}


def overlapping(detections, objects, same, lowest, crowd=None, of="boxes"):
    """The pairs of a detection and an object whose IoU is at least `lowest`.

    Args:
        detections, objects: rows.
        same: the column that both share, `"group"` or `"image"`.
        lowest: IoU.
        crowd: (O,) bool, objects with which the intersection is divided by the detection's area
            alone.
        of: `"boxes"` or `"masks"`.

    Returns:
        `detection`, `object`, `iou`, each (P,).

    Raises:
        ValueError: masks of one image differ in size.
    """
    shapes_d, shapes_o = (_shapes(rows, of) for rows in (detections, objects))
    crowd = np.zeros(len(shapes_o), bool) if crowd is None else crowd
    # A call costs more than the boxes of other classes do, but less than their masks.
    called = "image" if of == "boxes" else same
    values = np.intersect1d(detections[called], objects[called])
    first_d, end_d = np.searchsorted(detections[called], [values, values + 1])
    first_o, end_o = np.searchsorted(objects[called], [values, values + 1])
    pairs = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
    for d, d_end, o, o_end in zip(first_d, end_d, first_o, end_o, strict=True):
        iou = rle.iou(shapes_d[d:d_end], shapes_o[o:o_end], crowd[o:o_end])
        if of == "masks" and iou.min() < 0:
            raise ValueError(
                f"y_pred: the masks of image {detections['image'][d]} are not of its size."
            )
        # pycocotools fills column by column, so the transpose lies in order.
        near_o, near_d = np.nonzero(iou.T >= lowest)
        pairs.append((near_d + d, near_o + o, iou[near_d, near_o]))
    d, o, iou = (np.concatenate(column) for column in zip(*pairs, strict=True))
    kept = detections[same][d] == objects[same][o]
    return d[kept], o[kept], iou[kept]


def check_kind(iou):
    if iou not in ("boxes", "masks"):
        raise ValueError(f"iou must be 'boxes' or 'masks', not {iou!r}.")


def match_voc(d, o, iou, num_detections, ignored):
    """VOC's matching: each detection with its best object, of equals the first.

    Args:
        d, o, iou: (P,), pairs of `overlapping`.
        num_detections: D.
        ignored: (O,) bool, objects that are neither right nor wrong.

    Returns:
        `correct` and `counted`, (D,) bool: right, and right or wrong.
    """
    order = np.lexsort((o, -iou, d))
    d, best = np.unique(d[order], return_index=True)
    o = o[order][best]
    correct, counted = np.zeros(num_detections, bool), np.ones(num_detections, bool)
    counted[d[ignored[o]]] = False
    # Rows fall in confidence: the first with an object finds it.
    correct[d[np.unique(o, return_index=True)[1]]] = True
    return correct & counted, counted


def match_coco(d, o, iou, rank, in_range, crowd, ignored, thresholds):
    """COCO's matching for T thresholds and A ranges of areas: each detection with its best object
    that is still free.

    All thresholds and ranges are matched at once, as the bits of one integer: bit t * A + a is of
    threshold t and range a, and T * A at most 62.

    Args:
        d, o, iou: (P,), pairs of `overlapping`.
        rank: (D,), place of a detection among those of its image and class.
        in_range: (D, A) bool, its area is in the range.
        crowd: (O,) bool, objects that match any number of detections.
        ignored: (O, A) bool, objects that are neither right nor wrong; crowds among them.
        thresholds: (T,), the lowest IoU of a match, rising.

    Returns:
        `correct` and `counted`, (D,) bits: right, and right or wrong; and `found`, (O,) bits:
        objects with a detection that is right.
    """
    count = ignored.shape[1]
    thresholds = np.minimum(thresholds, 1 - 1e-10)
    each_threshold = np.sum(1 << count * np.arange(len(thresholds)))
    in_range, ignored = (x @ (1 << np.arange(count)) * each_threshold for x in (in_range, ignored))
    # Candidates by falling IoU; of equals COCO takes the last.
    order = np.lexsort((-o, -iou, d))
    d, o = d[order], o[order]
    reached = (1 << count * np.searchsorted(thresholds, iou[order], side="right")) - 1
    # Any object that counts is preferred to all that are ignored.
    bits = np.concatenate([reached & ~ignored[o], reached & ignored[o]])
    order = np.argsort(np.tile(d, 2), kind="stable")
    order = order[bits[order] != 0]
    d, o, bits = np.tile(d, 2)[order], np.tile(o, 2)[order], bits[order]
    # Candidates of one place in their image and class do not compete.
    group = d - rank[d]
    place = np.arange(len(d)) - np.searchsorted(group, group)
    places = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])
    lonely, excused = np.full(len(rank), -1), np.zeros(len(rank), int)
    free = np.full(len(ignored), -1)
    for rows in places:
        detection, object_ = d[rows], o[rows]
        match = bits[rows] & lonely[detection] & free[object_]
        lonely[detection] ^= match
        excused[detection] |= match & ignored[object_]
        free[object_] ^= np.where(crowd[object_], 0, match)
    return ~lonely & ~excused, (in_range | ~lonely) & ~excused, ~free & ~ignored


def _refuse(faulty, rows, what, fault):
    if faulty.any():
        raise ValueError(f"{what} in image {rows['image'][faulty][0]} has {fault}.")


def _read_rows(name, batch, keys, num_classes, user):
    """The rows of a padded batch or of a list of images that are no padding, in their order."""
    empty = {k: np.zeros((0, 0)) for k in keys} | {"boxes": np.zeros((0, 0, 4)), "masks": []}
    parts = [_present(name, empty, keys, 0, user)]
    if isinstance(batch, dict):
        parts.append(_present(name, batch, keys, 0, user))
    else:
        for i, image in enumerate(batch):
            columns = {k: image[k] for k in (*keys, "num_detections") if k in image}
            alone = {
                k: [v] if k == "masks" else to_numpy(v, user)[None] for k, v in columns.items()
            }
            parts.append(_present(name, alone, keys, i, user))
    rows = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    outside = (rows["labels"] < 0) | (rows["labels"] >= num_classes)
    if outside.any():
        image, label = rows["image"][outside][0], rows["labels"][outside][0]
        raise ValueError(
            f"{name}: image {image} has the label {label}, outside 0..{num_classes - 1}."
        )
    return rows | {"group": rows["image"] * num_classes + rows["labels"]}


def _present(name, batch, keys, first, user):
    """The rows of a padded batch that are no padding; its images are numbered from `first`."""
    if missing := [k for k in keys if k not in batch and k not in _DEFAULTS]:
        raise ValueError(f"{name} has no {missing[0]!r}.")
    labels = to_numpy(batch["labels"], user)
    if labels.ndim != 2:
        raise ValueError(f"{name}: labels of shape {labels.shape} are not (images, rows).")
    if not np.array_equal(labels, np.round(labels)):
        raise ValueError(f"{name}: labels are whole numbers, not as in {np.ravel(labels)[:3]}.")
    labels = labels.astype(int)
    columns = {
        k: to_numpy(batch[k], user) if k in batch else np.full(labels.shape, _DEFAULTS[k])
        for k in keys
        if k not in ("labels", "masks")
    }
    if not labels.size:  # An empty list knows nothing of the four numbers of a box.
        columns["boxes"] = np.reshape(columns["boxes"], (*labels.shape, 4))
    for key, column in columns.items():
        if column.shape != labels.shape + (4,) * (key == "boxes"):
            raise ValueError(
                f"{name}: {key} of shape {column.shape} do not fit labels of shape {labels.shape}."
            )
    present = labels != -1
    if "num_detections" in batch:
        number = np.reshape(to_numpy(batch["num_detections"], user), (-1, 1))
        if len(number) != len(labels):
            raise ValueError(
                f"{name}: {len(number)} num_detections do not fit {len(labels)} images."
            )
        if (number > labels.shape[1]).any():
            raise ValueError(
                f"{name}: num_detections is {number.max()}, but there are {labels.shape[1]} rows."
            )
        present &= np.arange(labels.shape[1]) < number
    image, row = np.nonzero(present)
    try:
        rows = {k: column[present].astype(_DTYPES[k]) for k, column in columns.items()}
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {', '.join(columns)} are not all numbers.") from None
    if "masks" in keys:
        stacks = (
            batch["masks"] if isinstance(batch["masks"], list) else to_numpy(batch["masks"], user)
        )
        needed = [max((r + 1 for r in np.flatnonzero(p)), default=0) for p in present]
        for i, (of_image, least) in enumerate(zip(stacks, needed, strict=True), first):
            if not least <= len(of_image) <= labels.shape[1]:
                raise ValueError(f"{name}: image {i} has {len(of_image)} masks for {least} boxes.")
        rows["masks"] = np.empty(len(image), object)
        for i, (of_image, at) in enumerate(zip(image, row, strict=True)):
            rows["masks"][i] = stacks[of_image][at]
    return rows | {"image": image + first, "labels": labels[present]}


def _image_sizes(y_true, rows):
    """(height, width) of images by number, from `size` or from run-length masks."""
    of_images = (
        y_true.get("size", ()) if isinstance(y_true, dict) else [i.get("size") for i in y_true]
    )
    sizes = {i: size for i, size in enumerate(of_images) if size is not None}
    framed = zip(rows["image"], rows["masks"], strict=True)
    sizes |= {i: mask["size"] for i, mask in framed if isinstance(mask, dict)}
    return {i: (int(height), int(width)) for i, (height, width) in sizes.items()}


def _measure(rows, sizes):
    """Areas of boxes, or, with `sizes`, of masks, of which box-framed ones become run-length."""
    if sizes is None:
        # An inverted box, which a network may predict, holds nothing.
        return np.prod(np.maximum(rows["boxes"][:, 2:] - rows["boxes"][:, :2], 0), axis=1)
    for i, (mask, box, image) in enumerate(
        zip(rows["masks"], rows["boxes"], rows["image"], strict=True)
    ):
        if not isinstance(mask, dict):
            if image not in sizes:
                raise ValueError(f"y_true has no 'size' of image {image}, to paste masks into.")
            if not np.isfinite(mask).all():
                raise ValueError(f"a mask of image {image} is not finite.")
            rows["masks"][i] = masks.paste(mask[None], box[None], *sizes[image])[0]
    # One by one: pycocotools 2.0.11 refuses more than 255 at once.
    return np.array([rle.area(mask) for mask in rows["masks"]], np.float64)


def _reorder(rows, order):
    return {key: column[order] for key, column in rows.items()}


def _shapes(rows, of):
    """What `pycocotools.mask.iou` takes: run-length masks, or boxes as x, y, width, height."""
    if of == "masks":
        return list(rows["masks"])
    return np.hstack([rows["boxes"][:, :2], rows["boxes"][:, 2:] - rows["boxes"][:, :2]])
