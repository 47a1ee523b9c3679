"""Selective search: seconds per image and recall of cvlib's beside OpenCV's.

    python -m benchmarks.kernels.selective_search [voc:FOLDER/bccd coco:FOLDER/coco_mini ...]

Both take turns on each picture of the test part (of `scenes` and of the data sets named), in one
process with one thread each, so nothing else should run on the machine. Each has its own settings
of the mode: OpenCV's first regions are larger than the paper's, which cvlib keeps to.
"""

import argparse
import time

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from cvlib.data import load
from cvlib.metrics import ProposalRecall
from cvlib.proposals import OpenCVSelectiveSearch, SelectiveSearch
from cvlib.records import record

IMPLEMENTATIONS = {"cvlib": SelectiveSearch, "OpenCV": OpenCVSelectiveSearch}
BUDGETS = (100, 1000, 10**6)
IOUS = (0.5, 0.7)


def measure(data, mode, count):
    """Writes a record for each of the two on one data set, and returns what is in them."""
    dataset = load(data, "val" if data.startswith("coco:") else "test", on_error="skip")
    dataset = dataset[:: max(1, len(dataset) // count)][:count]
    methods = [make(mode) for make in IMPLEMENTATIONS.values()]
    times = [[] for _ in methods]
    boxes = [[] for _ in methods]
    recalls = [ProposalRecall(IOUS, BUDGETS) for _ in methods]
    for method in methods:
        method(dataset[0]["image"])  # imports what it needs
    for sample in dataset:
        for method, spent, number, recall in zip(methods, times, boxes, recalls, strict=True):
            start = time.perf_counter()
            proposals = method(sample["image"])
            spent.append(1000 * (time.perf_counter() - start))
            number.append(len(proposals))
            recall.update_state([sample], [proposals.boxes])
    rows = []
    for spent, number, recall in zip(times, boxes, recalls, strict=True):
        result = recall.result()
        metrics = {"seconds": np.mean(spent) / 1000, "boxes": np.mean(number)}
        for budget, by_iou in zip(BUDGETS, result["recall"], strict=True):
            name = "all" if budget == BUDGETS[-1] else budget
            metrics |= {f"recall@{t}/{name}": r for t, r in zip(IOUS, by_iou, strict=True)}
        rows.append(metrics)
    rows[0]["seconds over OpenCV's"] = rows[0]["seconds"] / rows[1]["seconds"]
    for name, spent, metrics in zip(IMPLEMENTATIONS, times, rows, strict=True):
        record(
            system="selective_search",
            chapter="08",
            metrics=metrics,
            data=dataset,
            settings={"mode": mode, "implementation": name, "images": len(dataset)},
            milliseconds={"graph": spent},
        )
    return dict(zip(IMPLEMENTATIONS, rows, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*", help="coco:FOLDER (val) or voc:FOLDER (test)")
    parser.add_argument("--images", type=int, default=24, help="of each data set")
    parser.add_argument("--modes", nargs="+", default=["single", "fast"])
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with threadpool_limits(1):
        for data in ("scenes", *arguments.data):
            for mode in arguments.modes:
                for name, metrics in measure(data, mode, arguments.images).items():
                    cells = "  ".join(f"{key} {value:.3f}" for key, value in metrics.items())
                    print(f"{data.rpartition('/')[2]:<10} {mode:<8} {name:<7} {cells}", flush=True)


if __name__ == "__main__":
    main()
