import random
from urllib.error import URLError

import keras
import numpy as np
import pytest
from keras import layers, ops

from cvlib.models import backbone
from cvlib.models.backbone import folded, freeze

STRIDES = (2, 4, 8, 16, 32)


@pytest.mark.parametrize("name", ["tiny", "mobilenet", "vgg16", "resnet50"])
def test_maps_have_their_strides_and_odd_sizes_are_padded(name):
    network = backbone(name, alpha=0.25)
    shapes = network.compute_output_shape((2, 100, 240, 3))
    assert [shapes[f"stride{s}"][1:3] for s in STRIDES] == [(128 // s, 256 // s) for s in STRIDES]


def test_shapes_of_a_call():
    image = np.zeros((2, 40, 70, 3), "uint8")
    maps = backbone("tiny")(image)
    assert maps["stride32"].shape == (2, 2, 3, 128)
    assert maps["stride2"].shape == (2, 32, 48, 16)


def test_normalisation_of_vgg_is_caffes():
    """The first convolution of VGG sees BGR less the mean of ImageNet."""
    network = backbone("vgg16")
    normalised = network.get_layer("normalise").output
    seen = type(network)(network.input, normalised)(np.full((1, 32, 32, 3), [10, 20, 30], "uint8"))
    expected = [30 - 103.939, 20 - 116.779, 10 - 123.68]
    np.testing.assert_allclose(ops.convert_to_numpy(seen)[0, 0, 0], expected, rtol=1e-5)


def test_freezing_up_to_a_map():
    trunk = backbone("tiny")
    names = [layer.name for layer in freeze(trunk, "stride4")]
    assert names[0] == "stride8_conv1" and names[-1] == "stride32_conv2_relu"
    assert [layer.name for layer in trunk.layers if layer.trainable] == names
    assert freeze(trunk) == trunk.layers and all(layer.trainable for layer in trunk.layers)
    with pytest.raises(ValueError, match="`frozen_to` is one of stride2, .*, not 'stride3'"):
        freeze(backbone("tiny"), "stride3")


def test_weights_from_a_path(tmp_path):
    network = backbone("tiny")
    network.save_weights(tmp_path / "tiny.weights.h5")
    again = backbone("tiny", weights=tmp_path / "tiny.weights.h5")
    for a, b in zip(network.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_imagenet_weights_classify(real_data):
    """The trunk feeds its own ImageNet top: the weights and the normalisation belong together.

    The top's global average and 1x1 convolution are written out here in NumPy.
    """
    import h5py

    from cvlib.data import load

    weights = real_data / "weights"
    network = backbone("mobilenet", weights / "mobilenet_v1_075_notop.weights.h5", alpha=0.75)
    with h5py.File(weights / "mobilenet_v1_075_top.weights.h5") as file:
        top = [v for k, v in file["layers"].items() if k.startswith("conv2d")]
        kernel, bias = next(
            (np.array(v["vars/0"])[0, 0], np.array(v["vars/1"])) for v in top if "1" in v["vars"]
        )
    dataset = load(f"coco:{real_data / 'tiny_imagenet20'}", "val", on_error="skip")
    chosen = [s for s in dataset[:200] if set(s["labels"]) <= IMAGENET.keys() and len(s["labels"])]
    images = np.stack([np.kron(s["image"], np.ones((2, 2, 1), "uint8")) for s in chosen])
    features = ops.convert_to_numpy(network.predict(images, verbose=0)["stride32"])
    predicted = np.argmax(features.mean(axis=(1, 2)) @ kernel + bias, axis=-1)
    right = [p == IMAGENET[int(s["labels"][0])] for p, s in zip(predicted, chosen, strict=True)]
    assert np.mean(right) > 0.3  # of a thousand classes, on photographs enlarged from 64 x 64


# Classes of tiny_imagenet20 by their index among ImageNet's thousand.
IMAGENET = {0: 1, 1: 207, 2: 281, 3: 291, 4: 294, 5: 301, 6: 323, 7: 386, 8: 145, 9: 365}


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"name": "alexnet"}, "No backbone is called 'alexnet'"),
        ({"name": "tiny", "weights": "imagenet"}, "tiny has no weights 'imagenet'"),
        ({"name": "mobilenet", "weights": "missing.h5"}, "mobilenet has no weights 'missing.h5'"),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        backbone(**arguments)


def test_without_internet_one_sentence_says_what_to_do(monkeypatch, tmp_path):
    def unreachable(*args):
        raise URLError("Name or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(OSError, match="of mobilenet could not be downloaded.*'tiny'") as raised:
        backbone("mobilenet", "imagenet")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["tiny", "mobilenet", "resnet50"])
def test_folded_networks_have_no_normalisation_and_see_the_same(name):
    trunk = backbone(name, alpha=0.25)
    rng = np.random.default_rng(0)
    for layer in trunk.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    # Inside of another, and read twice.
    image = keras.Input((64, 96, 3))
    model = keras.Model(image, trunk(image)["stride8"] + trunk(255 - image)["stride8"])
    before = folded(model)
    assert not any("normalization" in w.path or "_bn/" in w.path for w in before.weights)
    x = rng.uniform(0, 255, (2, 64, 96, 3)).astype("float32")
    expected, found = (ops.convert_to_numpy(m(x, training=False)) for m in (model, before))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def inner_model_reads_it(x):
    inner = keras.Input(x.shape[1:])
    return layers.BatchNormalization()(x) + keras.Model(inner, 2 * inner)(x)


class WithActivation(layers.BatchNormalization):
    def call(self, inputs, **kwargs):
        return ops.relu(super().call(inputs, **kwargs))


@pytest.mark.parametrize(
    "after",
    [
        lambda x: layers.BatchNormalization()(x) + x,
        inner_model_reads_it,
        lambda x: layers.BatchNormalization(axis=1)(x),
        lambda x: WithActivation()(x),
        lambda x: keras.Sequential([layers.BatchNormalization()])(x),
    ],
    ids=["read twice", "read by a model", "other axis", "subclass", "sequential"],
)
def test_what_cannot_be_folded_stays(after):
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, after(layers.Conv2D(4, 3, padding="same")(image)))
    assert folded(model) is model


def test_folding_depthwise_convolutions_with_biases_and_half_precision():
    image = keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, dtype="mixed_bfloat16")(image)
    x = layers.BatchNormalization(scale=False, center=False, dtype="mixed_bfloat16")(x)
    model = keras.Model(image, x)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    state = random.getstate()
    small = folded(model)
    assert random.getstate() == state and len(small.weights) == 2
    given = rng.uniform(size=(1, 8, 8, 3)).astype("float32")
    found, expected = small(given, training=False), model(given, training=False)
    assert found.dtype == expected.dtype
    found, expected = (ops.convert_to_numpy(ops.cast(y, "float32")) for y in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.05)
