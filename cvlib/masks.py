"""Run-length masks and box-framed masks, on `pycocotools.mask`.

A run-length mask is COCO's dict `{"size": [height, width], "counts": bytes}`. Coordinates are
continuous: pixel (row i, column j) covers [j, j + 1) x [i, i + 1) and its centre is at
(j + 0.5, i + 0.5). A box-framed mask of size M divides its box into M x M equal cells and holds one
value per cell, that at the cell's centre.
"""

import numpy as np
from pycocotools import mask as coco


def encode(masks):
    """Run-length encodes masks.

    Args:
        masks: (H, W) or (N, H, W), bool or {0, 1}.

    Returns:
        One run-length mask, or a list of N.
    """
    masks = np.asarray(masks, np.uint8)
    encoded = coco.encode(np.asfortranarray(np.atleast_3d(masks.T).swapaxes(0, 1)))
    return encoded[0] if masks.ndim == 2 else encoded


def decode(masks):
    """Run-length masks of one image as (N, H, W) uint8 in {0, 1}; (0, 0, 0) if there are none."""
    if not masks:
        return np.zeros((0, 0, 0), np.uint8)
    return coco.decode(masks).transpose(2, 0, 1)


def from_polygons(polygons, height, width):
    """The run-length mask of one object.

    Args:
        polygons: list of polygons `[x1, y1, x2, y2, ...]` in pixels, of at least 3 points each;
            the object is their union.
        height: of the image.
        width: of the image.

    Raises:
        ValueError: a coordinate is not finite, or beyond 100,000 pixels; there is no polygon, or
            one of fewer points.
    """
    if not polygons or any(np.size(polygon) < 6 for polygon in polygons):
        raise ValueError("An object needs polygons of at least 3 points.")
    # pycocotools walks along the edges pixel by pixel, and crashes where a coordinate is nan.
    if not all((np.abs(polygon) <= 1e5).all() for polygon in polygons):
        raise ValueError("A polygon is not within 100,000 pixels of its image's corner.")
    return coco.merge(coco.frPyObjects(polygons, height, width))


def from_uncompressed(mask):
    """The run-length mask of `{"size": [height, width], "counts": [0s, 1s, 0s, ...]}`."""
    return coco.frPyObjects(mask, *mask["size"])


def is_complete(mask):
    """Whether the runs of a run-length mask cover its pixels exactly.

    `decode` trusts this: it reads and writes memory that is not the mask's where it does not hold.
    The counts are COCO's: differences to the run before the last, in digits of 5 bits and a
    continuation bit, lowest first (`rleFrString` of the COCO API).
    """
    runs, value, shift = [], 0, 0
    for byte in mask["counts"]:
        digit = byte - 48
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    height, width = mask["size"]
    return shift == 0 and min(runs, default=-1) >= 0 and sum(runs) == height * width


def areas(masks):
    """(N,) float32 numbers of pixels."""
    # One at a time: pycocotools 2.0.11 overflows on more than 255 masks under NumPy 2.
    return np.array([coco.area(mask) for mask in masks], np.float32)


def to_boxes(masks):
    """(N, 4) float32 smallest boxes `x1, y1, x2, y2` around the pixels; all 0 for empty masks."""
    boxes = np.reshape(coco.toBbox(masks), (-1, 4)).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def iou(a, b, crowd=None):
    """Intersection over union of run-length masks of one image.

    Args:
        a: N masks.
        b: M masks.
        crowd: (M,) bool; with a crowd region of `b` the intersection is divided by the area of
            `a`'s mask alone (COCO's rule).

    Returns:
        (N, M) float64.
    """
    crowd = np.zeros(len(b), bool) if crowd is None else crowd
    return np.reshape(coco.iou(a, b, [int(c) for c in crowd]), (len(a), len(b)))


def crop(masks, boxes, size):
    """Masks in the frame of their boxes, the training targets of instance systems.

    Args:
        masks: N run-length masks of one image.
        boxes: (N, 4) `x1, y1, x2, y2` in pixels.
        size: M.

    Returns:
        (N, M, M) float32 in [0, 1]: the masks at the cells' centres, interpolated bilinearly
        between the pixels' centres; beyond the image its border pixels go on.
    """
    if not len(masks):
        return np.zeros((0, size, size), np.float32)
    x, y = _centres(np.asarray(boxes, np.float64), size)
    return _bilinear(decode(masks), y, x)


