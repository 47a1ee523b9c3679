"""The convolutional trunks that every system shares: images in, named feature maps out."""

import random
import warnings
from collections import Counter
from pathlib import Path
from urllib.error import URLError

import keras
import numpy as np
from keras import layers, ops

from cvlib.layers import PadToMultiple

# The last feature map at each stride. VGG's five poolings leave its maps one stride finer than
# those of the others: a map is taken before the pooling that would shrink it.
_MAPS = {
    "mobilenet": {
        "stride2": "conv_pw_1_relu",
        "stride4": "conv_pw_3_relu",
        "stride8": "conv_pw_5_relu",
        "stride16": "conv_pw_11_relu",
        "stride32": "conv_pw_13_relu",
    },
    "vgg16": {
        "stride2": "block2_conv2",
        "stride4": "block3_conv3",
        "stride8": "block4_conv3",
        "stride16": "block5_conv3",
        "stride32": "block5_pool",
    },
    "resnet50": {
        "stride2": "conv1_relu",
        "stride4": "conv2_block3_out",
        "stride8": "conv3_block4_out",
        "stride16": "conv4_block6_out",
        "stride32": "conv5_block3_out",
    },
}
TINY_WEIGHTS = Path(__file__).with_name("tiny_scenes.weights.h5")


def backbone(name="tiny", weights=None, alpha=1.0):
    """A trunk as a Keras model from images to feature maps.

    Images are (B, H, W, 3) in 0..255, uint8 or float, RGB, of any size; the normalisation that the
    weights were trained with is inside. Sizes that are no multiple of 32 are padded at the bottom
    and the right, so that the map at stride s has ceil(H / 32) * 32 / s rows.

    Args:
        name: `"tiny"` (nine 3x3 convolutions, for `scenes`), `"mobilenet"` (Howard et al. 2017),
            `"vgg16"` (Simonyan & Zisserman 2015) or `"resnet50"` (He et al. 2016).
        weights: None (random), `"scenes"` (tiny only, shipped), `"imagenet"` (not for tiny;
            downloads) or the path of a weights file of the same network without its top.
        alpha: MobileNet's width multiplier.

    Returns:
        A model whose output is `{"stride2": (B, H/2, W/2, C), ..., "stride32": ...}`.

    Raises:
        ValueError: the name or the weights are unknown, or the weights file does not exist.
        OSError: the weights could not be downloaded.
    """
    if name != "tiny" and name not in _MAPS:
        raise ValueError(f"No backbone is called {name!r}; there are tiny, {', '.join(_MAPS)}.")
    available = (None, "scenes") if name == "tiny" else (None, "imagenet")
    if weights not in available and not Path(weights).is_file():
        raise ValueError(
            f"{name} has no weights {weights!r}: choose {available} or an existing file."
        )

    image = keras.Input((None, None, 3), name="image")
    x = PadToMultiple(32)(_normalise(name, layers.Identity()(image)))
    if name == "tiny":
        maps = _tiny(x)
    else:
        maps = _application(name, x, weights, alpha)
    model = keras.Model(image, maps, name=name)
    if name == "tiny" and weights:
        model.load_weights(TINY_WEIGHTS if weights == "scenes" else weights)
    return model


def _normalise(name, x):
    """To [-1, 1]; or, as VGG and ResNet were trained in Caffe, to BGR less its ImageNet mean."""
    if name in ("tiny", "mobilenet"):
        return layers.Rescaling(1 / 127.5, offset=-1, name="normalise")(x)
    x = keras.ops.flip(keras.ops.cast(x, "float32"), axis=-1)
    return layers.Rescaling(1.0, offset=[-103.939, -116.779, -123.68], name="normalise")(x)


def _tiny(x):
    maps = {}
    for stride, channels, depth in [(2, 16, 1), (4, 32, 2), (8, 64, 2), (16, 96, 2), (32, 128, 2)]:
        for i in range(depth):
            name = f"stride{stride}_conv{i + 1}"
            first = 2 if i == 0 else 1
            x = layers.Conv2D(
                channels, 3, strides=first, padding="same", use_bias=False, name=name
            )(x)
            x = layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
        maps[f"stride{stride}"] = x
    return maps


def _application(name, x, weights, alpha):
    arguments = {"include_top": False, "weights": weights, "input_tensor": x}
    if name == "mobilenet":
        arguments["alpha"] = alpha
    network = {
        "mobilenet": keras.applications.MobileNet,
        "vgg16": keras.applications.VGG16,
        "resnet50": keras.applications.ResNet50,
    }[name]
    with warnings.catch_warnings():
        # Without its top MobileNet has the same weights for every size.
        warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square")
        try:
            network = network(**arguments)
        except Exception as error:
            # Keras raises a bare Exception.
            if not isinstance(error.__context__, URLError):
                raise
            raise OSError(
                f"the ImageNet weights of {name} could not be downloaded, which needs access to "
                "the internet once: give a file of them as `weights`, or choose the backbone "
                "'tiny', whose weights are part of cvlib."
            ) from error
    return {stride: network.get_layer(layer).output for stride, layer in _MAPS[name].items()}


