"""From samples to the batches that `keras.Model.fit` takes, with grain: NumPy, no backend."""

import functools
import math
import warnings
from collections.abc import Mapping, Sequence

import grain
import numpy as np
from PIL import Image

from cvlib import masks as rle
from cvlib.data.augment import (
    MEAN_COLOR,
    areas,
    clip_to_view,
    letterbox,
    render,
    view_geometry,
    visible_fraction,
)
from cvlib.data.sample import EMPTY, DataError

VOID = 255
SLIVER = 0.05  # proposals of which a smaller fraction is left in the view are dropped

# The annotation that each kind of targets cannot do without.
_NEEDS = {
    "labels": "label",
    "boxes": "boxes",
    "masks": "masks",
    "keypoints": "keypoints",
    "segmentation": "segmentation",
}


def batches(
    dataset,
    batch_size,
    size,
    targets="boxes",
    max_objects=100,
    augment=None,
    seed=0,
    shuffle=True,
    repeat=True,
    resize="stretch",
    mask_size=28,
    cache=False,
    num_threads=2,
    proposals=None,
    max_proposals=1000,
    max_pieces=None,
):
    """Batches `(x, y)` for a loop, or for `fit`, with `steps_per_epoch=data.steps_per_epoch`.

    They are the same on every backend and in every run with the same arguments. `x` is the images,
    (B, H, W, 3) uint8; with `proposals` it is `{"images": (B, H, W, 3), "proposals": (B, R, 4)}`,
    float32 in pixels of the resized image, padded with -1. With `max_pieces` it holds the regions
    of the proposals too, as `cvlib.masks.pieces` writes them: `pieces` (B, H, W) int32, the piece
    of each pixel, 0 of those in no region, and `members` (B, R, P) bool. `y` is a flat dict:

    | key | shape | with targets | |
    |---|---|---|---|
    | `geometry` | (B, 4) float32 | all | scale x, scale y, offset x, offset y: see `to_original` |
    | `label` | (B,) int32 | all | of datasets whose images have a class |
    | `boxes` | (B, N, 4) float32 | boxes, masks, keypoints | pixels of the resized image, or -1 |
    | `labels` | (B, N) int32 | boxes, masks, keypoints | -1 where there is no object |
    | `difficult`, `crowd` | (B, N) bool | boxes, masks, keypoints | |
    | `area` | (B, N) float32 | boxes, masks, keypoints | square pixels of the resized image |
    | `masks` | (B, N, M, M) float32 | masks | in the frame of the box, in [0, 1] |
    | `keypoints` | (B, N, K, 3) float32 | keypoints | x, y, visible; all 0 outside the image |
    | `segmentation` | (B, H, W) uint8 | segmentation | nearest class; 255 is void, as is padding |

    Images are resampled once, bilinearly, averaging where they shrink; crop, flip and resize are
    one linear map of continuous coordinates, which the annotations follow exactly. Models compiled
    with losses take one key: `data.map(lambda batch: (batch[0], batch[1]["label"]))`.

    Args:
        dataset: `cvlib.data.Dataset`.
        batch_size: B.
        size: `(H, W)` of the images.
        targets: `"boxes"`, `"masks"`, `"keypoints"`, `"segmentation"` or `"labels"` (the image's
            class alone).
        max_objects: N. Of more objects the largest stay, in their order; the first image where
            that happens is named in a warning, all are counted in `left_out`.
        augment: `Augment`, or `None` for none.
        seed: of the order and of the augmentation.
        shuffle: in a new order each epoch; otherwise in the dataset's.
        repeat: for ever, in full batches; otherwise one pass, whose last batch may be smaller.
        resize: `"stretch"`, or `"pad"` to keep the proportions, centred.
        mask_size: M.
        cache: keep the samples, and their masks in the boxes' frames, in memory once they are read.
        num_threads: how many batches are made at a time. Decoding large photographs gains from
            more; with small pictures Python's lock makes more than two slower.
        proposals: (N, 4) boxes of each image in its original pixels, the best first: what
            `cvlib.proposals.propose` gives for the dataset, any other sequence of boxes or of
            `Proposals` in the dataset's order, a mapping from `image_id` to them, or a method of
            `cvlib.proposals`, which is called with each image that is read. They are cropped,
            flipped and resized with the image; those of which under 5 % are left are dropped.
        max_proposals: R. Of more proposals the first stay.
        max_pieces: P, to have the proposals' regions too; their masks must be there. Of more pieces
            than P - 1 the smallest belong to no region.

    Returns:
        A `grain.IterDataset` with `num_samples`, `steps_per_epoch` (an epoch ends with the batch
        that holds its last sample), `classes` (the dataset's) and `left_out` (by `image_id`, how
        many objects were over `max_objects` when it was last read).

    Raises:
        ValueError: an argument has no such value, the dataset is empty, there are not as many
            proposals as images, or a flip would exchange keypoints of which the dataset does not
            say which are left and right.
        DataError: from the iteration; a sample cannot be read, lacks what `targets` needs, has no
            proposals or other proposals than boxes, or these have no masks where they should, or
            masks of other boxes.
    """
    if targets not in _NEEDS:
        raise ValueError(f"targets must be one of {', '.join(_NEEDS)}, not {targets!r}.")
    if resize not in ("stretch", "pad"):
        raise ValueError(f"resize must be 'stretch' or 'pad', not {resize!r}.")
    if not len(dataset):
        raise ValueError(f"{dataset.name} has no samples in its split {dataset.split!r}.")
    if targets == "keypoints" and augment and augment.flip and not dataset.flip_keypoints:
        raise ValueError(
            f"{dataset.name} does not say which keypoints a flip exchanges: name them left and "
            "right, or give `Augment(flip=0)`."
        )

    if isinstance(proposals, Sequence | np.ndarray) and len(proposals) != len(dataset):
        raise ValueError(f"there are {len(proposals)} proposals for {len(dataset)} images.")

    def read(i):
        sample = dataset[i]
        if targets == "masks" and "masks" in sample:
            framed = rle.crop(sample["masks"], sample["boxes"], mask_size)
            sample = sample | {"framed": framed}
        if proposals is None:
            return sample
        found = _found(proposals, sample, i)
        sample = sample | {"proposals": _boxes(found, sample)}
        if max_pieces:
            first = max_proposals, max_pieces
            sample["pieces"] = as_pieces(found, sample["image"], sample["image_id"], *first)
        return sample

    read = functools.cache(read) if cache else read
    left_out, faults = {}, []

    def example(index, rng):
        try:
            return drawn(index, rng)
        except DataError as error:
            faults.append(DataError(str(error)))  # grain adds to the message of the other.
            raise

    def drawn(index, rng):
        sample = read(int(index))
        if _NEEDS[targets] not in sample:
            raise DataError(f"{sample['image_id']}: the sample has no {_NEEDS[targets]!r}.")
        image = Image.fromarray(sample["image"])
        view = (0, 0, image.width, image.height)
        if augment:
            view = augment.view((image.height, image.width), sample.get("boxes", ()), rng)
        if resize == "pad":
            view = letterbox(view, size)
        image = render(image, view, size, fill=MEAN_COLOR)
        if augment:
            image = augment.color(image, rng)

        y = {"geometry": view_geometry(view, size).astype(np.float32)}
        if "label" in sample:
            y["label"] = np.int32(sample["label"])
        if targets == "segmentation":
            classes = Image.fromarray(sample["segmentation"])
            y["segmentation"] = np.asarray(
                render(classes, view, size, Image.Resampling.NEAREST, fill=VOID)
            )
        elif targets != "labels":
            objects = _objects(sample, view, size, augment.min_visible if augment else 0)
            if len(objects["boxes"]) > max_objects:
                objects = keep_largest(sample["image_id"], objects)
            if targets == "masks":
                objects["masks"] = _masks(sample, objects, view)
            if targets == "keypoints":
                flip = dataset.flip_keypoints
                objects["keypoints"] = _keypoints(sample, objects, view, size, flip)
            y |= {k: _pad(objects[k], max_objects, v) for k, v in EMPTY.items() if k in objects}
        x = np.asarray(image)
        if proposals is not None:
            index, shown = _shown(sample["proposals"], view, size)
            shown = shown[:max_proposals]
            x = {"images": x, "proposals": _pad(shown, max_proposals, np.float32(-1))}
            if max_pieces:
                pieces, members = sample["pieces"]
                pieces = render(Image.fromarray(pieces), view, size, Image.Resampling.NEAREST)
                x["pieces"] = np.asarray(pieces)
                index = index[index < len(members)]
                x["members"] = _pad(members[index], max_proposals, np.False_)
        return x, y

    def keep_largest(image_id, objects):
        excess = len(objects["boxes"]) - max_objects
        if not left_out:
            warnings.warn(
                f"{image_id} has {excess} objects more than max_objects={max_objects}: the "
                "largest are kept; `left_out` counts these and those of other images.",
                stacklevel=2,
            )
        left_out[image_id] = excess
        largest = np.argsort(-objects["area"], kind="stable")[:max_objects]
        return {key: value[np.sort(largest)] for key, value in objects.items()}

    data = grain.MapDataset.range(len(dataset)).seed(seed)
    if shuffle:
        data = data.shuffle()
    if repeat:
        # For ever, in effect: the length of grain's endless repeat overflows in batches of one.
        data = data.repeat(10**9)
    data = data.random_map(example).batch(batch_size)
    data = data.to_iter_dataset(grain.ReadOptions(num_threads, prefetch_buffer_size=4))
    data.num_samples = len(dataset)
    data.steps_per_epoch = math.ceil(len(dataset) / batch_size)
    data.left_out, data.faults = left_out, faults
    data.classes = dataset.classes
    return data


