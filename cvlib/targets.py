"""Who is responsible for which object: the matching and sampling rules of the papers."""

import functools

import keras
import numpy as np
from keras import ops

from cvlib.boxes import area, covered, iou
from cvlib.layers.crop_and_resize import bilinear, centres

TIE = 1e-4  # IoUs closer than this share are equal: the same boxes elsewhere differ by rounding
OBJECTS_TOGETHER = 32  # rows of objects that are looked at, or skipped, at a time


def left_to_right(boxes, labels, count):
    """The first `count` objects of each image, ordered by the centre of their boxes.

    Args:
        boxes: (B, N, 4) xyxy.
        labels: (B, N) integers, -1 where padded.
        count: K <= N.

    Returns:
        `{"boxes": (B, K, 4), "labels": (B, K)}`; padded objects come last.

    Raises:
        ValueError: N < K.
    """
    if labels.shape[1] < count:
        raise ValueError(
            f"{count} objects are asked for where there is room for {labels.shape[1]}."
        )
    centre = boxes[..., 0] + boxes[..., 2]
    order = ops.argsort(ops.where(labels >= 0, centre, float("inf")), axis=-1)[:, :count]
    return {
        "boxes": ops.take_along_axis(boxes, order[..., None], axis=1),
        "labels": ops.take_along_axis(labels, order, axis=1),
    }


def forgiven(y):
    """Which objects (B, N) are neither right nor wrong: those difficult, and crowds."""
    absent = ops.zeros_like(y["labels"], "bool")
    return ops.logical_or(y.get("difficult", absent), y.get("crowd", absent))


def match(
    anchors,
    boxes,
    present,
    positive=0.7,
    negative=0.3,
    best=True,
    valid=None,
    ignored=None,
    overlap=None,
):
    """Which object each anchor, or proposal, answers for, if any.

    An anchor is positive if its IoU with an object is at least `positive`, or, with `best`, if no
    anchor has a higher IoU with some object (all of them where several tie); it answers for the
    object with which its own IoU is highest. It is negative if it overlaps no object by `negative`,
    and ignored in between. Objects without area, of NaN or infinite, are no objects; such anchors
    are ignored. No gradient passes.

    Args:
        anchors: (N, 4) or (B, N, 4) xyxy.
        boxes: (B, M, 4) xyxy.
        present: (B, M) booleans, False where padded.
        positive: least IoU of a positive.
        negative: IoU under which an anchor is negative; a pair (low, high) makes negatives of
            low <= IoU < high only.
        best: whether the valid anchors that overlap an object most are positive at whatever IoU.
            (One that overlaps another object more answers for that other one, as in the code of
            Faster R-CNN; so a few objects in a crowd have no positive.)
        valid: (N,) or (B, N) booleans; other anchors are ignored, as those across the border are.
        ignored: (B, M) booleans of objects that are neither right nor wrong (difficult, crowd):
            they have no positives, and anchors of which they cover `negative` are no negatives.
            (Not the IoU: a crowd is larger than any of its members.)
        overlap: (B, N, M), the IoU to go by instead of that of the boxes, such as regions'; with
            ignored objects the share that they cover.

    Returns:
        A dict of (B, N): `index` int32, the object with the highest IoU; `iou` float32, which that
        is; `state` int32, 1 for positives, 0 for negatives, -1 for ignored anchors.

    Raises:
        ValueError: N or M is 0.

    Source: Faster R-CNN (Ren et al. 2015), section 3.1.2, with at least 0.7 as in its code; for
    proposals, Fast R-CNN (Girshick 2015), section 2.3: 0.5, (0.1, 0.5), and no `best`.
    """
    anchors = ops.stop_gradient(ops.cast(anchors, "float32"))
    boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
    _check_room(boxes)
    if anchors.shape[-2] == 0:
        raise ValueError("There is no anchor: pad regions, with boxes without area, to one.")
    low, high = negative if isinstance(negative, tuple | list) else (0, negative)
    valid = ops.logical_and(has_area(anchors), True if valid is None else valid)
    real = ops.logical_and(has_area(boxes), present)
    ignored = ops.logical_and(real, False if ignored is None else ignored)
    look = functools.partial(_fused(_look), anchors, valid, high)
    if overlap is None:
        highest, index, ties, forgiving = _in_chunks(look, boxes, real, ignored)
    else:
        highest, index, ties, forgiving = look(boxes, real, ignored, overlap)
    positives = (highest >= positive) | (ties & best)
    negatives = (low <= highest) & (highest < high) & ~forgiving
    state = ops.where(positives, 1, ops.where(negatives, 0, -1))
    return {
        "index": index,
        "iou": highest,
        "state": ops.cast(ops.where(valid, state, -1), "int32"),
    }


