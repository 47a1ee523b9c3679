import keras
import numpy as np
import pytest
from keras import ops

from cvlib.layers import MaskPooling, RPNHead, SkipFusion

from .harness import run_layer_test


def inputs(mask=(6, 4)):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 3, 4, 6, 2)).astype("float32")
    return {"features": features, "masks": rng.random((2, 3, *mask)).astype("float32")}


def resampled(mask, height, width):
    """A mask (M, N) at the centres of `height` x `width` equal cells."""
    result = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        y = np.clip((i + 0.5) * mask.shape[0] / height - 0.5, 0, mask.shape[0] - 1)
        x = np.clip((j + 0.5) * mask.shape[1] / width - 0.5, 0, mask.shape[1] - 1)
        for m, n in np.ndindex(mask.shape):
            weight = max(0, 1 - abs(y - m)) * max(0, 1 - abs(x - n))
            result[i, j] += weight * mask[m, n]
    return result


def pooled_naively(size):
    def pool(features, masks=None):
        batch, regions, h, w, channels = features.shape
        result = np.zeros((batch, regions, *size, channels))
        for b, r, i, j, c in np.ndindex(result.shape):
            crop = features[b, r, :, :, c]
            if masks is not None:
                crop = crop * resampled(masks[b, r], h, w)
            tall, wide = h // size[0], w // size[1]
            part = crop[i * tall : (i + 1) * tall, j * wide : (j + 1) * wide]
            result[b, r, i, j, c] = part.max()
        return result

    return pool


def test_layer():
    run_layer_test(MaskPooling, {"size": (2, 3)}, inputs(), pooled_naively((2, 3)))


def test_without_masks():
    features = {"features": inputs()["features"]}
    run_layer_test(MaskPooling, {"size": (4, 2)}, features, pooled_naively((4, 2)))


def test_a_mask_twice_as_fine_is_averaged_and_a_coarser_one_extended():
    features = np.ones((1, 1, 4, 6, 1), "float32")
    fine = np.random.default_rng(1).random((1, 1, 8, 12)).astype("float32")
    found = ops.convert_to_numpy(MaskPooling((4, 6))(features, fine))
    means = fine.reshape(4, 2, 6, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(found[0, 0, :, :, 0], means, rtol=1e-6)
    whole = MaskPooling((4, 6))(features, np.ones((1, 1, 2, 2), "float32"))
    np.testing.assert_allclose(ops.convert_to_numpy(whole), 1, rtol=1e-6)


def test_an_empty_mask_hides_everything_and_crops_must_fit():
    features = inputs()["features"]
    nothing = MaskPooling((2, 2))(features, np.zeros((2, 3, 28, 28), "float32"))
    assert not ops.convert_to_numpy(nothing).any()
    with pytest.raises(ValueError, match="Crops of 4x6 have no .3, 3. equal parts"):
        MaskPooling((3, 3))(features)


def test_maps_are_channels_last_whatever_keras_is_set_to():
    features = inputs()["features"]
    expected = ops.convert_to_numpy(MaskPooling((2, 3))(features))
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        found = ops.convert_to_numpy(MaskPooling((2, 3))(features))
        fused = SkipFusion(2)(np.zeros((1, 2, 3, 5), "float32"), np.ones((1, 4, 6, 7), "float32"))
        head = RPNHead(8, 3)(np.ones((1, 4, 6, 7), "float32"))
    finally:
        keras.config.set_image_data_format(before)
    np.testing.assert_array_equal(found, expected)
    assert fused.shape == (1, 4, 6, 5)
    assert {tuple(x.shape[:3]) for x in keras.tree.flatten(head)} == {(1, 4, 6)}