def arrays(dataset, size, targets="boxes", **options):
    """A whole data set as two arrays `(x, y)`, in its order: one pass of `batches` in one piece.

    Args:
        dataset: `cvlib.data.Dataset`.
        size: `(H, W)` of the images.
        targets: as in `batches`.
        **options: the others of `batches`, such as `max_objects`.
    """
    parts = list(batches(dataset, 100, size, targets, shuffle=False, repeat=False, **options))
    return tuple(_joined(part) for part in zip(*parts, strict=True))


def to_original(boxes, geometry):
    """Boxes from the pixels of a batch's images to those of the original ones.

    Args:
        boxes: (..., N, 4), of objects or detections; rows that pad them move too.
        geometry: (..., 4), `y["geometry"]`.

    Returns:
        (..., N, 4), not clipped to the image.
    """
    scale, offset = np.split(np.asarray(geometry)[..., None, :], 2, axis=-1)
    return _move(np.asarray(boxes), 1 / scale, -offset / scale)


def _joined(parts):
    if isinstance(parts[0], dict):
        return {key: _joined([part[key] for part in parts]) for key in parts[0]}
    return np.concatenate(parts)


def as_pieces(found, image, name, max_proposals, max_pieces):
    """`cvlib.masks.pieces` of the first of the `Proposals` of an image.

    Raises:
        DataError: they have no masks, or the masks are not of the image's size or of their boxes.
    """
    size, masks = image.shape[:2], getattr(found, "masks", None)
    if masks is None:
        raise DataError(f"{name}: the proposals have no masks.")
    if any(tuple(mask["size"]) != size for mask in masks):
        raise DataError(f"{name}: the masks of the proposals are not of the image's size.")
    if not np.array_equal(rle.to_boxes(masks), np.reshape(found.boxes, (-1, 4))):
        raise DataError(f"{name}: the boxes of the proposals are not those of their masks.")
    return rle.pieces(masks[:max_proposals], *size, max_pieces)


