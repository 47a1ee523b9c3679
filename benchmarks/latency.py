"""Time systems alone, saved ones or, untrained, all of the course, for several batch sizes.

    python -m benchmarks.latency
    python -m benchmarks.latency localizer.keras --batch-size 1 8 --stages

Run it while nothing else runs on the machine. A record is written for each batch size.
"""

import argparse
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np

from benchmarks.chapters import load_chapters
from cvlib.records import record

# Dict from a group to its systems, each a function that builds it untrained.
SYSTEMS = {}
for chapter in load_chapters().values():
    for group, builders in getattr(chapter, "SYSTEMS", {}).items():
        SYSTEMS.setdefault(group, {}).update(builders)


def time_system(system, batch_size, runs=50, warmup=10, stages=True):
    """Milliseconds of each run, from NumPy arrays to NumPy arrays, after warm-up.

    The system sees images of noise, and boxes in them where it takes some.

    Args:
        system: a `cvlib.models.System`.
        batch_size: images a run.
        runs: timed runs.
        warmup: runs before, in which the graph is compiled.
        stages: whether to time the stages too.

    Returns:
        Dict from `"graph"` and the names of the stages, in their order, to lists of `runs` times.
    """
    return system.milliseconds(noise(system, batch_size), runs, warmup, stages)


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


def systems(names):
    """Dict from (model, system) to a function that gives the system: of `.keras` files, or of
    groups in `SYSTEMS`, which are built untrained.

    Raises:
        FileNotFoundError, ValueError: a file is missing or holds no system, or two have one name.
    """
    from cvlib.models.system import System

    found = {}
    for name in names:
        if name in SYSTEMS:
            found |= {(name, system): build for system, build in SYSTEMS[name].items()}
        else:
            system = System.load(name)
            key = Path(name).stem, type(system).__name__
            if key in found:
                raise ValueError(f"{name}: another file of this name is timed, too.")
            found[key] = lambda system=system: system
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "models",
        nargs="*",
        default=list(SYSTEMS),
        help=".keras files of systems, or groups of the course's systems (all)",
    )
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--stages", action="store_true", help="each stage too, not only the whole")
    args = parser.parse_args()
    # TensorFlow warns of every new network that it compiles.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        builders = systems(args.models)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{error} Groups are {', '.join(SYSTEMS)}.")

    def compiled(build):
        system = build()
        for batch_size in args.batch_size:
            system.predict_on_batch(noise(system, batch_size))
        return system

    # Most of the time goes into compiling, on one core for each system.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        built = dict(zip(builders, pool.map(compiled, builders.values()), strict=True))
    for (model, name), system in built.items():
        for batch_size in args.batch_size:
            times = time_system(system, batch_size, args.runs, stages=args.stages)
            keep(model, name, system, batch_size, times)


def keep(model, name, system, batch_size, times, size=None):
    """Records and prints the times of a system, as `time_system` gives them.

    One that is no Keras model is None, and `size` its (height, width).
    """
    medians = {stage: np.median(values) for stage, values in times.items()}
    whole = medians.pop("graph")
    record(
        system=name,
        metrics={
            "images/s": 1000 * batch_size / whole,
            "ms": whole,
            "ms p90": np.percentile(times["graph"], 90),
            **{f"ms/{stage}": median for stage, median in medians.items()},
        },
        data="noise",
        settings={"model": model, "batch_size": batch_size},
        model=system,
        resolution=size or resolution(system),
        milliseconds=times,
    )
    for stage, values in times.items():
        p50, p90 = np.percentile(values, (50, 90))
        print(f"{model}, {name}, batch {batch_size}, {stage}: p50 {p50:.2f} ms, p90 {p90:.2f} ms")


if __name__ == "__main__":
    main()
