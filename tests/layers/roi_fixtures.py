"""The frozen outputs and gradients of torchvision's operators, beside what a layer gives."""

import json
from pathlib import Path

import numpy as np

from .harness import _gradients

FIXTURES = json.loads(Path(__file__).with_name("fixtures").joinpath("roi.json").read_text())


def names(operator):
    return [name for name in FIXTURES["cases"] if name.startswith(operator)]


def check(name, layer_class, **config):
    """Values to 1e-5 and gradients to 1e-4 of the case `name`."""
    case = FIXTURES["cases"][name]
    layer = layer_class(case["size"], FIXTURES["stride"], **config)
    inputs = {key: np.float32(FIXTURES[key]) for key in ("boxes", "features")}
    np.testing.assert_allclose(layer(**inputs), np.float32(case["values"]), rtol=0, atol=1e-5)
    gradient, *_ = _gradients(layer, inputs, [1], [np.float32(case["upstream"])])
    np.testing.assert_allclose(gradient, case["gradient"], rtol=0, atol=1e-4)