def _found(proposals, sample, i):
    """The proposals of sample `i`, in whatever form."""
    image_id = sample["image_id"]
    if callable(proposals):
        return proposals(sample["image"])
    if isinstance(proposals, Mapping):
        if image_id not in proposals:
            raise DataError(f"{image_id}: there are no proposals for the image.")
        return proposals[image_id]
    return proposals[i]


def _boxes(found, sample):
    """The boxes of proposals, (N, 4) float32."""
    image_id = sample["image_id"]
    try:
        boxes = np.array(getattr(found, "boxes", found), np.float32)
    except (TypeError, ValueError):
        boxes = np.zeros(1)
    if not boxes.size:
        return np.zeros((0, 4), np.float32)
    if boxes.shape[1:] != (4,) or not np.isfinite(boxes).all():
        raise DataError(f"{image_id}: the proposals are not (N, 4) finite numbers.")
    if not (boxes[:, 2:] > boxes[:, :2]).all():
        raise DataError(f"{image_id}: a proposal has no area.")
    return boxes


def _shown(boxes, view, size):
    """Which of `boxes` (N, 4) `view` shows, and how much, in pixels of an image of `size`."""
    index = np.flatnonzero(visible_fraction(boxes, view) >= SLIVER)
    shown = clip_to_view(boxes[index], view)
    return index, _move(shown, *np.split(view_geometry(view, size), 2))


def _move(boxes, scale, offset):
    corners = boxes[..., :2] * scale + offset, boxes[..., 2:] * scale + offset
    return np.concatenate([np.minimum(*corners), np.maximum(*corners)], axis=-1)


def _objects(sample, view, size, min_visible):
    """The objects that `view` shows: their `index`, `original` boxes and what batches hold."""
    visible = visible_fraction(sample["boxes"], view)
    index = np.flatnonzero(visible >= min_visible)
    original = clip_to_view(sample["boxes"][index], view)
    scale, offset = np.split(view_geometry(view, size), 2)
    area = sample["area"] if "area" in sample else areas(sample["boxes"])
    absent = np.zeros(len(visible), bool)
    return {
        "index": index,
        "original": original,
        "boxes": _move(original, scale, offset),
        "labels": sample["labels"][index],
        "difficult": sample.get("difficult", absent)[index],
        "crowd": sample.get("crowd", absent)[index],
        "area": (area * visible)[index] * abs(scale.prod()),
    }


def _masks(sample, objects, view):
    index, boxes = objects["index"], objects["original"]
    framed = sample["framed"][index]
    # To read the masks again takes longer than all else; most boxes lie in the view whole, and
    # their masks are those of any view.
    cut = (boxes != sample["boxes"][index]).any(axis=1)
    framed[cut] = rle.crop([sample["masks"][i] for i in index[cut]], boxes[cut], framed.shape[-1])
    return framed[..., ::-1] if view[0] > view[2] else framed


def _keypoints(sample, objects, view, size, flip_keypoints):
    joints = sample["keypoints"][objects["index"]]
    if view[0] > view[2]:
        joints = joints[:, list(flip_keypoints)]
    scale, offset = np.split(view_geometry(view, size), 2)
    xy = joints[..., :2] * scale + offset
    inside = ((xy >= 0) & (xy <= size[::-1])).all(axis=-1, keepdims=True)
    return np.concatenate([xy, joints[..., 2:]], axis=-1) * (inside & (joints[..., 2:] > 0))


def _pad(rows, length, empty):
    padded = np.full((length, *rows.shape[1:]), empty)
    padded[: len(rows)] = rows
    return padded
