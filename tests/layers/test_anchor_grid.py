import keras
import numpy as np
from keras import ops

from cvlib.layers import AnchorGrid, RPNHead

from .harness import run_layer_test

# Nine anchors as the paper's code lists them (generate_anchors.py of py-faster-rcnn: base 16,
# ratios 0.5, 1 and 2, scales 8, 16 and 32): first and last pixel, counted from 1.
PAPER = [
    [-83, -39, 100, 56],
    [-175, -87, 192, 104],
    [-359, -183, 376, 200],
    [-55, -55, 72, 72],
    [-119, -119, 136, 136],
    [-247, -247, 264, 264],
    [-35, -79, 52, 96],
    [-79, -167, 96, 184],
    [-167, -343, 184, 360],
]


def anchors_naively(sizes, ratios, stride):
    def anchors(features):
        result = []
        for i, j in np.ndindex(features.shape[1:3]):
            for ratio in ratios:
                for size in sizes:
                    width, height = size / np.sqrt(ratio), size * np.sqrt(ratio)
                    x, y = (j + 0.5) * stride, (i + 0.5) * stride
                    left, top = x - width / 2, y - height / 2
                    result.append([left, top, left + width, top + height])
        return np.array(result)

    return anchors


def test_layer():
    arguments = {"sizes": (301.7, 24), "ratios": (0.5, 1.7, 2), "stride": 8}
    run_layer_test(
        AnchorGrid,
        arguments,
        np.zeros((2, 3, 4, 5), "float32"),
        anchors_naively(**arguments),
        float32=("output",),
        differentiable=(),
        batched=False,
    )


def test_the_papers_anchors_but_for_their_rounding():
    # Pixels p to q counted from 1 are p - 1 to q in continuous coordinates.
    paper = np.float32(PAPER) - [1, 1, 0, 0]
    ours = ops.convert_to_numpy(AnchorGrid()(np.zeros((1, 1, 1, 1), "float32")))
    # Trap 4: the same order; both have their centre in the middle of the cell.
    for boxes in (paper, ours):
        np.testing.assert_allclose((boxes[:, :2] + boxes[:, 2:]) / 2, 8, atol=1e-4)
    sides, rounded = (boxes[:, 2:] - boxes[:, :2] for boxes in (ours, paper))
    # Theirs are rounded at the base of 16 pixels, and then multiplied by the scale.
    for n, (ratio, scale) in enumerate((r, s) for r in (0.5, 1, 2) for s in (8, 16, 32)):
        width = np.round(np.sqrt(16 * 16 / ratio))
        np.testing.assert_array_equal(
            rounded[n], scale * np.array([width, np.round(width * ratio)])
        )
        exact = 16 * scale / np.sqrt(ratio)
        np.testing.assert_allclose(sides[n], [exact, exact * ratio], rtol=1e-5)
    np.testing.assert_allclose(sides, rounded, rtol=0.06)


def test_numbers_of_a_head_belong_to_the_anchors_of_their_cell():
    # Trap 4: a head whose only large number is that of cell (1, 2), anchor 4.
    layer = AnchorGrid(sizes=(32, 64), ratios=(0.5, 1, 2), stride=16)
    scores = np.zeros((1, 3, 4, 6), "float32")
    scores[0, 1, 2, 4] = 1
    anchors = ops.convert_to_numpy(layer(np.zeros((1, 3, 4, 8), "float32")))
    left, top, right, bottom = anchors[scores.ravel().argmax()]
    assert ((left + right) / 2, (top + bottom) / 2) == (2.5 * 16, 1.5 * 16)
    # The fifth of a cell: the first size of the last ratio.
    np.testing.assert_allclose([right - left, bottom - top], [32 / 2**0.5, 32 * 2**0.5], rtol=1e-5)


def test_maps_of_unknown_size():
    features = keras.Input((None, None, 2))
    model = keras.Model(features, [AnchorGrid(stride=4)(features), RPNHead(4)(features)["deltas"]])
    assert model.output_shape == [(None, 4), (None, None, None, 36)]
    anchors, deltas = model(np.zeros((1, 5, 3, 2), "float32"))
    assert anchors.shape == (5 * 3 * 9, 4) and deltas.shape == (1, 5, 3, 36)
