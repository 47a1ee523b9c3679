"""What the readers of folders share: files and their names, checks, what becomes of faults."""

import hashlib
import os
import re
from collections import Counter, defaultdict
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from cvlib.data.sample import DataError, MissingSplit, image_size

PICTURES = ".jpg .jpeg .png .bmp .gif .tif .tiff .webp .ppm .pgm .jp2".split()
# Pictures of indices, which are called as the photographs are.
INDICES = ("SegmentationClass", "SegmentationObject")

# No coordinate, area or side of a picture is larger.
LIMIT = 1e9


class Faults:
    """What becomes of faulty annotations.

    Args:
        on_error: `"raise"` raises the first fault, `"skip"` leaves out and counts what is faulty.

    Attributes:
        report: `Counter` of what was left out or changed, by reason.
        notes: sentences on what was decided for want of information.
    """

    def __init__(self, on_error):
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}.")
        self.skip = on_error == "skip"
        self.report = Counter()
        self.notes = []

    def add(self, reason, error):
        """Raises `error` (a sentence or an exception), or counts `reason`."""
        if not self.skip:
            raise error if isinstance(error, DataError) else DataError(error)
        self.report[reason] += 1

    def check_boxes(self, boxes, sizes, describe):
        """Clips boxes to their images and finds those of which nothing is left.

        Args:
            boxes: (N, 4) `x1, y1, x2, y2` in continuous pixels; NaN where there is no number.
            sizes: (N, 2) height and width of their images.
            describe: function of a row, what that object is called in a sentence.

        Returns:
            The clipped boxes, float32, and the rows to keep.
        """
        absent = ~(abs(boxes) <= LIMIT).all(axis=1)
        for i in np.flatnonzero(absent):
            self.add("objects left out (no box)", f"{describe(i)} has no box of four numbers.")
        boxes = np.where(absent[:, None], 0, boxes).astype(np.float32)
        clipped = np.clip(boxes, 0, np.asarray(sizes)[:, [1, 0, 1, 0]]).astype(np.float32)
        empty = ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1) & ~absent
        outside = ~(clipped[:, 2:] > clipped[:, :2]).all(axis=1) & ~empty & ~absent
        for reason, faulty in (("of zero size", empty), ("outside the image", outside)):
            for i in np.flatnonzero(faulty):
                box = ", ".join(f"{v:g}" for v in boxes[i])
                self.add(
                    f"objects left out (box {reason})", f"{describe(i)} has a box {reason} ({box})."
                )
        kept = np.flatnonzero(~absent & ~empty & ~outside)
        if past := (clipped[kept] != boxes[kept]).any(axis=1).sum():
            self.report["boxes clipped to the image"] += int(past)
        return clipped[kept], kept


class Files:
    """The files of some kinds below a folder, found by names as lists and annotations write them.

    Args:
        folder: `Path`. It is walked when it is first needed, links to folders too, each folder
            once; hidden files do not count.
        suffixes: of the files, in lower case.
    """

    def __init__(self, folder, suffixes):
        self.folder = folder
        self.suffixes = suffixes

    @cached_property
    def paths(self):
        """All of them, sorted."""
        found, seen = [], set()
        for folder, folders, names in os.walk(self.folder, followlinks=True):
            if (real := os.path.realpath(folder)) in seen:  # A link may lead back.
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [name for name in folders if name[0] != "." and name not in INDICES]
            folders.sort(key=lambda name: (os.path.islink(os.path.join(folder, name)), name))
            found += [Path(folder, name) for name in names if name[0] != "."]
        return sorted(path for path in found if path.suffix.lower() in self.suffixes)

    def stem(self, name):
        """`name` with slashes and without a suffix of these files."""
        path = PurePosixPath(name.strip().replace("\\", "/"))
        return str(path.with_suffix("") if path.suffix.lower() in self.suffixes else path)

    @cached_property
    def _by_ending(self):
        """The files by their stem, and by it with the last of their folders, the last two, ..."""
        found = defaultdict(list)
        for path in self.paths:
            parts = self.stem(path.relative_to(self.folder).as_posix()).split("/")
            for i in range(len(parts)):
                found["/".join(parts[i:])].append(path)
        return found

    @cached_property
    def _folders(self):
        return {part for path in self.paths for part in path.relative_to(self.folder).parts[:-1]}

    def find(self, name, near, split=None):
        """The file of a name, whatever its suffix and the folders above it, or `None`.

        Of several that with the very suffix is taken, or the nearest to `near`.

        Args:
            name: as a list or an annotation writes it. Folders before it count where the files lie
                in such folders.
            near: `Path` of the annotation.
            split: the files of other splits, by the names of their folders, are not taken.

        Raises:
            DataError: there are several that are as good.
        """
        parts = [part for part in self.stem(name).split("/") if part not in ("", ".", "..")]
        while parts and "/".join(parts) not in self._by_ending and parts[0] not in self._folders:
            parts = parts[1:]
        found = self._by_ending.get("/".join(parts), [])
        kind = split_kind(split)
        if kind and kind not in map(split_kind, parts):
            found = [path for path in found if self.kinds(path) <= {kind}]

        def fitness(path):
            shared = len(os.path.commonpath([path.absolute(), near.absolute()]))
            return path.name == PurePosixPath(name.replace("\\", "/")).name, shared

        found = sorted(found, key=fitness, reverse=True)
        if len(found) > 1 and fitness(found[0]) == fitness(found[1]):
            raise DataError(f"{near}: {name} may be {found[0]} or {found[1]}.")
        return found[0] if found else None

    def kinds(self, path):
        """The splits that the folders of a file are named after, a set."""
        folders = path.relative_to(self.folder).parts[:-1]
        return {split_kind(name) for name in folders} - {None}


