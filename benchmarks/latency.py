"""Time a saved system alone: its whole graph and each of its stages, for several batch sizes.

    python -m benchmarks.latency localizer.keras --batch-size 1 8

Run it while nothing else runs on the machine. A record is written for each batch size.
"""

import argparse
import time
from pathlib import Path

import keras
import numpy as np

from cvlib.records import record


def time_system(system, batch_size, runs=50, warmup=10):
    """Milliseconds of each run, from NumPy arrays to NumPy arrays, after warm-up.

    Every stage gets noise of the shape of its inputs, so that none waits for another.

    Args:
        system: a `cvlib.models.System`.
        batch_size: images a run.
        runs: timed runs.
        warmup: runs before, in which the graph is compiled.

    Returns:
        Dict from `"graph"` and the names of the stages, in their order, to lists of `runs` times.
    """
    size = resolution(system)
    stages = {"graph": system, **dict(system.stages())}
    return {name: _time(stage, batch_size, size, runs, warmup) for name, stage in stages.items()}


def resolution(system, default=128):
    """(height, width) of the images that a system takes; `default` where it takes any."""
    images = system.input["images"] if isinstance(system.input, dict) else system.input
    return tuple(length or default for length in images.shape[1:3])


def _time(model, batch_size, size, runs, warmup):
    noise = np.random.default_rng(0)
    inputs = [
        255 * noise.random((batch_size, *_shape(tensor, size)), np.float32)
        for tensor in model.inputs
    ]
    inputs = keras.tree.pack_sequence_as(model.input, inputs)
    times = []
    for _ in range(warmup + runs):
        start = time.perf_counter()
        # Compiled; its NumPy outputs exist only when the device has finished.
        model.predict_on_batch(inputs)
        times.append(1000 * (time.perf_counter() - start))
    return times[warmup:]


def _shape(tensor, size):
    """The tensor's shape without the batch; a height or width left open is the image's."""
    known = zip(tensor.shape[1:], (*size, *tensor.shape[3:]), strict=False)
    return tuple(image if length is None else length for length, image in known)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help=".keras file of a system")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--runs", type=int, default=50)
    args = parser.parse_args()

    from cvlib.models.system import System

    system = System.load(args.model)
    for batch_size in args.batch_size:
        times = time_system(system, batch_size, args.runs)
        record(
            system=type(system).__name__,
            metrics={"images_per_second": 1000 * batch_size / np.median(times["graph"])},
            data="noise",
            settings={"model": args.model.stem, "batch_size": batch_size},
            model=system,
            resolution=resolution(system),
            milliseconds=times,
        )
        for name, values in times.items():
            p50, p90 = np.percentile(values, (50, 90))
            print(f"batch {batch_size}, {name}: p50 {p50:.2f} ms, p90 {p90:.2f} ms")


if __name__ == "__main__":
    main()
