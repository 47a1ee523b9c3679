"""KerasCV's RetinaNet, untrained, on a ResNet-50 at 512x512, for the table of `peers.keras_hub`.

    KERAS_BACKEND=tensorflow python -m benchmarks.peers.keras_cv

Run it while nothing else runs on the machine; a record is written for each batch size. From
pictures to boxes after suppression, which takes seconds: there are few runs.
"""

from keras_cv.models import ResNetBackbone, RetinaNet

from benchmarks.latency import keep
from benchmarks.peers import CLASSES, SIZE, pictures
from cvlib.models.system import time_calls


class Detector(RetinaNet):
    """One whose `predict_on_batch` takes images, where KerasCV 0.9 wants them from `predict`."""

    def predict_step(self, *args):
        *state, (images,) = args
        return super().predict_step(*state, images)


def retina_net():
    trunk = ResNetBackbone(
        stackwise_filters=[64, 128, 256, 512],
        stackwise_blocks=[3, 4, 6, 3],
        stackwise_strides=[1, 2, 2, 2],
        include_rescaling=True,
        input_shape=(*SIZE, 3),
    )
    return Detector(trunk, num_classes=CLASSES, bounding_box_format="xyxy")


def main(runs=5):
    for batch_size in (1, 8):
        model = retina_net()
        times = {"graph": time_calls(model.predict_on_batch, pictures(batch_size), runs, 1)}
        keep("ResNet-50", "KerasCV RetinaNet", model, batch_size, times)


if __name__ == "__main__":
    main()
