"""The distance transform of parts: milliseconds of cvlib's layer against the number of pixels.

    python -m benchmarks.kernels.distance_transform

Maps of growing sides and 32 channels, with the bound of release 5, 4 cells, compiled, with XLA and,
on TensorFlow, as a graph by itself. Beside it on TensorFlow is `tf.nn.dilation2d`, whose general
two-dimensional window of 9 x 9 values holds the same prices. `times as long per pixel` compares
each side with the smallest one: 1 for what is linear. All take turns. Nothing else should run on
the machine.
"""

import argparse

import keras
import numpy as np
from keras import ops

from benchmarks.kernels import side_by_side
from cvlib.layers import DistanceTransformPooling
from cvlib.records import record

CHANNELS, REACH = 32, 4


def ways(side):
    """`{name: function of no argument}`; they give the scores (1, side, side, CHANNELS)."""
    rng = np.random.default_rng(0)
    fits = rng.standard_normal((1, side, side, CHANNELS)).astype("float32")
    layer = DistanceTransformPooling(REACH)
    layer.build(fits.shape)
    prices = rng.uniform(0.01, 0.2, (CHANNELS, 4)).astype("float32")
    layer.deformation.assign(prices)
    fits = ops.convert_to_tensor(fits)

    def scores(fits):
        return layer(fits)["scores"]

    backend = keras.backend.backend()
    if backend != "tensorflow":
        name = {"jax": "cvlib XLA", "torch": "cvlib"}[backend]
        return {name: side_by_side.compiled(scores, [fits], True)}
    import tensorflow as tf

    dy, dx = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1].astype("float32")
    window = -np.stack([dy**2, dy, dx**2, dx], axis=-1) @ prices.T

    def dilation(fits):
        return tf.nn.dilation2d(fits, window, [1] * 4, "SAME", "NHWC", [1] * 4)

    return {
        "cvlib graph": side_by_side.compiled(scores, [fits], False),
        "cvlib XLA": side_by_side.compiled(scores, [fits], True),
        "dilation2d": side_by_side.compiled(dilation, [fits], False),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    first = {}
    for side in arguments.sides:
        functions = ways(side)
        found = [function() for function in functions.values()]  # they are compiled
        for other in found[1:]:
            np.testing.assert_allclose(other, found[0], rtol=1e-4, atol=1e-4)
        milliseconds = side_by_side.take_turns(functions, arguments.repeats)
        print(f"{side} x {side} x {CHANNELS}")
        metrics = {}
        for name, times in milliseconds.items():
            per_pixel = np.median(times) / side**2
            times_as_long = per_pixel / first.setdefault(name, per_pixel)
            metrics |= {f"{name} ms": np.median(times), f"{name} per pixel": times_as_long}
            print(f"    {name:<16}{np.median(times):9.2f} ms{times_as_long:9.2f} times per pixel")
        record(
            system="distance transform",
            chapter="07",
            metrics=metrics,
            data="random maps",
            settings={"side": side, "channels": CHANNELS},
            milliseconds=milliseconds,
        )


if __name__ == "__main__":
    main()
