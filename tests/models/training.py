"""Pictures and batches for tests that train."""

import keras
import numpy as np
import pytest

compiled = pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="takes minutes where nothing is compiled; test_systems.py trains a step there",
)


class Batches:
    """What `fit` needs of `cvlib.data.batches`."""

    def __init__(self, images, targets, size=32):
        self.parts = [
            (images[i : i + size], {k: v[i : i + size] for k, v in targets.items()})
            for i in range(0, len(images), size)
        ]
        self.steps_per_epoch = len(self.parts)

    def __iter__(self):
        while True:
            yield from self.parts


def squares(count, most=2, size=(64, 64), seed=0):
    """Images with bright squares in one quarter each, one colour channel for each class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, *size, 3)).astype("uint8")
    boxes = np.full((count, most, 4), -1, "float32")
    labels = np.full((count, most), -1, "int32")
    half = np.array(size) // 2
    for i, image in enumerate(images):
        quarters = rng.permutation(4)[: rng.integers(1, most + 1)]
        for k, quarter in enumerate(quarters):
            side = rng.integers(18, 28)
            top, left = half * divmod(quarter, 2) + rng.integers(0, 32 - side, 2)
            labels[i, k] = rng.integers(3)
            boxes[i, k] = left, top, left + side, top + side
            image[top : top + side, left : left + side, labels[i, k]] = 230
    return images, {"boxes": boxes, "labels": labels}