def _look(anchors, valid, high, boxes, real, ignored, overlap=None):
    """What anchors (B, N) have of some objects (B, m); `high` and `overlap` are of `match`.

    Returns:
        (B, N): the highest IoU; with which object, int32; whether no anchor has more of some object
        that they overlap; whether one that is ignored covers them by `high`.
    """
    objects = real & ~ignored
    if overlap is None:
        # Empty boxes overlap nothing, which is cheaper than to mask all pairs.
        possible = ops.where(valid[..., None], anchors, 0)
        of_objects = iou(possible, ops.where(objects[..., None], boxes, 0))
    else:
        of_objects = ops.where(objects[:, None] & valid[..., None], overlap, 0.0)
    most = ops.max(of_objects, axis=1, keepdims=True)
    ties = of_objects > ops.where(most > 0, (1 - TIE) * most, float("inf"))
    highest = ops.max(of_objects, axis=-1)

    def covering():
        share = covered(anchors, boxes) if overlap is None else overlap
        return ops.any(ignored[:, None] & (share >= high), axis=-1)

    # Few images have a crowd or a difficult object.
    none = functools.partial(ops.zeros_like, highest, "bool")
    return (
        highest,
        ops.cast(ops.argmax(of_objects, axis=-1), "int32"),
        ops.any(ties, axis=-1),
        ops.cond(ops.any(ignored), covering, none),
    )


