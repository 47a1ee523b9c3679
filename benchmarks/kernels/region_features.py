"""R-CNN's features: regions/s at 128 x 128 with the tiny backbone, from images to files.

    python -m benchmarks.kernels.region_features [--images 64]

The whole stage is measured as `RCNN.fit` runs it, its compilation included, and then, with all
compiled, what warping the regions of one image takes, and what the network, as it learns and with
its batch normalisation folded, as the stage has it. Nothing else should run on the machine.
"""

import argparse
import tempfile

import numpy as np

from cvlib.data import batches, load
from cvlib.models import RCNN, backbone
from cvlib.models.backbone import folded
from cvlib.models.system import time_calls
from cvlib.proposals import RandomBoxes

SIZE = (128, 128)
REGIONS = 128  # of an image


def measure(images):
    """Regions/s of the stage, and the milliseconds that parts take for the regions of an image."""
    dataset = load("scenes", "train")[:images]
    rcnn = RCNN(
        backbone("tiny", weights="scenes"),
        len(dataset.classes),
        SIZE,
        max_proposals=REGIONS,
        scores="softmax",
        box_regression=False,
    )
    rcnn.compile()
    proposals = {"proposals": RandomBoxes(REGIONS), "max_proposals": REGIONS}
    feed = batches(dataset, 8, SIZE, max_objects=8, cache=True, **proposals)
    x, _ = next(iter(feed))
    with tempfile.TemporaryDirectory() as folder:
        rcnn.fit(feed, folder=folder, epochs=0, verbose=0)
    one = {key: value[:1] for key, value in x.items()}
    times = rcnn.milliseconds(one, runs=10, warmup=2)
    stages = dict(rcnn.stages())
    _, crops = stages["warp"].predict_on_batch([one["images"], one["proposals"]])
    network = folded(stages["network"])
    network.jit_compile = rcnn.jit_compile
    times["network, folded"] = time_calls(network.predict_on_batch, crops, 10, 2)
    speed = rcnn.cost["regions"] / rcnn.cost["seconds"]["features"]
    kinds = "warp", "network", "network, folded"
    return speed, {name: float(np.median(times[name])) for name in kinds}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    speed, parts = measure(parser.parse_args().images)
    print(f"{speed:.0f} regions/s")
    for name, milliseconds in parts.items():
        print(f"{name}: {1000 * REGIONS / milliseconds:.0f} regions/s")


if __name__ == "__main__":
    main()
