"""Proposals for many images, on all cores, kept on disk."""

import dataclasses
import functools
import hashlib
import io
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from cvlib.proposals.proposals import Proposals, rgb
from cvlib.records import keep_settings, write_atomically

# Raised whenever a method's proposals or the files change: caches made before are then refused.
VERSION = 3
KEYS = ("boxes", "scores", "masked", "ends", "runs", "checksum")  # of a file


def propose(images, method, cache=None, workers=None, progress=False):
    """The proposals of every image.

    Args:
        images: sequence of images, or of samples such as a `cvlib.data.Dataset`.
        method: one of the methods of `cvlib.proposals`.
        cache: folder for the proposals. What it has is read, what it lacks is added, so a run that
            was killed goes on where it stopped. By default one for each method and its settings in
            the folder that the environment variable `CVLIB_PROPOSALS` names, none where it is not
            set.
        workers: processes, each of one thread; all cores by default, 1 for none but this one. They
            start afresh: a script must call this under `if __name__ == "__main__":`.
        progress: whether to count the images on the standard error.

    Returns:
        A list of `Proposals`, one per image.

    Raises:
        ValueError: not an image, the cache is of other settings or damaged, or what the variable
            names is no folder.
    """
    if cache is None and (folder := os.environ.get("CVLIB_PROPOSALS")):
        if Path(folder).exists() and not Path(folder).is_dir():
            raise ValueError(f"CVLIB_PROPOSALS: {folder} is not a folder.")
        cache = Path(folder) / hashlib.sha256(repr(method).encode()).hexdigest()[:12]
    one = functools.partial(_propose, method, None if cache is None else Cache(cache, method))
    pixels = (image["image"] if isinstance(image, dict) else image for image in images)
    start, found = time.monotonic(), []
    for proposals in _map(one, pixels, min(workers or _cores(), len(images))):
        found.append(proposals)
        if progress:
            left = (time.monotonic() - start) / len(found) * (len(images) - len(found))
            count = f"\r{len(found)} of {len(images)} images, about {left:.0f} s left "
            print(count, end="" if left else "\n", file=sys.stderr, flush=True)
    return found


class Cache:
    """Proposals on disk: a file for each image, named by the hash of its pixels and the settings.

    Files appear in one step, so that none is ever there in part.

    Args:
        folder: where they lie; made if it does not exist. Its `settings.json` says what made them.
        method: one of the methods of `cvlib.proposals`.

    Raises:
        ValueError: the folder's proposals were made with other settings.
    """

    def __init__(self, folder, method):
        self.folder = Path(folder)
        settings = {"method": type(method).__name__, "version": VERSION}
        settings |= dataclasses.asdict(method)
        keep_settings(self.folder, settings, "proposals")
        self.settings = json.dumps(settings)

    def path(self, image):
        """The file of an image (H, W, 3) uint8."""
        name = hashlib.sha256(f"{self.settings} {image.shape}".encode() + image.tobytes())
        return self.folder / f"{name.hexdigest()[:32]}.npz"

    def load(self, image):
        """The `Proposals` of an image (H, W, 3) uint8, or None.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.path(image)
        try:
            with open(path, "rb") as opened, np.load(opened) as file:
                *arrays, checksum = (file[key] for key in KEYS)
        except FileNotFoundError:
            return None
        except Exception:  # Damaged files raise in zipfile and NumPy whatever there is.
            checksum, arrays = None, []
        if str(checksum) != _checksum(path, arrays):
            raise ValueError(f"{path}: the proposals are damaged: delete the file.")
        boxes, scores, masked, ends, runs = arrays
        runs = [part.tobytes() for part in np.split(runs, ends)][: len(ends)]
        size = list(image.shape[:2])
        masks = [{"size": size, "counts": counts} for counts in runs]
        return Proposals(boxes, scores, masks if masked else None)

    def save(self, image, proposals):
        """Keeps the `Proposals` of an image (H, W, 3) uint8."""
        path = self.path(image)
        runs = [mask["counts"] for mask in proposals.masks or []]
        arrays = [
            proposals.boxes,
            proposals.scores,
            np.array(proposals.masks is not None),
            np.cumsum([len(counts) for counts in runs], dtype=int),
            np.frombuffer(b"".join(runs), np.uint8),
        ]
        file = io.BytesIO()
        np.savez(file, **dict(zip(KEYS, [*arrays, _checksum(path, arrays)], strict=True)))
        write_atomically(path, file.getvalue())


def _checksum(path, arrays):
    """Of the arrays with their types and shapes, in the file of one image with one setting."""
    described = "".join(f"{array.dtype.str}{array.shape}" for array in arrays)
    content = path.name.encode() + described.encode() + b"".join(a.tobytes() for a in arrays)
    return hashlib.sha256(content).hexdigest()


def _propose(method, cache, image):
    image = rgb(image)
    proposals = cache and cache.load(image)
    if proposals is None:
        proposals = method(image)
        if cache:
            cache.save(image, proposals)
    return proposals


def _map(function, items, workers):
    """`map` on processes, which takes the items as it needs them: they may not fit in memory."""
    if workers <= 1:
        yield from map(function, items)
        return
    waiting = deque()
    try:
        for item in items:
            waiting.append(_pool(workers).submit(function, item))
            if len(waiting) == 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        _pool.cache_clear()
        raise
    finally:
        for future in waiting:
            future.cancel()


@functools.cache
def _pool(workers):
    # Not forked: a fork of a process with threads, such as Keras's, may hang.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)


def _begin():
    # An interruption is for the process that waits for this one: it says so once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Where that one is killed, this one would wait for work for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpool_limits(1)
    os.environ["OPENCV_FOR_THREADS_NUM"] = "1"  # read when OpenCV is first imported


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _cores():
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count()