def freeze(backbone, up_to=None):
    """Freezes the layers of a backbone up to a map, and makes the others trainable.

    R-CNN and its successors keep the first layers of a pretrained network as they are (Fast R-CNN,
    Girshick 2015, section 4.5).

    Args:
        backbone: a model from `backbone`.
        up_to: name of a map (`"stride8"`), or None to train all layers.

    Returns:
        List of the layers that are trained.

    Raises:
        ValueError: the backbone has no map of this name.
    """
    if up_to is not None and up_to not in backbone.output:
        raise ValueError(f"`frozen_to` is one of {', '.join(backbone.output)}, not {up_to!r}.")
    frozen = [] if up_to is None else keras.Model(backbone.input, backbone.output[up_to]).layers
    trained = [layer for layer in backbone.layers if layer not in frozen]
    for layer in backbone.layers:
        layer.trainable = layer in trained
    return trained


def fix_normalisation(trunk):
    """Batch normalisation stays as it is, in training too, with the means that it has learned.

    A trunk that is applied to pictures of several scales would learn means of all of them together,
    which fit none.
    """
    for layer in trunk.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False


def folded(model):
    """A copy for predictions, in which each batch normalisation is part of the convolution before.

    At prediction both are linear: the kernel takes the factor, and a bias the rest. What the copy
    gives is the same to rounding, in less time (`python -m benchmarks.kernels.region_features`).

    Args:
        model: the copy has its weights as they are now.

    Returns:
        The copy; the model itself where there is nothing to fold, or a model is not functional.
    """
    models = list(_models(model))
    if not all(isinstance(m, keras.Function) for m in models):
        return model
    parts = [part for m in models for part in m.operations]
    # What others read too must stay as it is.
    readers = Counter(id(x) for m in models for x in m.outputs)
    readers.update(id(x) for p in parts for node in p._inbound_nodes for x in node.input_tensors)
    norms, copies = {}, []
    for norm in parts:
        # Subclasses may do more.
        if type(norm) is layers.BatchNormalization and len(norm._inbound_nodes) == 1:
            before = norm.input._keras_history.operation
            alone = len(before._inbound_nodes) == 1 and readers[id(norm.input)] == 1
            if alone and type(before) in (layers.Conv2D, layers.DepthwiseConv2D):
                channels = 3 if before.data_format == "channels_last" else 1
                if before.activation is keras.activations.linear and norm.axis % 4 == channels:
                    norms[before] = norm
    if not norms:
        return model

    def copy(layer):
        if layer in norms.values():
            return layers.Identity(name=layer.name, dtype=layer.dtype_policy)
        config = layer.get_config() | ({"use_bias": True} if layer in norms else {})
        copied = type(layer).from_config(config)
        if isinstance(layer, layers.Layer):
            copies.append((layer, copied))
        return copied

    def call(layer, *args, **kwargs):
        if isinstance(layer, layers.Identity):
            kwargs.pop("mask", None)  # Batch normalisation takes one.
        return layer(*args, **kwargs)

    how = {"clone_function": copy, "call_function": call, "recursive": True}
    # The copies draw seeds, and what is built later should not depend on that.
    state = random.getstate()
    result = keras.models.clone_model(model, **how)
    random.setstate(state)
    for layer, copied in copies:
        copied.set_weights(_merged(layer, norms[layer]) if layer in norms else layer.get_weights())
    return result


def _models(model):
    """It, and the models inside of it."""
    yield model
    for inner in model.layers:
        if isinstance(inner, keras.Model):
            yield from _models(inner)


def _merged(convolution, norm):
    """The kernel and the bias of a convolution with the batch normalisation after it."""
    kernel, *bias = convolution.get_weights()
    mean, variance = (ops.convert_to_numpy(x) for x in (norm.moving_mean, norm.moving_variance))
    factor = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        factor = factor * ops.convert_to_numpy(norm.gamma)
    offset = factor * (sum(bias) - mean)
    if norm.center:
        offset = offset + ops.convert_to_numpy(norm.beta)
    depthwise = isinstance(convolution, layers.DepthwiseConv2D)
    return kernel * (factor.reshape(kernel.shape[2:]) if depthwise else factor), offset


def trunk_up_to(backbone, feature_map, frozen_to):
    """The backbone without what is deeper than a map; its layers up to `frozen_to` never train.

    Raises:
        ValueError: the backbone has no such map.
    """
    maps = backbone.output
    if feature_map not in maps:
        raise ValueError(f"`feature_map` is one of {', '.join(maps)}, not {feature_map!r}.")
    stride = map_stride(feature_map)
    kept = {name: x for name, x in maps.items() if map_stride(name) <= stride}
    trunk = keras.Model(backbone.input, kept, name=backbone.name)
    freeze(trunk, frozen_to)
    return trunk


def map_stride(name):
    """Of a backbone's map: 16 of `"stride16"`."""
    return int(name.removeprefix("stride"))
