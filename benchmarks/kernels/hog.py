"""Histograms of oriented gradients: milliseconds of cvlib's layer beside scikit-image and OpenCV.

    python -m benchmarks.kernels.hog

Batches of 16 pictures of `scenes`, resized to each side. Ours votes hard, as scikit-image, and
trilinearly, as OpenCV, compiled, with XLA and, on TensorFlow, as a graph by itself; the other two
see one picture after the other. OpenCV has its Gaussian window besides. All take turns. Nothing
else should run on the machine.
"""

import argparse

import cv2
import keras
import numpy as np
from keras import ops
from skimage.feature import hog

from benchmarks.kernels import side_by_side
from cvlib.data import arrays, load
from cvlib.layers import HOG
from cvlib.records import record


def compiled(layer, images):
    """`{name: function of no arguments}`, each way in which the backend compiles the layer."""
    ways = {"tensorflow": {" graph": False, " XLA": True}, "jax": {" XLA": True}}
    ways = ways.get(keras.backend.backend(), {"": False})
    images = ops.convert_to_tensor(images)
    return {way: side_by_side.compiled(layer, [images], xla) for way, xla in ways.items()}


def ways(images):
    """`{name: function}`, of no arguments."""
    side = images.shape[1]
    descriptor = cv2.HOGDescriptor((side, side), (16, 16), (8, 8), (8, 8), 9)
    functions = {
        "scikit-image": lambda: [hog(x, 9, (8, 8), (2, 2), channel_axis=-1) for x in images],
        "OpenCV": lambda: [descriptor.compute(x) for x in images],
    }
    for name, interpolate in (("hard", False), ("trilinear", True)):
        for way, function in compiled(HOG(interpolate=interpolate), images).items():
            functions[f"cvlib {name}{way}"] = function
    return functions


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    for side in arguments.sides:
        images, _ = arrays(load("scenes", "val").some(16), (side, side))
        functions = ways(images)
        side_by_side.take_turns(functions, 2)  # they are compiled
        milliseconds = side_by_side.take_turns(functions, arguments.repeats)
        print(f"16 pictures of {side} x {side}")
        metrics, peer = {}, np.median(milliseconds["scikit-image"])
        for name, times in milliseconds.items():
            speed = peer / np.median(times)
            metrics[f"{name} ms"] = np.median(times)
            if name != "scikit-image":
                metrics[f"{name} speed"] = speed
            print(f"    {name:<24}{np.median(times):9.2f} ms{speed:9.2f} times")
        record(
            system="hog",
            chapter="06",
            metrics=metrics,
            data="scenes",
            settings={"side": side, "batch": 16},
            milliseconds=milliseconds,
        )


if __name__ == "__main__":
    main()
