"""Systems leave Keras: ONNX and LiteRT files run elsewhere and agree."""

import keras
import numpy as np
import pytest
from keras import ops

from cvlib.models import (
    YOLO,
    FasterRCNN,
    FastRCNN,
    Localizer,
    OverFeat,
    PoseRegressor,
    backbone,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="exported from TensorFlow, like most files"
    ),
]
rng = np.random.default_rng(0)


def localizer():
    model = Localizer(backbone("tiny", "scenes"), 3, size=(64, 64), hidden=16, boxes="per_class")
    return model, {"images": noise(64)}


def overfeat():
    trunk = backbone("tiny", "scenes")
    return OverFeat(trunk, 3, size=(64, 64), window=32, hidden=16), {"images": noise(64)}


def pose_regressor():
    trunk = backbone("tiny", "scenes")
    model = PoseRegressor(trunk, 3, stages=2, crop_size=64, joint_crop_size=32, hidden=16)
    return model, {"images": noise(64), "boxes": np.float32([[3, 4, 50, 60]])}


def yolo():
    nms = {"confidence_threshold": 0.0, "max_detections": 5}
    model = YOLO(backbone("tiny", "scenes"), 3, size=(64, 64), hidden=16, nms=nms)
    return model, {"images": noise(64)}


REGIONS = {
    "size": (64, 64),
    "hidden": 16,
    "nms": {"confidence_threshold": 0.0, "max_detections": 5},
}


def fast_rcnn():
    model = FastRCNN(backbone("tiny", "scenes"), 3, max_proposals=3, pooling="align", **REGIONS)
    proposals = np.float32([[[3, 4, 50, 60], [10, 10, 30, 25], [0, 20, 64, 64]]])
    return model, {"images": noise(64), "proposals": proposals}


def faster_rcnn():
    rpn = {"sizes": (16, 24), "rpn_channels": 16, "pre_nms": 50, "post_nms": 8}
    model = FasterRCNN(backbone("tiny", "scenes"), 3, pooling="align", **rpn, **REGIONS)
    return model, {"images": noise(64)}


def noise(side):
    return (255 * rng.random((1, side, side, 3))).astype("float32")


def run_onnx(path, x):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path)
    given = {tensor.name: x[tensor.name] for tensor in session.get_inputs()}
    names = [tensor.name for tensor in session.get_outputs()]
    return dict(zip(names, session.run(None, given), strict=True))


def run_litert(path, x):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    run = interpreter.Interpreter(str(path)).get_signature_runner()
    # LiteRT's inputs have no names of ours; no two of a system have the same shape.
    by_shape = {value.shape: value for value in x.values()}
    inputs = run.get_input_details()
    return run(**{name: by_shape[tuple(inputs[name]["shape"])] for name in inputs})


@pytest.mark.parametrize(
    "make, format, run",
    [
        *((make, "litert", run_litert) for make in (localizer, overfeat, pose_regressor, yolo)),
        *((make, "onnx", run_onnx) for make in (localizer, overfeat, pose_regressor, yolo)),
        *((make, "onnx", run_onnx) for make in (fast_rcnn, faster_rcnn)),
    ],
)
def test_exported_file_agrees(make, format, run, tmp_path):
    pytest.importorskip("tf2onnx")
    model, x = make()
    specs = {k: keras.InputSpec("float32", v.shape, name=k) for k, v in x.items()}
    as_input = isinstance(model.input, dict)
    expected = model(x if as_input else x["images"], training=False)
    signature = [specs if as_input else specs["images"]]
    path = tmp_path / f"system.{'onnx' if format == 'onnx' else 'tflite'}"
    model.export(path, format=format, input_signature=signature, verbose=False)
    actual = run(path, x)
    for key in model.detections:
        desired = ops.convert_to_numpy(expected[key])
        np.testing.assert_allclose(actual[key], desired, rtol=1e-3, atol=1e-3, err_msg=key)
