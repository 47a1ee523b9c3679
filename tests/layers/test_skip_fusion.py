import numpy as np
from keras import ops

from cvlib.layers import BilinearUpsampling, SkipFusion

from .harness import run_layer_test
from .test_bilinear_upsampling import noise, upsampled_naively


def by_shape(weights):
    """Filters (k, k, C), the score's kernel (1, 1, D, C) and its bias (C,)."""
    return sorted(weights, key=lambda w: (w.ndim != 3, -w.ndim))


def test_layer():
    def reference(scores, features, weights):
        filters, kernel, bias = by_shape(weights)
        upsampled = upsampled_naively(scores, 2, [filters], features.shape[1:3])
        return upsampled + 0.25 * features @ kernel[0, 0] + bias

    run_layer_test(
        SkipFusion,
        {"factor": 2, "scale": 0.25},
        {"scores": noise(2, 3, 4, 2), "features": noise(2, 5, 8, 3, seed=1)},
        reference,
    )


def test_begins_as_the_coarse_scores():
    scores, features = noise(2, 3, 3, 2), noise(2, 12, 11, 5)
    fusion = SkipFusion(4)
    found = ops.convert_to_numpy(fusion(scores, features))
    upsampled = BilinearUpsampling(4)(scores, features)
    np.testing.assert_array_equal(found, ops.convert_to_numpy(upsampled))
    assert len(fusion.trainable_weights) == 3


def test_fixed_upsampling_is_not_learned():
    fusion = SkipFusion(learned=False)
    fusion(noise(1, 2, 2, 2), noise(1, 4, 4, 3))
    assert [w.name for w in fusion.trainable_weights] == ["kernel", "bias"]
    assert fusion.trainable_weights[0].shape == (1, 1, 3, 2)
    fusion.trainable = False
    fusion.trainable = True
    assert len(fusion.trainable_weights) == 2
