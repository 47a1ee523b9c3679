"""A sliding window as crops and as a convolution: time, multiply-adds and memory of both.

    python -m benchmarks.kernels.dense_to_conv [--network wide]

An n x n grid of windows, one stride of the network apart, goes through the classifier as a batch of
n * n crops (cut beforehand), and as one larger image through `dense_to_conv` of it. Both take turns
in one process, each with a pass that is not timed before the one that is, so that neither finds the
caches and the memory of the other, and the median counts; the peak of memory is that of a process
of its own for each. The weights are random; the largest difference between the two is in standard
deviations of the outputs. Nothing else should run on the machine.

Windows share the convolutions, not the fully connected layers: each has its own product with the
same large matrix, whichever way it goes.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import keras
import numpy as np
from keras import layers

from cvlib import records
from cvlib.layers import dense_to_conv

SIZE = 224  # as ImageNet's classifiers have
STRIDE = {"valid": 16, "wide": 16, "mobilenet": 32}


def network(name):
    """A classifier of SIZE x SIZE images.

    `valid` has no padding and a small fully connected tail, `wide` the same with 1,024 units;
    `mobilenet` is padded and ends in global pooling.
    """
    if name == "mobilenet":
        shape = (SIZE, SIZE, 3)
        return keras.applications.MobileNet(
            shape, alpha=0.75, weights=None, classes=20, classifier_activation=None
        )
    x = inputs = keras.Input((SIZE, SIZE, 3))
    for channels in (32, 64, 128, 256):
        x = layers.Conv2D(channels, 3, activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
    units = {"valid": 128, "wide": 1024}[name]
    x = layers.Dense(units, activation="relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(20)(x))


def multiply_adds(model, size):
    """Multiply-adds of the convolutions and Dense layers of `model` for one image of `size`."""
    image = keras.Input((size, size, 3))
    fixed = keras.models.clone_model(model, input_tensors=image)
    return sum(
        np.prod(layer.output.shape[1:-1], dtype=int) * np.prod(layer.kernel.shape, dtype=int)
        for layer in fixed.layers
        if hasattr(layer, "kernel")
    )


def cases(name, side):
    """The two ways through a grid of `side` x `side` windows, each `(model, its images)`."""
    stride, model = STRIDE[name], network(name)
    size = SIZE + (side - 1) * stride
    image = np.random.default_rng(0).standard_normal((1, size, size, 3)).astype("float32")
    corners = [(stride * i, stride * j) for i in range(side) for j in range(side)]
    crops = np.concatenate([image[:, y : y + SIZE, x : x + SIZE] for y, x in corners])
    ways = {"crops": (model, crops), "convolution": (dense_to_conv(model), image)}
    for model, _ in ways.values():
        model.compile()
    return ways


def peak_bytes(name, side, way):
    """Bytes that a pass needs at its peak, or None where the device does not say.

    TensorFlow counts what it allocates, on a processor too, where resident memory would not tell:
    its allocator keeps what is free. Others know the peak of an accelerator, weights included.
    """
    model, images = cases(name, side)[way]
    model.predict_on_batch(images)
    if keras.backend.backend() != "tensorflow":
        return records._accelerator(keras.backend.backend())[1]
    from tensorflow import config

    device = "GPU:0" if config.list_physical_devices("GPU") else "CPU:0"
    config.experimental.reset_memory_stats(device)
    before = config.experimental.get_memory_info(device)["current"]
    model.predict_on_batch(images)
    return config.experimental.get_memory_info(device)["peak"] - before


def measure(name, side, repeats):
    """Metrics and times of one grid of windows."""
    ways = cases(name, side)
    outputs = {way: model.predict_on_batch(images) for way, (model, images) in ways.items()}
    seconds = {way: [] for way in ways}
    for _ in range(repeats):
        for way, (model, images) in ways.items():
            model.predict_on_batch(images)
            start = time.perf_counter()
            model.predict_on_batch(images)
            seconds[way].append(time.perf_counter() - start)
    fresh = {"max_workers": 1, "mp_context": multiprocessing.get_context("spawn")}
    peaks = {}
    for way in ways:
        with ProcessPoolExecutor(**fresh) as process:
            peaks[way] = process.submit(peak_bytes, name, side, way).result()
    work = {
        way: len(images) * multiply_adds(model, images.shape[1])
        for way, (model, images) in ways.items()
    }
    difference = np.abs(outputs["convolution"].reshape(side**2, -1) - outputs["crops"])
    times = {way: float(np.median(values)) for way, values in seconds.items()}
    metrics = {f"{way} ms": 1000 * t for way, t in times.items()}
    metrics |= {f"{way} MiB": peak / 2**20 for way, peak in peaks.items() if peak is not None}
    metrics |= {
        "speed-up": times["crops"] / times["convolution"],
        "multiply-adds ratio": work["crops"] / work["convolution"],
        "largest difference": difference.max() / outputs["crops"].std(),
    }
    metrics["share of the ratio"] = metrics["speed-up"] / metrics["multiply-adds ratio"]
    return metrics, {way: [1000 * t for t in values] for way, values in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=STRIDE, default="valid")
    parser.add_argument("--sides", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    for side in arguments.sides:
        metrics, milliseconds = measure(arguments.network, side, arguments.repeats)
        print(f"{side**2} windows")
        for name, value in metrics.items():
            print(f"    {name:<22}{value:12.4g}")
        records.record(
            system="dense_to_conv",
            chapter="04",
            metrics=metrics,
            data="random images",
            settings={"network": arguments.network, "windows": side**2},
            milliseconds=milliseconds,
        )


if __name__ == "__main__":
    main()
