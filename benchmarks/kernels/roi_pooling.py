"""RoI pooling and RoI align: milliseconds of cvlib's layers beside torchvision's operators.

    python -m benchmarks.kernels.roi_pooling [--torchvision PYTHON]

300 boxes of 7 x 7 cells over a map of 38 x 50 x 256, forward, and forward with the gradient of the
map. Ours are compiled, with XLA and as TensorFlow runs a graph by itself (on PyTorch neither), and
take turns with what Keras's users write instead: `tf.image.crop_and_resize` at twice the grid, and
its maxima, which is an approximation. Nothing else should run on the machine. torchvision runs in a
process of its own by the given interpreter, before the turns, with as many threads. `off by` is the
largest difference from torchvision's values.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import ops

from benchmarks.kernels.side_by_side import run, take_turns
from cvlib.layers import RoIAlign, RoIPooling

LAYERS = {"pool": RoIPooling, "align": RoIAlign}
STRIDE, SIZE = 16, (7, 7)

TORCHVISION = """
import json, sys, time
import numpy as np, torch
from torchvision.ops import roi_align, roi_pool

kind, path, repeats = sys.argv[1:]
data = np.load(path)
features = torch.tensor(data["features"]).permute(0, 3, 1, 2).contiguous().requires_grad_()
boxes, upstream = [torch.tensor(b) for b in data["boxes"]], torch.tensor(data["upstream"])
upstream = upstream.flatten(0, 1).permute(0, 3, 1, 2).contiguous()
more = {"pool": {}, "align": {"sampling_ratio": 2, "aligned": True}}[kind]
operator = {"pool": roi_pool, "align": roi_align}[kind]

def forward():
    return operator(features, boxes, (7, 7), 1 / 16, **more)

def plain():
    with torch.no_grad():
        return forward()

def gradient():
    return torch.autograd.grad(forward(), features, upstream)[0]

milliseconds = {}
for name, function in (("forward", plain), ("gradient", gradient)):
    value, times = function().permute(0, 2, 3, 1).numpy(), []
    np.save(f"{path}.{name}.npy", value)
    for _ in range(int(repeats)):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    milliseconds[name] = times
print(json.dumps(milliseconds))
"""


def random_map(batch):
    """A map, boxes in 800 x 608 pixels, and the gradient of what is pooled."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((batch, 38, 50, 256))
    centres = rng.uniform(0, 1, (batch, 300, 2)) * [800, 608]
    sides = np.exp(rng.normal(4.8, 0.6, (batch, 300, 2)))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1)
    boxes = np.clip(boxes, 0, [800, 608] * 2)
    upstream = rng.standard_normal((batch, 300, *SIZE, 256))
    return [x.astype("float32") for x in (features, boxes, upstream)]


def torchvision(python, kind, arrays, repeats):
    """What torchvision gives, and its milliseconds, of `forward` and `gradient`."""
    names = ("features", "boxes", "upstream")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "map.npz")
        np.savez(path, **dict(zip(names, arrays, strict=True)))
        command = [python, "-c", TORCHVISION, kind, str(path), str(repeats)]
        milliseconds = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return {name: np.load(f"{path}.{name}.npy") for name in milliseconds}, milliseconds


def ways(kind, arrays):
    """`{name: {"forward": function, "gradient": function}}`, of no arguments."""
    features, boxes, upstream = map(ops.convert_to_tensor, arrays)
    layer = LAYERS[kind](SIZE, STRIDE)
    backend = keras.backend.backend()
    if backend == "torch":

        def torch_gradient():
            map_ = features.clone().requires_grad_()
            layer(map_, boxes).backward(upstream)
            return ops.convert_to_numpy(map_.grad)

        return {
            "cvlib": {
                "forward": lambda: ops.convert_to_numpy(layer(features, boxes)),
                "gradient": torch_gradient,
            }
        }
    if backend == "jax":
        import jax

        forward = jax.jit(layer)
        back = jax.jit(lambda f, b, up: jax.vjp(lambda f: layer(f, b), f)[1](up)[0])
        return {
            "cvlib XLA": {
                "forward": lambda: np.asarray(forward(features, boxes)),
                "gradient": lambda: np.asarray(back(features, boxes, upstream)),
            }
        }
    import tensorflow as tf

    def compiled(function, jit_compile):
        def gradient(features, boxes, upstream):
            with tf.GradientTape() as tape:
                tape.watch(features)
                pooled = function(features, boxes)
            return tape.gradient(pooled, features, upstream)

        forward = tf.function(function, jit_compile=jit_compile)
        gradient = tf.function(gradient, jit_compile=jit_compile)
        return {
            "forward": lambda: forward(features, boxes).numpy(),
            "gradient": lambda: gradient(features, boxes, upstream).numpy(),
        }

    def crops(features, boxes):
        batch, count = boxes.shape[:2]
        # Normalised, as this operator takes them: 0 and 1 are the outermost centres.
        cells = boxes / STRIDE - 0.5
        limits = np.float32(features.shape[1:3])[[0, 1, 0, 1]] - 1
        places = tf.reshape(tf.gather(cells, [1, 0, 3, 2], axis=-1) / limits, (-1, 4))
        image = tf.repeat(tf.range(batch), count)
        twice = tf.image.crop_and_resize(features, places, image, (14, 14))
        pooled = tf.nn.max_pool2d(twice, 2, 2, "VALID")
        return tf.reshape(pooled, (batch, count, *pooled.shape[1:]))

    return {
        "cvlib XLA": compiled(layer, True),
        "cvlib graph": compiled(layer, False),
        "crop_and_resize graph": compiled(crops, False),
    }


def measure(kind, batch, python, repeats):
    """Metrics and milliseconds of one layer, `{name/forward: ...}`."""
    arrays = random_map(batch)
    metrics, milliseconds, expected = {}, {}, {}
    if python:
        expected, times = torchvision(python, kind, arrays, repeats)
        milliseconds = {f"torchvision/{name}": values for name, values in times.items()}
    functions = {
        f"{way}/{name}": function
        for way, both in ways(kind, arrays).items()
        for name, function in both.items()
    }
    for way, function in functions.items():
        value, name = function(), way.rpartition("/")[2]
        if python:
            metrics[f"{way} off by"] = np.abs(value.ravel() - expected[name].ravel()).max()
    milliseconds |= take_turns(functions, repeats)
    for way in functions if python else ():
        peer = milliseconds[f"torchvision/{way.rpartition('/')[2]}"]
        metrics[f"{way} over torchvision"] = np.median(milliseconds[way]) / np.median(peer)
    return metrics, milliseconds


if __name__ == "__main__":
    about = __doc__.splitlines()[0]
    run(about, "10", "roi_pooling", "random map and boxes", "layer", LAYERS, measure)
