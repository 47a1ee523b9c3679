"""Whether training ever waits for its data: the loader's images/s over the training step's.

    python -m benchmarks.kernels.loader [coco:FOLDER/tiny_imagenet20 ...]

`scenes:single` feeds the tiny backbone and every data set named feeds MobileNet (alpha 0.75), at
128 x 128 with flip, crop and colour changes. The loader alone, the training step alone on one batch
that it sees again and again, and both together are measured in turn, so nothing else should run on
the machine. `first pass` reads, decodes or renders every sample; `loader` has them in memory.
"""

import argparse
import functools
import time

import keras
import numpy as np

from cvlib.data import batches, load
from cvlib.data.augment import Augment
from cvlib.models.backbone import backbone
from cvlib.records import record

SIZE = (128, 128)
BATCH = 32
AUGMENT = Augment(
    scale=(0.6, 1), aspect=(3 / 4, 4 / 3), brightness=0.2, contrast=0.2, saturation=0.2
)
COLUMNS = ("first pass", "loader", "step", "together", "ratio")


def measure(data, name, steps):
    """Writes the record of one data set with one backbone, and returns its images/s by column."""
    dataset = load(data, "train", on_error="skip")[: BATCH * steps]
    feed = batches(dataset, BATCH, SIZE, max_objects=1, augment=AUGMENT, cache=True)
    stream = iter(feed)
    rates = {column: rate(steps, lambda: next(stream)) for column in ("first pass", "loader")}

    trunk = backbone(name, alpha=0.75)
    features = keras.layers.GlobalAveragePooling2D()(trunk.output["stride32"])
    scores = keras.layers.Dense(len(dataset.classes), "softmax")(features)
    model = keras.Model(trunk.input, scores)
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = next(stream)
    x, label = np.concatenate([x] * steps), np.concatenate([y["label"]] * steps)
    labelled = feed.map(lambda batch: (batch[0], batch[1]["label"]))
    fit = functools.partial(model.fit, shuffle=False, verbose=0)
    alone = functools.partial(fit, x, label, batch_size=BATCH)
    together = functools.partial(fit, labelled, steps_per_epoch=steps)
    for column, work in (("step", alone), ("together", together)):
        work()  # traces and compiles
        rates[column] = steps * rate(1, work)
    rates["ratio"] = rates["loader"] / rates["step"]
    record(
        system="loader",
        chapter="01",
        metrics={c if c == "ratio" else f"{c} images/s": rates[c] for c in COLUMNS},
        data=dataset,
        settings={"backbone": name, "batch_size": BATCH},
        model=model,
        resolution=SIZE,
    )
    return rates


def rate(calls, work):
    """Images/s of calls of `work`, each on one batch."""
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return calls * BATCH / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*", help="coco:FOLDER, voc:FOLDER: images with one label")
    parser.add_argument("--steps", type=int, default=40, help="batches of 32 in each measurement")
    arguments = parser.parse_args()
    runs = [("scenes:single", "tiny")]
    runs += [(data, "mobilenet") for data in arguments.data]
    print("".join(f"{title:>14}" for title in ("data", *COLUMNS)))
    for data, name in runs:
        rates = measure(data, name, arguments.steps)
        cells = [f"{rates[c]:>14.{1 if c == 'ratio' else 0}f}" for c in COLUMNS]
        print(f"{data.rpartition('/')[2][-14:]:>14}" + "".join(cells))


if __name__ == "__main__":
    main()
