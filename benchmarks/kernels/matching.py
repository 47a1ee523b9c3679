"""Which anchor answers for which object: milliseconds of `cvlib.targets.match`.

    python -m benchmarks.kernels.matching

Two images with room for as many objects as the fullest of a data set has, and few or many in them;
9,216 anchors, as 256 x 256 pixels have at stride 8. Objects are matched 32 at a time, and not where
these rows are padding in both images; beside that, all rows at once. XLA compiles what looks at
some objects within TensorFlow's graphs too; beside that, the graph itself runs it, `step by step`.
All take turns. Nothing else should run on the machine.
"""

import argparse
from unittest.mock import patch

import keras
import numpy as np

from benchmarks.kernels import side_by_side
from cvlib import targets
from cvlib.layers import AnchorGrid
from cvlib.records import record

SIDE, STRIDE, ROOM = 256, 8, 369


def ways(counts):
    """`{name: function of no argument}`; they give the object of each anchor (2, N).

    Args:
        counts: of the objects in each image.
    """
    rng = np.random.default_rng(0)
    cells = np.zeros((1, SIDE // STRIDE, SIDE // STRIDE, 1), "float32")
    anchors = AnchorGrid((5, 11, 23), (0.6, 1, 1.6), STRIDE)(cells)
    sides = rng.uniform(4, 30, (2, ROOM, 2))
    corners = rng.uniform(0, 1, (2, ROOM, 2)) * (SIDE - sides)
    boxes = np.concatenate([corners, corners + sides], axis=-1)
    present = np.arange(ROOM) < np.array(counts)[:, None]
    boxes = np.where(present[..., None], boxes, -1).astype("float32")
    nothing = np.zeros((2, ROOM), bool)
    given = [keras.ops.convert_to_tensor(x) for x in (anchors, boxes, present, nothing)]

    def found(**changed):
        def match(anchors, boxes, present, ignored):
            with patch.multiple(targets, **changed):
                return targets.match(anchors, boxes, present, ignored=ignored)["index"]

        return match

    functions = {
        "in parts": found(OBJECTS_TOGETHER=targets.OBJECTS_TOGETHER),
        "step by step": found(_fused=lambda look: look),
        "at once": found(OBJECTS_TOGETHER=ROOM),
    }
    return side_by_side.compiled_each_way(functions, given)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    for counts in ((30, 30), (30, ROOM), (ROOM, ROOM)):
        functions = ways(counts)
        found = [function() for function in functions.values()]  # they are compiled
        assert all((other == found[0]).all() for other in found)
        metrics, milliseconds = side_by_side.compare(f"{counts} objects", functions, repeats)
        record(
            system="matching",
            chapter="11",
            metrics=metrics,
            data="random boxes",
            settings={"objects": " and ".join(map(str, counts)), "room": ROOM},
            milliseconds=milliseconds,
        )


if __name__ == "__main__":
    main()