def _fused(function):
    """`function` of tensors, compiled by XLA within TensorFlow's graphs on a processor.

    One loop then goes through all pairs of boxes, in place of a dozen with arrays between them, in
    about half of the time (`python -m benchmarks.kernels.matching`). On a GPU Keras has XLA compile
    the whole graph, where there is XLA. JAX compiles everything, PyTorch nothing.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    if tf.executing_eagerly() or tf.config.list_physical_devices("GPU"):
        return function
    return tf.function(function, jit_compile=True)


def _in_chunks(look, boxes, real, ignored):
    """`look(boxes, real, ignored)` of objects (B, M), a chunk of them at a time.

    There is room for as many objects as the fullest image of a data set has, and few are like it:
    chunks that are padding in all images of the batch are not looked at.
    """
    first, *others = chunks(boxes.shape[1])
    found = look(boxes[:, first], real[:, first], ignored[:, first])
    for rows in others:
        part = boxes[:, rows], real[:, rows], ignored[:, rows]
        more = functools.partial(_look_further, look, part, rows.start, found)
        found = ops.cond(ops.any(real[:, rows]), more, functools.partial(tuple, found))
    return found


def _look_further(look, part, start, found):
    """What was `found` of the objects before, and `look` finds of those from `start` on."""
    highest, index, ties, forgiving = found
    more, which, more_ties, more_forgiving = look(*part)
    index = ops.where(more > highest, which + start, index)
    return ops.maximum(more, highest), index, ties | more_ties, forgiving | more_forgiving


def chunks(count):
    """Slices of `count` rows of objects, to be taken one by one; one of all if count is None."""
    if count is None:
        return [slice(None)]
    starts = range(0, max(count, 1), OBJECTS_TOGETHER)
    return [slice(start, start + OBJECTS_TOGETHER) for start in starts]


def sample(state, count, positive_fraction, seed):
    """Anchors to learn from, drawn at random: positives up to a share, the rest negatives.

    Negatives stand in for missing positives, but not the other way round: where both are short,
    some of the `count` places are empty. No gradient passes.

    Args:
        state: (B, N) integers as of `match`: 1 positive, 0 negative, others are never drawn.
        count: K, the number of places of each image.
        positive_fraction: share of K that positives fill at most, rounded down, but one at least.
        seed: `keras.random.SeedGenerator`.

    Returns:
        `{"indices": (B, K) int32, "valid": (B, K) booleans, False in empty places}`; positives
        come first, empty places last.

    Source: Faster R-CNN (Ren et al. 2015), section 3.1.3: 256, 0.5; Fast R-CNN (Girshick 2015),
    section 2.3: 64, 0.25.
    """
    state = ops.convert_to_tensor(state)
    # Keys of half precision would be few, and many of them equal.
    keys = keras.random.uniform(ops.shape(state), dtype="float32", seed=seed)
    # As many more as there are places, so that there are enough, however many there are.
    room = ((0, 0), (0, count))
    state = ops.pad(state, room, constant_values=-1)
    keys = ops.pad(keys, room, constant_values=-1.0)
    most = max(int(count * positive_fraction), 1)
    # The last positive that has a place, or -1 if there is room for all.
    last = ops.top_k(ops.where(state == 1, keys, -1.0), most)[0][:, -1:]
    keys = ops.where((state == 1) & (keys >= last), keys + 1, ops.where(state == 0, keys, -1.0))
    keys, indices = ops.top_k(keys, count)
    valid = keys >= 0
    return {"indices": ops.cast(ops.where(valid, indices, 0), "int32"), "valid": valid}


def in_cells(boxes, labels, grid, height, width, ignored=None):
    """The object of each cell of a grid: of those whose centre it holds, the largest.

    A centre on the line between two cells belongs to the one at the right, or below; a centre
    outside the image to the nearest cell. Of equally large objects the first counts. Objects
    without area, of NaN or infinite, are no objects. No gradient passes.

    Args:
        boxes: (B, M, 4) xyxy.
        labels: (B, M) integers, -1 where padded.
        grid: S, cells along each side of the image.
        height, width: of the image.
        ignored: (B, M) booleans of objects that are neither right nor wrong (difficult, crowd): no
            cell has them, and cells that they touch, but that have no object, are ignored.

    Returns:
        A dict of the S S cells, row by row: `boxes` (B, S S, 4), 0 where there is no object,
        `labels` (B, S S), -1 there, and `ignored` (B, S S) booleans.

    Raises:
        ValueError: M is 0.

    Source: YOLO (Redmon et al. 2016), section 2. The choice of the largest is ours: the paper is
    silent, and the released code draws one at random.
    """
    boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
    _check_room(boxes)
    side = np.float32([width / grid, height / grid])
    real = ops.logical_and(has_area(boxes), labels >= 0)
    boxes = ops.where(real[..., None], boxes, 0.0)
    ignored = ops.logical_and(real, False if ignored is None else ignored)
    place = ops.floor(ops.divide((boxes[..., :2] + boxes[..., 2:]) / 2, side))
    place = ops.clip(place, 0, grid - 1)
    rows, columns = np.indices((grid, grid), "float32").reshape(2, -1, 1)
    inside = ops.equal(place[:, None, :, 0], columns) & ops.equal(place[:, None, :, 1], rows)
    inside = inside & (real & ~ignored)[:, None]
    largest = ops.argmax(ops.where(inside, area(boxes)[:, None], -1.0), axis=-1)
    has_object = ops.any(inside, axis=-1)
    corner = np.concatenate([columns, rows], axis=-1)
    touched = iou(np.concatenate([corner, corner + 1], axis=-1) * np.tile(side, 2), boxes) > 0
    touched = ops.any(touched & ignored[:, None], axis=-1)
    found = ops.take_along_axis(boxes, largest[..., None], axis=1)
    return {
        "boxes": ops.where(has_object[..., None], found, 0.0),
        "labels": ops.where(has_object, ops.take_along_axis(labels, largest, axis=1), -1),
        "ignored": touched & ~has_object,
    }


def masks_in(regions, boxes, masks, size):
    """The masks of objects in the frames of regions that answer for them.

    Args:
        regions: (B, R, 4) xyxy.
        boxes: (B, R, 4), of the object that each region answers for.
        masks: (B, R, M, M) of these objects, in the frames of `boxes`.
        size: cells on a side.

    Returns:
        (B, R, size, size) booleans: whether the mask, interpolated bilinearly at a cell's centre,
        is at least a half. It is false outside the object's box, and everywhere for boxes without
        area, of NaN or infinite. No gradient passes.

    Source: Dai et al. 2016 (Multi-task Network Cascades), section 3.2; `intersect_mask` of the
    authors' release.
    """
    regions = ops.stop_gradient(ops.cast(regions, "float32"))
    boxes = ops.cast(boxes, "float32")
    real = has_area(boxes)
    boxes = ops.where(real[..., None], boxes, np.float32([0, 0, 1, 1]))
    corner, sides = boxes[..., :2], boxes[..., 2:] - boxes[..., :2]
    pixels = masks.shape[-1]
    start, end = (pixels * (x - corner) / sides for x in (regions[..., :2], regions[..., 2:]))
    columns, rows = (bilinear(centres(start[..., i], end[..., i], size), pixels) for i in (0, 1))
    masks = ops.cast(masks, "float32")
    drawn = ops.matmul(ops.matmul(rows, masks), ops.swapaxes(columns, -1, -2))
    return (drawn >= 0.5) & real[..., None, None]


def masks_iou(masks, targets, regions, areas):
    """IoU (B, R) of predicted masks with the objects that their regions answer for.

    Args:
        masks: (B, R, M, M) booleans, in the frames of the regions.
        targets: (B, R, M, M) booleans, of `masks_in`.
        regions: (B, R, 4) xyxy.
        areas: (B, R) of the objects' masks, whose parts outside of their regions are missed.
    """
    both, predicted = (
        ops.mean(ops.cast(x, "float32"), axis=(2, 3)) * area(regions)
        for x in (ops.logical_and(masks, targets), masks)
    )
    union = ops.add(predicted, areas) - both
    return ops.where(union > 0, both / ops.where(union > 0, union, 1.0), 0.0)


def _check_room(boxes):
    if boxes.shape[1] == 0:
        raise ValueError(
            "There is no room for an object: pad boxes and labels, with -1, to at least one."
        )


def has_area(boxes):
    """Which boxes (...) have an area that is finite: those of NaN have none."""
    size = area(boxes)
    return (size > 0) & ops.isfinite(size)
