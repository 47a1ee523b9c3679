"""Train the tiny backbone that ships with the package: classification on `scenes:single`.

    python -m benchmarks.pretrain_tiny

The `pretrain` split shares no picture with the splits that systems are measured on. Writes
cvlib/models/tiny_scenes.weights.h5 and a record of the classifier's accuracy on `val`.
"""

import os

import keras

from cvlib.data import batches, load
from cvlib.data.augment import Augment
from cvlib.models import backbone
from cvlib.models.backbone import TINY_WEIGHTS
from cvlib.models.system import jit_compile
from cvlib.records import record

EPOCHS, BATCH, SEED = 24, 64, 0


def main():
    keras.utils.set_random_seed(SEED)
    train, val = (load("scenes:single", split) for split in ("pretrain", "val"))
    trunk = backbone("tiny")
    images = keras.Input((128, 128, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(trunk(images)["stride32"])
    classifier = keras.Model(images, keras.layers.Dense(len(train.classes))(pooled))
    augment = Augment(scale=(0.6, 1.4), aspect=(0.8, 1.25), brightness=0.2, contrast=0.2)
    data = batches(train, BATCH, (128, 128), augment=augment, seed=SEED, cache=True)
    unseen = batches(val, BATCH, (128, 128), shuffle=False, repeat=False)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, EPOCHS * data.steps_per_epoch)
    classifier.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_compile(),
    )
    classifier.fit(
        data.map(_labelled),
        steps_per_epoch=data.steps_per_epoch,
        epochs=EPOCHS,
        validation_data=unseen.map(_labelled),
        shuffle=False,
        verbose=2,
    )
    metrics = classifier.evaluate(unseen.map(_labelled), return_dict=True, verbose=0)
    record(
        "tiny backbone",
        {"accuracy": metrics["accuracy"]},
        data=val,
        settings={"epochs": EPOCHS},
        model=trunk,
        resolution=(128, 128),
        chapter="01",
        preset="full",
        seed=SEED,
    )
    temporary = TINY_WEIGHTS.with_name(".tiny_scenes.weights.h5")
    trunk.save_weights(temporary)
    os.replace(temporary, TINY_WEIGHTS)
    print(f"{TINY_WEIGHTS.name}: accuracy {metrics['accuracy']:.3f} on {val.name} {val.split}")


def _labelled(batch):
    images, targets = batch
    return images, targets["label"]


if __name__ == "__main__":
    main()
