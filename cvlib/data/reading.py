"""What the readers of folders share: what becomes of faults, checks, the digest."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np

from cvlib.data.sample import DataError, read_image


class Faults:
    """What becomes of faulty annotations.

    Args:
        on_error: `"raise"` raises the first fault, `"skip"` leaves out and counts what is faulty.

    Attributes:
        report: `Counter` of what was left out or changed, by reason.
    """

    def __init__(self, on_error):
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}.")
        self.skip = on_error == "skip"
        self.report = Counter()

    def add(self, reason, error):
        """Raises `error` (a sentence or an exception), or counts `reason`."""
        if not self.skip:
            raise error if isinstance(error, DataError) else DataError(error)
        self.report[reason] += 1

    def check_boxes(self, boxes, sizes, describe):
        """Clips boxes to their images and finds those of which nothing is left.

        Args:
            boxes: (N, 4) `x1, y1, x2, y2` in continuous pixels.
            sizes: (N, 2) height and width of their images.
            describe: function of a row, what that object is called in a sentence.

        Returns:
            The clipped boxes, float32, and the rows to keep.
        """
        boxes = np.asarray(boxes, np.float32)
        clipped = np.clip(boxes, 0, np.asarray(sizes)[:, [1, 0, 1, 0]]).astype(np.float32)
        # Negated so that NaN, which no comparison holds for, is a fault too.
        empty = ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        outside = ~(clipped[:, 2:] > clipped[:, :2]).all(axis=1) & ~empty
        for reason, faulty in (("of zero size", empty), ("outside the image", outside)):
            for i in np.flatnonzero(faulty):
                box = ", ".join(f"{v:g}" for v in boxes[i])
                self.add(
                    f"objects left out (box {reason})", f"{describe(i)} has a box {reason} ({box})."
                )
        kept = np.flatnonzero(~empty & ~outside)
        if past := (clipped[kept] != boxes[kept]).any(axis=1).sum():
            self.report["boxes clipped to the image"] += int(past)
        return clipped[kept], kept


def existing_folder(folder):
    """`folder` as a `Path`.

    Raises:
        DataError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise DataError(f"{folder}: the folder does not exist.")
    return Path(folder)


def missing_split(where, split, existing):
    """The error of a split that does not exist, with those that do."""
    splits = ", ".join(sorted(set(existing))) or "none"
    return DataError(f"{where}: there is no split {split!r}; there are {splits}.")


def read_sized(path, size):
    """`read_image(path)`, refused if it is not of `size` (height, width)."""
    image = read_image(path)
    if image.shape[:2] != tuple(size):
        height, width = image.shape[:2]
        raise DataError(
            f"{path}: the image is {width}x{height} but its annotation is of {size[1]}x{size[0]}."
        )
    return image


def digest(annotations, images):
    """SHA-256 (hex) over the bytes of `annotations` and the names and sizes of `images` (paths)."""
    total = hashlib.sha256()
    for path in annotations:
        total.update(path.read_bytes())
    for path in images:
        size = path.stat().st_size if path.exists() else "missing"
        total.update(f"{path.name} {size}\n".encode())
    return total.hexdigest()
