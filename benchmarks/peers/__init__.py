"""Detectors of other libraries, timed beside ours of the same trunk and image size."""

import time

SIZE, CLASSES = (512, 512), 20


def time_calls(function, images, runs, warmup=5):
    """Milliseconds of each of `runs` calls of a function of images, after warm-up."""
    times = []
    for _ in range(warmup + runs):
        start = time.perf_counter()
        function(images)
        times.append(1000 * (time.perf_counter() - start))
    return times[warmup:]
