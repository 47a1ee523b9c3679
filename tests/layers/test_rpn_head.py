import numpy as np
import pytest

from cvlib.layers import RPNHead

from .harness import run_layer_test


def head_naively(features, weights):
    kernel, bias, *last = weights
    batch, height, width, _ = features.shape
    padded = np.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
    seen = np.zeros((batch, height, width, len(bias)))
    for b, i, j in np.ndindex(batch, height, width):
        window = padded[b, i : i + 3, j : j + 3]
        seen[b, i, j] = np.maximum(np.tensordot(window, kernel, 3) + bias, 0)
    objectness, deltas = (seen @ kernel[0, 0] + bias for kernel, bias in (last[:2], last[2:]))
    return {"objectness": objectness, "deltas": deltas}


def test_layer():
    features = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype("float32")
    run_layer_test(RPNHead, {"channels": 6, "anchors_per_location": 2}, features, head_naively)


def test_weights_begin_small():
    head = RPNHead()
    head.build((None, None, None, 256))
    for kernel in head.weights[::2]:
        assert np.std(kernel) == pytest.approx(0.01, rel=0.05)
    assert [w.shape[-1] for w in head.weights[::2]] == [512, 18, 36]
