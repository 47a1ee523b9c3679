"""What a dataset is: a random-access sequence of samples, and the errors its readers raise."""

import functools
import hashlib
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

# What is opened: Pillow knows others, of which one, PostScript, starts another program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")

# What samples and batches hold of each object, and what stands in these where there is none.
EMPTY = {
    "boxes": np.float32(-1),
    "labels": np.int32(-1),
    "difficult": np.False_,
    "crowd": np.False_,
    "area": np.float32(0),
    "masks": np.float32(0),
    "keypoints": np.float32(0),
}

# What turns a photograph upright, by its EXIF orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DataError(ValueError):
    """Data that cannot be used. The message is one sentence that names the file and the fault."""


class MissingSplit(DataError):
    """The data has no split of this name."""


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
        and does not change when samples are added. Of two samples or more each part has one.
        """
        hashes = np.array([_unit_hash(self._ids[i]) for i in self._indices])
        held = hashes < fraction
        if len(held) > 1:
            held[hashes.argmin()], held[hashes.argmax()] = True, False
        return self.take(self._indices[~held]), self.take(self._indices[held])

    def of_classes(self, classes):
        """A view with the objects of `classes` alone, whose labels index into `classes`.

        Pictures without any stay, as background; samples have no `label` and no `segmentation`.

        Args:
            classes: names, in the order that their labels shall have.

        Raises:
            ValueError: one is not a class of the dataset, or stands there twice.
        """
        for name in classes:
            if name not in self.classes or list(classes).count(name) > 1:
                raise ValueError(f"{self.name} has no class {name!r}, or it is given twice.")
        new = np.full(len(self.classes), -1, np.int32)
        new[[self.classes.index(name) for name in classes]] = np.arange(len(classes))
        view = self.take(self._indices)
        view.classes = tuple(classes)
        view._read = functools.partial(_of_classes, self._read, new)
        view._digest = functools.partial(_digest_of, self._digest, *classes)
        return view

    @property
    def digest(self):
        """Hex digest of the split and of which of its samples this view holds."""
        whole = self._digest()
        if np.array_equal(self._indices, np.arange(len(self._ids))):
            return whole
        view = hashlib.sha256(self._indices.astype("<i8").tobytes()).hexdigest()
        return hashlib.sha256(f"{whole} {view}".encode()).hexdigest()


def _of_classes(read, new, i):
    """Sample `i` with the objects of which `new` (C,), their new label, is not -1."""
    sample = dict(read(i))
    if "labels" not in sample:
        raise DataError(f"{sample['image_id']} has no objects whose classes could be chosen.")
    labels = new[sample["labels"]]
    keep = np.flatnonzero(labels >= 0)
    for key in EMPTY.keys() & sample.keys():
        rows = sample[key]
        sample[key] = [rows[k] for k in keep] if isinstance(rows, list) else rows[keep]
    for key in ("label", "segmentation"):
        sample.pop(key, None)
    return sample | {"labels": labels[keep]}


def _digest_of(digest, *classes):
    return hashlib.sha256(" ".join([digest(), *map(repr, classes)]).encode()).hexdigest()


def _unit_hash(text):
    return int.from_bytes(hashlib.sha256(str(text).encode()).digest()[:8], "big") / 2**64


def read_image(file, size=None, turn=True):
    """An image file as (H, W, 3) uint8: grey, palette and alpha become RGB.

    Values of 16 bits are scaled from 0..65535, real ones from the first of 0..1, 0..255 and
    0..65535 that holds them.

    A photograph whose EXIF says how it was held is turned upright, unless only its stored pixels
    are of the `size` that its annotation states. Where both are, as in a square photograph, it is
    turned too, as tools that annotate show it, and a warning says so.

    Args:
        file: path or file object.
        size: (height, width), compared before anything is decoded; `None` for any.
        turn: `False` for the stored pixels in any case.

    Raises:
        DataError: the file is missing, damaged, no image or not of `size`.
    """
    with open_image(file) as image:
        stored, upright = image.size, _upright(image) if turn else image.size
        stated = upright if size is None else (int(size[1]), int(size[0]))
        if stated not in (stored, upright):
            raise DataError(
                f"{file}: the image is {stored[0]}x{stored[1]} but its annotation is of "
                f"{stated[0]}x{stated[1]}."
            )
        how = TURNS.get(_orientation(image)) if turn and stated == upright else None
        pixels = _eight_bits(file, image)
        pixels = np.asarray(pixels if how is None else pixels.transpose(how))
    if how is not None and size is not None and stated == stored:
        warnings.warn(
            f"{Path(file).parent}: photographs are turned upright as their EXIF says where their "
            "size does not tell whether their annotations are.",
            stacklevel=2,
        )
    return pixels


def image_size(file):
    """(height, width) of the image that `read_image` gives, from the head of its file.

    Raises:
        DataError: the file is missing, damaged or no image.
    """
    with open_image(file) as image:
        return _upright(image)[::-1]


@contextmanager
def open_image(file):
    """A PIL image, not decoded yet; what goes wrong in the `with` block is a `DataError`."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{file}: the image does not exist.") from None
    except IsADirectoryError:
        raise DataError(f"{file}: a folder, not an image.") from None
    except Image.UnidentifiedImageError:
        formats = ", ".join(FORMATS)
        raise DataError(f"{file}: the image cannot be read (it is none of {formats}).") from None
    except Image.DecompressionBombError:
        raise DataError(f"{file}: the image cannot be read (a decompression bomb).") from None
    except Exception:  # Pillow's decoders raise errors of many kinds on damaged files
        raise DataError(f"{file}: the image cannot be read (it is damaged).") from None


def _orientation(image):
    """How EXIF says that a photograph was held, 1 to 8; 1, upright, where nothing says it."""
    if "exif" not in image.info:  # Pillow itself turns TIFF
        return 1
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # as above: damaged EXIF says nothing
        return 1


def _upright(image):
    """(width, height) of the photograph held as its EXIF says."""
    return image.size[::-1] if _orientation(image) in (5, 6, 7, 8) else image.size


def _eight_bits(file, image):
    """The PIL image in RGB."""
    if image.mode[0] in "IF":
        values = np.asarray(image)
        ranges = (1, 255, 65535) if image.mode == "F" else (65535,)
        full = next((r for r in ranges if values.min() >= 0 and values.max() <= r), None)
        if full is None:
            raise DataError(f"{file}: the image has values that are not in 0..65535.")
        image = Image.fromarray(np.rint(values * (255 / full)).astype(np.uint8))
    return image.convert("RGB")
