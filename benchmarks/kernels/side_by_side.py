"""What the benchmarks of layers beside other libraries share: compiling, turns, and a report."""

import argparse
import time

import keras
import numpy as np
from keras import ops

from cvlib.records import record


def compiled(function, arguments, jit_compile):
    """`function` of tensors as the backend compiles it, as a function of no argument, to NumPy.

    `jit_compile` is TensorFlow's: with XLA, or as a graph. JAX always uses XLA; PyTorch runs it as
    it is.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        function = tf.function(function, jit_compile=jit_compile)
    elif keras.backend.backend() == "jax":
        import jax

        function = jax.jit(function)
    return lambda: ops.convert_to_numpy(function(*arguments))


def compiled_each_way(functions, arguments):
    """`{name: function of no argument}` of functions of tensors: on TensorFlow both as a `graph`
    and with `XLA`, on JAX with `XLA`."""
    kinds = {"tensorflow": ("graph", "XLA"), "jax": ("XLA",), "torch": ("",)}
    return {
        f"{name} {kind}".strip(): compiled(function, arguments, kind == "XLA")
        for name, function in functions.items()
        for kind in kinds[keras.backend.backend()]
    }


def take_turns(functions, repeats):
    """`{name: milliseconds of each run}` of functions of no argument that run one after another."""
    milliseconds = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            milliseconds[name].append(1000 * (time.perf_counter() - start))
    return milliseconds


def compare(title, functions, repeats):
    """Lets functions take turns and prints their medians, also returned: metrics, milliseconds."""
    milliseconds = take_turns(functions, repeats)
    medians = {name: np.median(times) for name, times in milliseconds.items()}
    print(title)
    for name, ms in medians.items():
        print(f"    {name:<16}{ms:9.2f} ms")
    return {f"{name} ms": ms for name, ms in medians.items()}, milliseconds


def run(description, chapter, system, data, setting, kinds, measure):
    """Reads the command line, measures every kind at every batch size, prints and records.

    Args:
        description: of the command.
        chapter, system, data: of the records.
        setting: name of what `kinds` are.
        kinds: what is measured.
        measure: function from a kind, a batch size, torchvision's interpreter or None and the
            number of repeats to metrics and milliseconds by name.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--torchvision", metavar="PYTHON", help="an interpreter that has it")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    for kind in kinds:
        for batch in arguments.batches:
            metrics, milliseconds = measure(kind, batch, arguments.torchvision, arguments.repeats)
            print(f"{kind}, batch {batch}")
            for name, times in milliseconds.items():
                ratio = metrics.get(f"{name} over torchvision", 1.0)
                print(f"    {name:<32}{np.median(times):9.2f} ms{ratio:9.4f} of torchvision's")
            metrics |= {f"{name} ms": np.median(times) for name, times in milliseconds.items()}
            record(
                system=system,
                chapter=chapter,
                metrics=metrics,
                data=data,
                settings={setting: kind, "batch": batch},
                milliseconds=milliseconds,
            )
