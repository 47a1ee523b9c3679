"""The regions of a segmentation: their boxes and masks."""

import numpy as np

from cvlib import masks


def label_boxes(labels):
    """(R, 4) smallest boxes, xyxy, of the regions of `labels` (H, W), each of 0..R-1 present."""
    count = labels.max() + 1
    boxes = np.empty((count, 4), int)
    for side, positions in enumerate(np.indices(labels.shape, sparse=True)[::-1]):
        present = np.zeros((count, labels.shape[1 - side]), bool)
        present[labels, positions] = True
        boxes[:, side] = present.argmax(axis=1)
        boxes[:, side + 2] = present.shape[1] - present[:, ::-1].argmax(axis=1)
    return boxes


def label_masks(labels):
    """R run-length masks of the regions of `labels` (H, W), each of 0..R-1 present."""
    # Where the label changes going down the columns, all runs end and start.
    flat = labels.T.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=-1))
    runs = np.stack([starts, np.append(starts[1:], flat.size)], axis=1)
    order = np.argsort(flat[starts], kind="stable")
    by_region = np.split(runs[order], np.flatnonzero(np.diff(flat[starts][order])) + 1)
    counts = (np.diff(runs.ravel(), prepend=0, append=flat.size) for runs in by_region)
    return [
        masks.from_uncompressed({"size": list(labels.shape), "counts": c.tolist()}) for c in counts
    ]


def region_sums(labels, values):
    """Sums (R, C) over the regions of `labels` (H, W), each of 0..R-1, of values (H, W, C)."""
    flat = labels.ravel()
    return np.stack(
        [np.bincount(flat, channel.ravel()) for channel in np.moveaxis(values, 2, 0)], 1
    )
