"""Time a saved system alone: its whole graph and each of its stages, for several batch sizes.

    python -m benchmarks.latency localizer.keras --batch-size 1 8

Run it while nothing else runs on the machine. A record is written for each batch size.
"""

import argparse
import logging
import sys
from pathlib import Path

import keras
import numpy as np

from cvlib.records import record


def time_system(system, batch_size, runs=50, warmup=10):
    """Milliseconds of each run, from NumPy arrays to NumPy arrays, after warm-up.

    The system sees images of noise, and boxes in them where it takes some.

    Args:
        system: a `cvlib.models.System`.
        batch_size: images a run.
        runs: timed runs.
        warmup: runs before, in which the graph is compiled.

    Returns:
        Dict from `"graph"` and the names of the stages, in their order, to lists of `runs` times.
    """
    return system.milliseconds(noise(system, batch_size), runs, warmup)


def resolution(system, default=128):
    """(height, width) of the images that a system takes; `default` where it takes any."""
    images = system.input["images"] if isinstance(system.input, dict) else system.input
    return tuple(length or default for length in images.shape[1:3])


def noise(system, batch_size, count=100):
    """Inputs of a system: images in 0..255, `xyxy` boxes, `count` where it takes any number, and
    their labels, all 0."""
    rng = np.random.default_rng(0)
    height, width = resolution(system)

    def fill(tensor):
        *shape, last = tensor.shape[1:]
        if tensor.dtype == "int32":
            return np.zeros((batch_size, *shape, last), tensor.dtype)
        if last == 4:
            shape = [length or count for length in shape]
            corners = rng.random((batch_size, *shape, 2, 2)) * (width, height)
            return np.sort(corners, axis=-2).reshape(batch_size, *shape, 4).astype(tensor.dtype)
        if len(shape) < 2:  # A map of pieces, or what consists of which.
            return rng.integers(0, 2, (batch_size, *shape, last)).astype(tensor.dtype)
        return (255 * rng.random((batch_size, height, width, last))).astype(tensor.dtype)

    return keras.tree.map_structure(fill, system.input)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help=".keras file of a system")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--runs", type=int, default=50)
    args = parser.parse_args()

    from cvlib.models.system import System

    try:
        system = System.load(args.model)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    # TensorFlow warns of every new network that it compiles.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    for batch_size in args.batch_size:
        times = time_system(system, batch_size, args.runs)
        medians = {name: np.median(values) for name, values in times.items()}
        whole = medians.pop("graph")
        record(
            system=type(system).__name__,
            metrics={
                "images/s": 1000 * batch_size / whole,
                "ms": whole,
                "ms p90": np.percentile(times["graph"], 90),
                **{f"ms/{stage}": median for stage, median in medians.items()},
            },
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
