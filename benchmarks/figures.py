"""Draw the figures of README.md: python -m benchmarks.figures"""

import io

import matplotlib
import numpy as np

from benchmarks.freshness import ROOT
from cvlib import boxes, plots
from cvlib.data import load
from cvlib.data.scenes import STUFF
from cvlib.records import write_atomically


def overview():
    """One scene and what the tasks of the course answer about it."""
    dataset = load("scenes", "train")
    scene = dataset[155]
    main = int(np.argmax(boxes.area(scene["boxes"])))
    one = {"boxes": scene["boxes"][[main]], "labels": scene["labels"][[main]]}
    parts = {
        "localization": one,
        "detection": {key: scene[key] for key in ("boxes", "labels")},
        "semantic segmentation": {"segmentation": scene["segmentation"]},
        "instance segmentation": {key: scene[key] for key in ("masks", "labels")},
    }
    return plots.show(
        [{"image": scene["image"]} | part for part in parts.values()],
        draw=("boxes", "segmentation", "masks"),
        classes=dataset.classes,
        stuff=STUFF,
        titles=list(parts),
    )


def main():
    # Without salt and date the same figure is the same file.
    matplotlib.rcParams["svg.hashsalt"] = "cvlib"
    folder = ROOT / "results" / "figures"
    svg = io.StringIO()
    overview().savefig(svg, format="svg", metadata={"Date": None})
    write_atomically(folder / "overview.svg", svg.getvalue())


if __name__ == "__main__":
    main()
