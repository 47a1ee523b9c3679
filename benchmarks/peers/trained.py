"""KerasHub's RetinaNet and torchvision's Faster R-CNN, trained as chapter 13 trains its detectors.

    python -m benchmarks.peers.trained keras_hub 'voc:$CVLIB_DATA/bccd' --seed 0
    KERAS_BACKEND=torch python -m benchmarks.peers.trained torchvision 'voc:$CVLIB_DATA/bccd'

The pictures, their size, the trunk and its weights, the batches with their augmentation, Adam's
rates, the passes and the threshold of suppression are those of chapter 13. RetinaNet has its own
anchors, of 16 pixels at stride 8 for its 32, since the smallest objects are about as small; nothing
else of it is changed. torchvision's Faster R-CNN has the anchors, the map, the counts and the heads
of ours with RoI align; the trunk is the same Keras model, run by PyTorch inside torchvision's.
"""

import argparse
import os
import sys
import time

import keras
import numpy as np
from keras.optimizers.schedules import CosineDecay

from benchmarks.run import expanded
from cvlib.data import arrays, batches, load
from cvlib.data.augment import Augment
from cvlib.metrics import MeanAveragePrecision
from cvlib.models import backbone
from cvlib.models.system import time_calls
from cvlib.records import record

IOU, CONFIDENCE = 0.3, 0.02  # of suppression
BATCH, CLIP = 8, 10.0


def keras_hub(trunk, num_classes, size):
    """(name, model, learn, detect) of KerasHub's RetinaNet."""
    from keras_hub.layers import AnchorGenerator, NonMaxSuppression
    from keras_hub.models import RetinaNetBackbone, RetinaNetObjectDetector

    class RetinaNet(RetinaNetObjectDetector):
        """One whose `predict_on_batch` takes images, where KerasHub 0.32 wants a pair."""

        def predict_step(self, *args):
            *state, (images,) = args
            return super().predict_step(*state, (images, None))

    trunk.pyramid_outputs = {f"P{n}": trunk.output[f"stride{2**n}"] for n in (3, 4, 5)}
    options = {"bounding_box_format": "xyxy"}
    model = RetinaNet(
        RetinaNetBackbone(trunk, 3, 7, use_p5=False, image_shape=(*size, 3)),
        num_classes,
        anchor_generator=AnchorGenerator("xyxy", 3, 7, 3, [0.5, 1.0, 2.0], anchor_size=2),
        prediction_decoder=NonMaxSuppression(
            from_logits=True, iou_threshold=IOU, confidence_threshold=CONFIDENCE, **options
        ),
        **options,
    )

    def learn(feed, steps, rates):
        model.compile(keras.optimizers.Adam(rates, global_clipnorm=CLIP))
        # The whole as one epoch; anything but boxes and labels would be taken for a target.
        pairs = feed.map(lambda b: (b[0], {key: b[1][key] for key in ("boxes", "labels")}))
        model.fit(pairs, steps_per_epoch=steps, verbose=0)

    compiled_for = None

    def detect(images):
        nonlocal compiled_for
        # KerasHub's suppression cannot be compiled for batches of any size.
        if compiled_for != len(images):
            model.make_predict_function(force=True)
            compiled_for = len(images)
        return model.predict_on_batch(images)

    return "KerasHub RetinaNet", model, learn, detect


