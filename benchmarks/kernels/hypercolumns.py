"""Masks of boxes by a grid of classifiers of hypercolumns: milliseconds of two ways.

    python -m benchmarks.kernels.hypercolumns

`HypercolumnMasks` asks each of 5 x 5 classifiers where it counts; beside it, `ClassifierGrid` of
`Hypercolumn` asks all of them everywhere. One image of 256 x 256, whose maps at strides 4, 8 and 16
are MobileNet's, and boxes of 10 to 60 pixels, 50 x 50 pixels in each. All take turns. Nothing else
should run on the machine.
"""

import argparse

import keras
import numpy as np

from benchmarks.kernels import side_by_side
from cvlib.layers import ClassifierGrid, Hypercolumn, HypercolumnMasks
from cvlib.records import record

SIDE, CHANNELS = 256, {4: 96, 8: 192, 16: 384}


def ways(boxes, classes):
    """`{name: function of no argument}`; they give the masks of so many boxes."""
    rng = np.random.default_rng(0)
    maps = [
        rng.standard_normal((1, SIDE // stride, SIDE // stride, depth))
        for stride, depth in CHANNELS.items()
    ]
    sides = rng.uniform(10, 60, (1, boxes, 2))
    corners = rng.uniform(0, 1, (1, boxes, 2)) * (SIDE - sides)
    places = np.concatenate([corners, corners + sides], axis=-1)
    given = [keras.ops.convert_to_tensor(x, "float32") for x in (*maps, places)]
    labels = keras.ops.convert_to_tensor(rng.integers(0, classes, (1, boxes)), "int32")
    hypercolumn = Hypercolumn(25, tuple(CHANNELS), 50, num_classes=classes, kernel_size=3)
    masks, grid = HypercolumnMasks(hypercolumn), ClassifierGrid()

    def where_they_count(*given):
        return masks(given[:-1], given[-1], labels)

    def everywhere(*given):
        return grid(hypercolumn(given[:-1], given[-1], labels))

    where_they_count(*given)  # The weights are made.
    functions = {"in windows": where_they_count, "everywhere": everywhere}
    return side_by_side.compiled_each_way(functions, given)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    for boxes, classes in ((30, 1), (100, 5), (400, 1)):
        functions = ways(boxes, classes)
        first, *others = (function() for function in functions.values())  # they are compiled
        assert all(np.allclose(first, other, atol=1e-5) for other in others)
        title = f"{boxes} boxes, {classes} classes"
        metrics, milliseconds = side_by_side.compare(title, functions, repeats)
        record(
            system="hypercolumn_masks",
            chapter="19",
            metrics=metrics,
            data="random boxes",
            settings={"boxes": boxes, "classes": classes},
            milliseconds=milliseconds,
        )


if __name__ == "__main__":
    main()
