"""The regions of a segmentation: their boxes and masks."""

import numpy as np
from scipy.ndimage import find_objects

from cvlib import masks


def label_boxes(labels):
    """(R, 4) smallest boxes, xyxy, of the regions of `labels` (H, W), each of 0..R-1 present."""
    slices = find_objects(labels + 1)
    return np.array([(x.start, y.start, x.stop, y.stop) for y, x in slices], int)


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
