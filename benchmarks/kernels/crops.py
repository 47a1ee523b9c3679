"""The warp of R-CNN: milliseconds of cvlib's crops of an image beside other ways to make them.

    python -m benchmarks.kernels.crops

300 boxes, cut out to 96 x 96 pixels, of images of growing sizes, compiled, with XLA and, on
TensorFlow, as a graph by itself. Beside the four reads for each pixel of a crop stand the two
products with matrices of weights by which the layers for maps do it, and on TensorFlow
`tf.image.crop_and_resize`. All take turns. Nothing else should run on the machine.
"""

import argparse

import keras
import numpy as np
from keras import ops

from benchmarks.kernels import side_by_side
from cvlib.layers import CropAndResize
from cvlib.layers.crop_and_resize import bilinear, centres, resample
from cvlib.records import record

BOXES, SIDE = 300, 96


def products(images, boxes):
    """The crops by matrices of weights."""
    height, width = images.shape[1:3]
    rows = bilinear(centres(boxes[..., 1], boxes[..., 3], SIDE), height)
    columns = bilinear(centres(boxes[..., 0], boxes[..., 2], SIDE), width)
    return resample(images, rows, columns)


def ways(height, width):
    """`{name: function of no argument}`; they give the crops (1, BOXES, SIDE, SIDE, 3)."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (1, height, width, 3)).astype("float32")
    sides = rng.uniform(0.05, 0.4, (1, BOXES, 2)) * [width, height]
    corners = rng.uniform(0, 1, (1, BOXES, 2)) * ([width, height] - sides)
    boxes = np.concatenate([corners, corners + sides], axis=-1).astype("float32")
    given = [ops.convert_to_tensor(x) for x in (images, boxes)]
    both = {"reads": CropAndResize((SIDE, SIDE)), "products": products}
    backend = keras.backend.backend()
    if backend != "tensorflow":
        kind = {"jax": " XLA", "torch": ""}[backend]
        return {f"{k}{kind}": side_by_side.compiled(f, given, True) for k, f in both.items()}
    import tensorflow as tf

    def operator(images, boxes):
        # It is told where the first and the last pixel of a crop lie, 1 being the last centre.
        first, last = boxes[0, :, :2], boxes[0, :, 2:]
        half = (last - first) / (2 * SIDE)
        places = tf.concat([first + half, last - half], axis=-1) - 0.5
        places /= np.float32([width - 1, height - 1] * 2)
        places = tf.gather(places, [1, 0, 3, 2], axis=-1)
        image = tf.zeros(BOXES, "int32")
        return tf.image.crop_and_resize(images, places, image, (SIDE, SIDE))[None]

    compiled = {
        f"{name} {kind}": side_by_side.compiled(function, given, kind == "XLA")
        for name, function in both.items()
        for kind in ("graph", "XLA")
    }
    return compiled | {"crop_and_resize": side_by_side.compiled(operator, given, False)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    for height, width in ((128, 128), (360, 480), (720, 960)):
        functions = ways(height, width)
        found = [function() for function in functions.values()]  # they are compiled
        for other in found[1:]:
            # Pixels at the border of the image may be read as outside by one and not by another.
            assert np.mean(np.abs(other - found[0]) > 0.05) < 0.01
        metrics, milliseconds = side_by_side.compare(f"{height} x {width}", functions, repeats)
        record(
            system="crops",
            chapter="09",
            metrics=metrics,
            data="random images and boxes",
            settings={"height": height, "width": width},
            milliseconds=milliseconds,
        )


if __name__ == "__main__":
    main()
