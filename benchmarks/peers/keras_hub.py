"""KerasHub's RetinaNet beside our detectors, all untrained, on a ResNet-50 at 512x512.

    python -m benchmarks.peers.keras_hub

Run it while nothing else runs on the machine; a record of each is written for each batch size. From
pictures to boxes after suppression, which KerasHub does not compile into the network's graph but
into that of its `predict`.
"""

from keras_hub.models import (
    ResNetBackbone,
    RetinaNetBackbone,
    RetinaNetObjectDetector,
)

from benchmarks.latency import keep, time_system
from benchmarks.peers import CLASSES, SIZE, pictures
from cvlib.models import YOLO, FasterRCNN, backbone
from cvlib.models.system import time_calls


class RetinaNet(RetinaNetObjectDetector):
    """One whose `predict_on_batch` takes images, where KerasHub 0.32 wants a pair."""

    def predict_step(self, *args):
        *state, (images,) = args
        return super().predict_step(*state, (images, None))


def retina_net():
    encoder = ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
        image_shape=(*SIZE, 3),
    )
    trunk = RetinaNetBackbone(
        image_encoder=encoder, min_level=3, max_level=7, use_p5=False, image_shape=(*SIZE, 3)
    )
    return RetinaNet(
        backbone=trunk, num_classes=CLASSES, bounding_box_format="xyxy", preprocessor=None
    )


def faster_rcnn():
    return FasterRCNN(backbone("resnet50", None), CLASSES, SIZE)


def yolo():
    return YOLO(backbone("resnet50", None), CLASSES, SIZE, 14, convolutions=(256, 64))


def main(runs=30):
    for batch_size in (1, 8):
        for name, build in {"Faster R-CNN": faster_rcnn, "YOLO": yolo}.items():
            system = build()
            times = time_system(system, batch_size, runs, 5, stages=False)
            keep("ResNet-50", name, system, batch_size, times)
        model = retina_net()
        times = {"graph": time_calls(model.predict_on_batch, pictures(batch_size), runs, 5)}
        keep("ResNet-50", "KerasHub RetinaNet", model, batch_size, times)


if __name__ == "__main__":
    main()