def reframe(box_masks, boxes, frames):
    """Box-framed masks in the frames of other boxes, as when these are what an image shows of them.

    Args:
        box_masks: (N, M, M), in the frames of `boxes`.
        boxes, frames: (N, 4) `x1, y1, x2, y2`. Masks of boxes without area stay as they are.

    Returns:
        (N, M, M) float32: the masks at the cells' centres of `frames`, interpolated bilinearly;
        beyond its box the border of a mask goes on.
    """
    size = np.shape(box_masks)[-1]
    boxes, frames = (np.asarray(x, np.float64) for x in (boxes, frames))
    sides = boxes[:, 2:] - boxes[:, :2]
    empty = (sides <= 0).any(axis=1, keepdims=True)
    relative = (frames - np.tile(boxes[:, :2], 2)) / np.tile(np.where(empty, 1, sides), 2)
    x, y = _centres(size * np.where(empty, (0, 0, 1, 1), relative), size)
    return _bilinear(np.asarray(box_masks, np.float32), y, x)


def pieces(masks, height, width, most):
    """The pieces into which masks cut their image, and which of them each mask consists of.

    Two pixels are of the same piece if they are in the same masks. Piece 0 is in none of them. This
    is the form that the authors of SDS give their regions: superpixels, and who has which of them.
    (Theirs are connected, and divide what is in no mask, too. Here a piece may lie in several
    places.)

    Args:
        masks: N run-length masks of one image.
        height: of the image.
        width: of the image.
        most: how many pieces there may be. Of more, the smallest become piece 0.

    Returns:
        (height, width) int32, the piece of each pixel, and (N, most) bool.
    """
    members = np.zeros((len(masks), most), bool)
    if not len(masks):
        return np.zeros((height, width), np.int32), members
    inside = np.packbits(decode(masks).reshape(len(masks), -1), axis=0).T
    # Each pixel's bits as one value, which is sorted faster than a row.
    codes = np.ascontiguousarray(inside).view(f"V{inside.shape[1]}").ravel()
    codes, first, piece, sizes = np.unique(
        codes, return_index=True, return_inverse=True, return_counts=True
    )
    rows = inside[first]
    sizes[~rows.any(axis=1)] = 0
    kept = np.argsort(-sizes, kind="stable")[: most - 1]
    kept = kept[sizes[kept] > 0]
    number = np.zeros(len(codes), np.int32)
    number[kept] = np.arange(1, len(kept) + 1)
    members[:, 1 : len(kept) + 1] = np.unpackbits(rows[kept].T, axis=0, count=len(masks))
    return number[piece].reshape(height, width), members


def _centres(boxes, size):
    """x and y, (N, size) each, of the centres of the cells of boxes (N, 4)."""
    cells = (np.arange(size) + 0.5) / size
    corner, extent = boxes[:, :2, None], (boxes[:, 2:] - boxes[:, :2])[:, :, None]
    return np.moveaxis(corner + extent * cells, 1, 0)


def paste(box_masks, boxes, height, width, threshold=0.5):
    """Puts box-framed masks into the image: the inverse of `crop`.

    Args:
        box_masks: (N, M, M) probabilities.
        boxes: (N, 4) `x1, y1, x2, y2` in pixels of the image; they may reach past it.
        height: of the image.
        width: of the image.
        threshold: a pixel is in the mask if its centre is in the box and the probability there,
            interpolated bilinearly between the cells' centres, is at least this.

    Returns:
        N run-length masks.
    """
    size = np.shape(box_masks)[-1]
    limits, found = (width, height), []
    for cells, box in zip(box_masks, np.asarray(boxes, np.float64), strict=True):
        # Columns first: pycocotools wants each mask column by column.
        canvas = np.zeros((width, height), np.uint8).T
        (x1, x2), (y1, y2) = (
            np.clip(np.ceil(box[axis::2] - 0.5), 0, limits[axis]).astype(int) for axis in (0, 1)
        )
        x = (np.arange(x1, x2) + 0.5 - box[0]) / (box[2] - box[0]) * size
        y = (np.arange(y1, y2) + 0.5 - box[1]) / (box[3] - box[1]) * size
        canvas[y1:y2, x1:x2] = _bilinear(cells[None], y[None], x[None])[0] >= threshold
        # One at a time: hundreds in a large photograph would take gigabytes.
        found.append(encode(canvas))
    return found


def _bilinear(grids, y, x):
    """Values of `grids` (N, H, W), whose cell (i, j) is centred at (j + 0.5, i + 0.5), on the
    grids of points `y` (N, P) by `x` (N, Q): (N, P, Q) float32. The border is extended."""
    (top, bottom, down), (left, right, along) = (
        _neighbours(positions, length)
        for positions, length in zip((y, x), grids.shape[1:], strict=True)
    )
    down, along = down[:, :, None], along[:, None, :]
    n = np.arange(len(grids))[:, None, None]

    def row(i):
        i = i[:, :, None]
        return grids[n, i, left[:, None]] * (1 - along) + grids[n, i, right[:, None]] * along

    return row(top) * (1 - down) + row(bottom) * down


def _neighbours(positions, length):
    """Indices of the cells whose centres enclose `positions`, and the second one's weight."""
    positions = np.clip(positions - 0.5, 0, length - 1)
    first = positions.astype(int)
    return first, np.minimum(first + 1, length - 1), (positions - first).astype(np.float32)
