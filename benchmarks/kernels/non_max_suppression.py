"""Non-maximum suppression of proposals: milliseconds of cvlib's beside its peers'.

    python -m benchmarks.kernels.non_max_suppression [--torchvision PYTHON]

6,000 boxes of an image at an IoU of 0.7, keeping 300, as Faster R-CNN's proposals: `spread` boxes
lie anywhere, few with such an IoU, so that the first tiles hold those to keep; `dense` ones are 40
clusters of 150, as anchors around objects. All are compiled, with XLA and as TensorFlow runs a
graph by itself (on PyTorch neither), and take turns, so nothing else should run on the machine.
torchvision, which knows no number to keep and is cut to its first 300, runs in a process of its own
by the given interpreter, before the turns, with as many threads. `equal` is the share of images for
which a peer keeps the same boxes in the same order.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import ops

from benchmarks.kernels import side_by_side
from benchmarks.kernels.side_by_side import run, take_turns
from cvlib.layers import NonMaxSuppression

BOXES, KEPT, IOU = 6000, 300, 0.7

TORCHVISION = f"""
import json, sys, time
import numpy as np, torch
from torchvision.ops import nms

data = np.load(sys.argv[1])
boxes, scores = torch.tensor(data["boxes"]), torch.tensor(data["scores"])

def run():
    return [nms(b, s, {IOU})[:{KEPT}] for b, s in zip(boxes, scores)]

kept, milliseconds = run(), []
for _ in range(int(sys.argv[2])):
    start = time.perf_counter()
    run()
    milliseconds.append(1000 * (time.perf_counter() - start))
kept = [k.tolist() + [-1] * ({KEPT} - len(k)) for k in kept]
print(json.dumps({{"kept": kept, "milliseconds": milliseconds}}))
"""


def random_boxes(kind, batch):
    """Boxes (B, BOXES, 4) in 800 x 600 pixels and scores (B, BOXES)."""
    rng = np.random.default_rng(0)
    per_cluster = {"spread": 1, "dense": 150}[kind]
    shape = (batch, BOXES // per_cluster, 1, 2)
    centres = rng.uniform(0, 1, shape) * [800, 600]
    sides = np.exp(rng.normal(4.2, 0.6, shape))
    inside = (batch, BOXES // per_cluster, per_cluster, 2)
    centres = (centres + rng.normal(0, 8, inside)).reshape(batch, BOXES, 2)
    sides = (sides * np.exp(rng.normal(0, 0.15, inside))).reshape(batch, BOXES, 2)
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1)
    return boxes.astype("float32"), rng.random((batch, BOXES)).astype("float32")


def torchvision(python, boxes, scores, repeats):
    """What torchvision keeps, (B, KEPT), and its milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "boxes.npz")
        np.savez(path, boxes=boxes, scores=scores)
        command = [python, "-c", TORCHVISION, str(path), str(repeats)]
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found["kept"], found["milliseconds"]


def ways(boxes, scores):
    """`{name: function of no argument}`; they give the kept boxes (B, KEPT, 4)."""
    backend = keras.backend.backend()
    tensors = [ops.convert_to_tensor(x) for x in (boxes, scores[..., None])]
    settings = {"iou_threshold": IOU, "confidence_threshold": 0.0, "max_detections": KEPT}

    def compiled(layer, jit_compile):
        return side_by_side.compiled(
            lambda boxes, scores: layer(boxes, scores)["boxes"], tensors, jit_compile
        )

    if backend == "torch":
        return {"cvlib": compiled(NonMaxSuppression(**settings), False)}
    found = {"cvlib XLA": compiled(NonMaxSuppression(**settings), True)}
    if backend == "jax":
        return found | _hubs(compiled, settings, True)
    import tensorflow as tf

    @tf.function
    def tf_image(boxes, scores):
        def one(image):
            kept = tf.image.non_max_suppression(image[0], image[1][:, 0], KEPT, IOU)
            return tf.gather(image[0], kept)

        return tf.map_fn(one, (boxes, scores), fn_output_signature=tf.float32)

    found["cvlib graph"] = compiled(NonMaxSuppression(**settings), False)
    found["tf.image graph"] = lambda: tf_image(*tensors).numpy()
    return found | _hubs(compiled, settings, False)


def _hubs(compiled, settings, jit_compile):
    """KerasHub's and KerasCV's layers, where they are installed."""
    found = {}
    for name in ("keras_hub", "keras_cv"):
        try:
            package = __import__(name)
        except ImportError:
            continue
        layer = package.layers.NonMaxSuppression("xyxy", from_logits=False, **settings)
        found[f"{name} {'XLA' if jit_compile else 'graph'}"] = compiled(layer, jit_compile)
    return found


def measure(kind, batch, python, repeats):
    """Metrics and milliseconds of one kind of boxes."""
    boxes, scores = random_boxes(kind, batch)
    metrics, milliseconds = {}, {}
    if python:
        expected, milliseconds["torchvision"] = torchvision(python, boxes, scores, repeats)
    functions = ways(boxes, scores)
    kept = {name: function() for name, function in functions.items()}
    milliseconds |= take_turns(functions, repeats)
    if python:
        index = np.array(expected)[..., None]
        of_torchvision = np.where(index >= 0, np.take_along_axis(boxes, index, 1), 0)
        for name, found in kept.items():
            same = (found[:, :KEPT] == of_torchvision[:, : found.shape[1]]).all((1, 2))
            metrics[f"{name} equal"] = same.mean()
            ratio = np.median(milliseconds[name]) / np.median(milliseconds["torchvision"])
            metrics[f"{name} over torchvision"] = ratio
    return metrics, milliseconds


if __name__ == "__main__":
    kinds, about = ("spread", "dense"), __doc__.splitlines()[0]
    run(about, "11", "non_max_suppression", "random boxes", "boxes", kinds, measure)