def split_kind(name):
    """`"train"`, `"val"` or `"test"` of `"train2017"`, `"valid"` or such; `None` of other names."""
    found = re.fullmatch(r"(train|val|test)(id|idation|ing)?(\d{4})?", str(name).lower())
    return found and found[1]


def drawn_split(where, split, ids, faults):
    """The identifiers of a split where nothing says to which they belong.

    Of ten, in the order of their hashes, eight are for training, one for validation and one for the
    test, everywhere the same.

    Args:
        where: of the data set, for sentences.
        split: `"train"`, `"val"`, `"test"` or `"all"`.
        ids: all identifiers.
        faults: `Faults`, whose notes are added to.

    Returns:
        Those of the split, in the order of `ids`.

    Raises:
        DataError: `split` is none of these.
    """
    if split == "all":
        return ids
    order = sorted(ids, key=lambda i: hashlib.sha256(os.fsencode(f"split {i}")).digest())
    tenth = max(1, len(order) // 10)
    first, second = max(1, len(order) - 2 * tenth), len(order) - tenth
    parts = {"train": order[:first], "val": order[first:second], "test": order[second:]}
    if split_kind(split) not in parts:
        raise missing_split(where, split, [*parts, "all"])
    counts = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
    faults.notes.append(
        f"nothing says which images are for training, so they are drawn by their hash ({counts}; "
        "'all' has all)"
    )
    chosen = set(parts[split_kind(split)])
    return [i for i in ids if i in chosen]


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
    return MissingSplit(f"{where}: there is no split {split!r}; there are {splits}.")


def is_inside(folder, path):
    """Whether a `path` is in a `folder`, wherever links in it lead."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def check_inside(where, folder, path):
    """Refuses a `path` outside the data set's `folder`.

    Raises:
        DataError: it is outside; `where` is the file or the annotation that names it.
    """
    if not is_inside(folder, path):
        raise DataError(f"{where}: {path} is not read, since it is not in {folder}.")


def read_lines(path):
    """The lines of a text that are not empty, without the space around them.

    Raises:
        DataError: the text is not UTF-8.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: the text is not UTF-8.") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def is_number(value):
    """Whether a value of a file is a number that can be a coordinate or an area."""
    return type(value) in (int, float) and -LIMIT <= value <= LIMIT


def checked_size(where, size, path):
    """The size (height, width) that an annotation states; its image's if it has none or zeros.

    Args:
        where: the annotation, for sentences.
        size: two numbers; `None` where there is none.
        path: of the image.

    Raises:
        DataError: the size is none of a picture, or the image is needed and cannot be read.
    """
    if not all(size):
        return image_size(path)
    if not all(is_number(side) and side == int(side) > 0 for side in size):
        raise DataError(f"{where}: the size is not that of an image.")
    return tuple(int(side) for side in size)


def digest(annotations, images):
    """SHA-256 (hex) over the bytes of `annotations` and the names and sizes of `images` (paths)."""
    total = hashlib.sha256()
    for path in annotations:
        total.update(path.read_bytes())
    for path in images:
        size = path.stat().st_size if os.path.exists(path) else "missing"
        total.update(os.fsencode(f"{path.name} {size}\n"))
    return total.hexdigest()
