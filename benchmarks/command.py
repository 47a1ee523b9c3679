"""What `cvlib train` makes of a folder of photographs, measured on a split that it has not seen.

    python -m benchmarks.command faster_rcnn 'voc:$CVLIB_DATA/bccd' --seed 0

The trunk is MobileNet at 0.75 of its width, whose file of weights CVLIB_WEIGHTS names, as for the
chapters, and the record too (without its folder); the rest is what the command chooses. A run that
was killed goes on where it stopped.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.run import expanded
from cvlib import cli
from cvlib.data import load
from cvlib.metrics import MeanAveragePrecision, MeanIoU
from cvlib.models.system import System
from cvlib.records import record


def scores(samples, found, number):
    """Metrics of what a system found in samples of `number` classes, by their names in records."""
    if "segmentation" in found[0]:
        metric = MeanIoU(number)
        for sample, its in zip(samples, found, strict=True):
            metric.update_state(sample["segmentation"][None], its["segmentation"][None])
        return {
            "mIoU": float(metric.result()),
            "pixel_accuracy": float(metric.pixel_accuracy()),
        }
    kinds = {"mAP@0.5": ("voc2010", "boxes", 0.5), "mAP": ("coco", "boxes", 0.5)}
    if "masks" in found[0]:
        kinds |= {f"mAPr@{t}": ("voc2010", "masks", t) for t in (0.5, 0.7)}
    results = {}
    for name, arguments in kinds.items():
        metric = MeanAveragePrecision(number, *arguments)
        metric.update_state(samples, found)
        results[name] = metric.result()["mAP"]
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("system", choices=cli.SYSTEMS)
    parser.add_argument("data", help="may hold $VARIABLES, expanded here")
    parser.add_argument("--split", default="test", help="what it is measured on (%(default)s)")
    parser.add_argument("--epochs", type=int, help="as many as the command gives, if not named")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default="build/command", help="folder for the models")
    args = parser.parse_args()
    try:
        data = expanded(args.data)
        test = load(data, args.split, "skip")
    except ValueError as error:
        sys.exit(str(error))
    args.epochs = cli.epochs_of(args.system) if args.epochs is None else args.epochs
    weights = os.environ.get("CVLIB_WEIGHTS", "imagenet")
    begins = Path(weights).name
    words = (args.system, test.name.replace(":", "_"), begins, str(args.epochs), str(args.seed))
    path = args.out / f"{'-'.join(words)}.keras"
    command = ["train", args.system, "--data", data, "--out", str(path), "--skip"]
    command += ["--weights", weights, "--alpha", "0.75"]
    command += ["--epochs", str(args.epochs), "--seed", str(args.seed)]
    if not path.exists() and (status := cli.main(command)):
        sys.exit(status)
    system = System.load(path)
    results = scores(*cli.detect(system, test), len(system.classes))
    print(results)
    record(
        type(system).__name__,
        results,
        data=test,
        settings={"epochs": args.epochs, "weights": begins},
        model=system,
        resolution=tuple(system.input.shape[1:3]),
        preset="command",
        seed=args.seed,
    )


if __name__ == "__main__":
    main()
