"""KerasHub's DeepLabV3+ on our trunk, trained as chapter 17 trains FCN-8s on photographs.

    python -m benchmarks.peers.deeplab 'voc:$CVLIB_DATA/camvid' --seed 0

The trunk is MobileNet at 0.75 of its width, whose file of weights CVLIB_WEIGHTS names. The epochs
are those of FCN-32s and FCN-8s together, along one cosine; batches, loss and test are the
chapter's. KerasHub's pooling sees the map at stride 32 and is enlarged eight times, to the map at
stride 4, of which 48 filters see the details. Its models have dilation rates of 6, 12 and 18. Here
they are 2, 4 and 6, the largest in this proportion whose weights all learn: a crop's last map has 8
x 10 cells, and what reads beside it in training would have random weights in the test.
"""

import argparse
import os
import sys
import time

import keras
from keras.optimizers import Adam
from keras.optimizers.schedules import CosineDecay
from keras_hub.models import DeepLabV3Backbone, DeepLabV3ImageSegmenter

from benchmarks.run import expanded
from cvlib.data import arrays, batches, load
from cvlib.data.augment import Augment
from cvlib.losses import pixel_cross_entropy
from cvlib.metrics import MeanIoU
from cvlib.models import backbone
from cvlib.models.system import jit_compile
from cvlib.records import record

SIZE, TEST_SIZE = (240, 320), (360, 480)


def deeplab(num_classes, size):
    """A network from images (B, *size, 3) in 0..255 to scores (B, *size, `num_classes`)."""
    trunk = backbone("mobilenet", os.environ.get("CVLIB_WEIGHTS", "imagenet"), alpha=0.75)
    trunk.pyramid_outputs = {f"P{n}": trunk.output[f"stride{2**n}"] for n in range(2, 6)}
    network = DeepLabV3Backbone(
        image_encoder=trunk,
        spatial_pyramid_pooling_key="P5",
        low_level_feature_key="P2",
        upsampling_size=8,
        dilation_rates=[2, 4, 6],
        image_shape=(*size, 3),
    )
    segmenter = DeepLabV3ImageSegmenter(network, num_classes)
    # The trunk pads its images; the scores of these pixels are left out.
    return keras.Model(segmenter.input, segmenter.output[:, : size[0], : size[1]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", help="may hold $VARIABLES, expanded here")
    parser.add_argument("--epochs", type=int, default=48, help="in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.perf_counter()
    keras.utils.set_random_seed(args.seed)
    try:
        train, test = (load(expanded(args.data), split) for split in ("train", "test"))
    except ValueError as error:
        sys.exit(str(error))

    augment = Augment(scale=(0.5, 1.0), brightness=0.2, contrast=0.2, saturation=0.3)
    options = {"augment": augment, "seed": args.seed, "cache": True}
    feed = batches(train, 8, SIZE, "segmentation", **options)
    steps = feed.steps_per_epoch
    pairs = feed.map(lambda batch: (batch[0], batch[1]["segmentation"]))
    model = deeplab(len(train.classes), SIZE)
    rate = CosineDecay(5e-4, args.epochs * steps)
    model.compile(Adam(rate), pixel_cross_entropy, jit_compile=jit_compile())
    model.fit(pairs, epochs=args.epochs, steps_per_epoch=steps, shuffle=False, verbose=2)

    # KerasHub's layers cannot be compiled for images of several sizes.
    whole = deeplab(len(train.classes), TEST_SIZE)
    whole.compile(jit_compile=jit_compile())
    whole.set_weights(model.get_weights())
    x, y = arrays(test, TEST_SIZE, "segmentation")
    metric = MeanIoU(len(train.classes))
    for i in range(0, len(x), 4):
        metric.update_state(y["segmentation"][i : i + 4], whole.predict_on_batch(x[i : i + 4]))
    results = {"mIoU": float(metric.result()), "pixel_accuracy": float(metric.pixel_accuracy())}
    print(results)
    settings = {"begins as": "backbone", "upsampling": "fixed", "broken rule": "none"}
    record(
        "KerasHub DeepLabV3+",
        results,
        data=test,
        settings=settings | {"epochs": args.epochs},
        model=model,
        resolution=TEST_SIZE,
        duration=time.perf_counter() - start,
        chapter="17",
        preset="full",
        seed=args.seed,
    )


if __name__ == "__main__":
    main()
