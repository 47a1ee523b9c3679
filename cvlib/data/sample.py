"""What a dataset is: a random-access sequence of samples, and the errors its readers raise."""

import hashlib
from collections import Counter

import numpy as np
from PIL import Image


class DataError(ValueError):
    """Data that cannot be used. The message is one sentence that names the file and the fault."""


class Dataset:
    """A random-access sequence of samples (flat dicts of NumPy arrays, see `cvlib.data.load`).

    `dataset[i]` reads sample `i`; `dataset[a:b]` is a view that reads nothing.

    Args:
        name: what records call it, without a path: `"scenes"`, `"voc:bccd"`.
        split: the split's name.
        classes: tuple of class names; `labels` index into it.
        image_ids: one identifier (string) per sample.
        read: `read(i)` returns sample `i`. Raises `DataError`.
        digest: function of no arguments that returns a hex digest of what the split holds.
        keypoint_names: names of the keypoints, in order.
        limbs: pairs of keypoint indices to draw and to score.
        flip_keypoints: permutation that exchanges left and right keypoints.
        report: `Counter` of what reading clipped, dropped or skipped, by reason.
    """

    def __init__(
        self,
        name,
        split,
        classes,
        image_ids,
        read,
        digest,
        keypoint_names=(),
        limbs=(),
        flip_keypoints=(),
        report=None,
    ):
        self.name = name
        self.split = split
        self.classes = tuple(classes)
        self.keypoint_names = tuple(keypoint_names)
        self.limbs = tuple(tuple(limb) for limb in limbs)
        self.flip_keypoints = tuple(flip_keypoints)
        self.report = Counter() if report is None else report
        self._ids = list(image_ids)
        self._read = read
        self._digest = digest
        self._indices = np.arange(len(self._ids))

    @property
    def image_ids(self):
        return [self._ids[i] for i in self._indices]

    def __len__(self):
        return len(self._indices)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.take(self._indices[index])
        # Python ends iteration over a sequence at IndexError, which NumPy raises here.
        return self._read(int(self._indices[index]))

    def take(self, indices):
        """A view of the samples at `indices` of the underlying split."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._indices = np.asarray(indices, int)
        return view

    def some(self, count):
        """A view of `count` samples, evenly spaced, because files are often sorted by class.

        It is of all samples where there are no more, or where `count` is `None`.
        """
        length = len(self)
        count = length if count is None else min(count, length)
        return self.take(self._indices[np.arange(count) * length // max(count, 1)])

    def hold_out(self, fraction):
        """Two disjoint views, `(kept, held_out)`, for tuning without touching the test split.

        A sample is held out by the hash of its identifier, so the division is the same everywhere
        and does not change when samples are added.
        """
        held = np.array([_unit_hash(self._ids[i]) < fraction for i in self._indices], bool)
        return self.take(self._indices[~held]), self.take(self._indices[held])

    @property
    def digest(self):
        """Hex digest of the split and of which of its samples this view holds."""
        whole = self._digest()
        if np.array_equal(self._indices, np.arange(len(self._ids))):
            return whole
        view = hashlib.sha256(self._indices.astype("<i8").tobytes()).hexdigest()
        return hashlib.sha256(f"{whole} {view}".encode()).hexdigest()


def _unit_hash(text):
    return int.from_bytes(hashlib.sha256(str(text).encode()).digest()[:8], "big") / 2**64


def read_image(path):
    """The image file at `path` as (H, W, 3) uint8: grey, palette and alpha become RGB.

    Raises:
        DataError: the file is missing, corrupt, or has no pixels.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"{path}: the image does not exist.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: the image cannot be read ({error}).") from None
