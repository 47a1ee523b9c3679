"""Systems of other libraries beside ours: detectors, timed, and a segmenter, trained."""

import numpy as np

# Of the detectors.
SIZE, CLASSES = (512, 512), 20


def pictures(count):
    """Noise (count, height, width, 3) of the detectors' size, in 0..255."""
    return np.random.default_rng(0).uniform(0, 255, (count, *SIZE, 3)).astype("float32")
