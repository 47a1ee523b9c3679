"""torchvision's Faster R-CNN, untrained, on a ResNet-50 at 512x512, as ours in `keras_hub.py`.

    KERAS_BACKEND=torch python -m benchmarks.peers.torchvision

The RPN looks at the map of stride 16, with nine anchors a place, and proposes 300 boxes; the heads
have layers of 1,024 units, ours of 512. Boxes of which no class is over 0.05 are dropped before
suppression, here nearly all: with random weights each of 21 classes has about that. Run it while
nothing else runs on the machine; a record is written for each batch size. torchvision wants a
PyTorch that was built for CUDA, if only to load.
"""

import torch
import torchvision
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from benchmarks.latency import keep
from benchmarks.peers import CLASSES, SIZE, pictures
from cvlib.models.system import time_calls


def faster_rcnn():
    trunk = torch.nn.Sequential(*list(torchvision.models.resnet50(weights=None).children())[:-3])
    trunk.out_channels = 1024
    return FasterRCNN(
        trunk,
        CLASSES + 1,
        min_size=SIZE[0],
        max_size=SIZE[1],
        rpn_anchor_generator=AnchorGenerator(((128, 256, 512),), ((0.5, 1.0, 2.0),)),
        rpn_post_nms_top_n_test=300,
        rpn_pre_nms_top_n_test=6000,
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2),
    ).eval()


@torch.inference_mode()
def main(runs=30):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = faster_rcnn().to(device)

    def detect(images):
        found = model(list(torch.from_numpy(images).to(device).permute(0, 3, 1, 2) / 255))
        return [{key: value.cpu().numpy() for key, value in one.items()} for one in found]

    for batch_size in (1, 8):
        times = {"graph": time_calls(detect, pictures(batch_size), runs, 5)}
        keep("ResNet-50", "torchvision Faster R-CNN", None, batch_size, times, SIZE)


if __name__ == "__main__":
    main()