def torchvision(trunk, num_classes, size):
    """(name, model, learn, detect) of torchvision's Faster R-CNN."""
    import torch
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    class Trunk(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = keras.Model(trunk.input, trunk.output["stride8"])
            self.out_channels = self.network.output.shape[-1]

        def forward(self, images):
            maps = self.network(images.permute(0, 2, 3, 1), training=self.training)
            return maps.permute(0, 3, 1, 2)

    network = Trunk()
    model = FasterRCNN(
        network,
        min_size=size[0],
        max_size=size[1],
        # The trunk wants 0..255.
        image_mean=(0.0, 0.0, 0.0),
        image_std=(1 / 255, 1 / 255, 1 / 255),
        rpn_anchor_generator=AnchorGenerator(((16, 32, 64),), ((0.75, 1.33),)),
        rpn_pre_nms_top_n_train=1000,
        rpn_pre_nms_top_n_test=1000,
        rpn_post_nms_top_n_train=100,
        rpn_post_nms_top_n_test=100,
        box_roi_pool=MultiScaleRoIAlign(["0"], 5, 2),
        box_head=TwoMLPHead(25 * network.out_channels, 256),
        box_predictor=FastRCNNPredictor(256, num_classes + 1),
        box_batch_size_per_image=32,
        box_nms_thresh=IOU,
        box_score_thresh=CONFIDENCE,
    )

    def as_tensors(images):
        return list(torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2) / 255)

    def learn(feed, steps, rates):
        learned = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(learned, eps=1e-7)
        model.train()
        for step, (images, truth) in zip(range(steps), feed, strict=False):
            boxes, labels = (torch.from_numpy(np.asarray(truth[k])) for k in ("boxes", "labels"))
            # 0 is torchvision's background.
            targets = [
                {"boxes": b[c >= 0], "labels": c[c >= 0].long() + 1}
                for b, c in zip(boxes, labels, strict=True)
            ]
            optimizer.param_groups[0]["lr"] = float(rates(step))
            optimizer.zero_grad()
            sum(model(as_tensors(images), targets).values()).backward()
            torch.nn.utils.clip_grad_norm_(learned, CLIP)
            optimizer.step()
        model.eval()

    @torch.inference_mode()
    def detect(images):
        found = model(as_tensors(images))
        count = max(len(one["boxes"]) for one in found)
        padded = {
            "boxes": np.zeros((len(found), count, 4), "float32"),
            "confidence": np.zeros((len(found), count), "float32"),
            "labels": np.full((len(found), count), -1),
        }
        for i, one in enumerate(found):
            n = len(one["boxes"])
            padded["boxes"][i, :n] = one["boxes"].numpy()
            padded["confidence"][i, :n] = one["scores"].numpy()
            padded["labels"][i, :n] = one["labels"].numpy() - 1
        return padded

    return "torchvision Faster R-CNN", model, learn, detect


PEERS = {"keras_hub": keras_hub, "torchvision": torchvision}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("data", help="may hold $VARIABLES, expanded here")
    parser.add_argument("--passes", type=int, default=10, help="over the pictures (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    keras.utils.set_random_seed(args.seed)
    scenes = args.data.startswith("scenes")
    size, objects = ((128, 128), 8) if scenes else ((224, 288), 40)
    splits = ("trainval" if args.data.startswith("voc:") else "train", "test")
    try:
        train, test = (load(expanded(args.data), split, on_error="skip") for split in splits)
    except ValueError as error:
        sys.exit(str(error))
    if scenes:
        train, test = train.some(400), test.some(200)
        trunk = backbone("tiny", weights="scenes")
    else:
        trunk = backbone("mobilenet", os.environ.get("CVLIB_WEIGHTS", "imagenet"), alpha=0.75)
    classes = len(train.classes)
    name, model, learn, detect = PEERS[args.peer](trunk, classes, size)

    augment = Augment(scale=(0.8, 1.3), brightness=0.2, contrast=0.2, saturation=0.2)
    options = {"max_objects": objects, "augment": augment, "seed": args.seed, "cache": True}
    feed = batches(train, BATCH, size, **options)
    steps = args.passes * feed.steps_per_epoch
    warm = steps // 10
    rate = 1e-3 if scenes else 1e-3 / 3
    rates = CosineDecay(0.0, steps - warm, warmup_target=rate, warmup_steps=warm)
    start = time.perf_counter()
    learn(feed, steps, rates)
    seconds = time.perf_counter() - start

    x, truth = arrays(test, size, max_objects=objects)
    found = [detect(x[i : i + BATCH]) for i in range(0, len(x), BATCH)]
    results = {}
    for metric, style in {"mAP@0.5": "voc2010", "mAP": "coco"}.items():
        precision = MeanAveragePrecision(classes, style)
        for i, some in enumerate(found):
            part = slice(BATCH * i, BATCH * (i + 1))
            precision.update_state({key: value[part] for key, value in truth.items()}, some)
        results[metric] = precision.result()["mAP"]
    if args.peer == "keras_hub":  # torchvision's times would be those of a Keras trunk, uncompiled.
        one, eight = (np.array(time_calls(detect, x[:count], 20, 3)) for count in (1, 8))
        results |= {
            "training s": seconds,
            "images/s@1": 1000 / np.median(one),
            "images/s@8": 8000 / np.median(eight),
            "ms p50": np.median(one),
            "ms p90": np.percentile(one, 90),
        }
    print({key: float(value) for key, value in results.items()})
    record(
        name,
        results,
        data=test,
        model=model if isinstance(model, keras.Model) else None,
        resolution=size,
        duration=seconds,
        chapter="13",
        preset="full",
        seed=args.seed,
    )


if __name__ == "__main__":
    main()
