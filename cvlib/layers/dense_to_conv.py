"""Fully connected tails as convolutions: a classifier of one size becomes a sliding window.

A Dense layer that reads a flattened h x w map is a convolution with an h x w kernel that fits at
one position; every further Dense layer is a 1 x 1 convolution; global pooling is pooling of an
h x w window. On a larger image the same network then gives one output per window, and windows
share what they have in common (Sermanet et al., OverFeat, 2013, section 3.5; Long et al., Fully
Convolutional Networks, 2015, section 3.1).
"""

from functools import partial

import keras
from keras import layers, ops, tree


@keras.saving.register_keras_serializable(package="cvlib")
class DenseToConv(layers.Conv2D):
    """A Dense layer slid over a map: a valid convolution whose kernel is the layer's whole input.

    Args:
        units: outputs per window, as in Dense.
        kernel_size: (h, w) of the map that the Dense layer reads flattened; (1, 1) for a Dense
            layer that reads a vector.
        activation: applied over the channels of each window.
        use_bias: whether to add a bias.
        **kwargs: initializers, regularizers, constraints, as in Conv2D.

    Call arguments:
        inputs: (B, H, W, C) floats, H >= h and W >= w.

    Returns:
        (B, H - h + 1, W - w + 1, units).
    """

    def __init__(self, units, kernel_size=(1, 1), activation=None, use_bias=True, **kwargs):
        super().__init__(
            units,
            kernel_size,
            strides=1,
            padding="valid",
            data_format="channels_last",
            activation=activation,
            use_bias=use_bias,
            **kwargs,
        )

    @classmethod
    def from_dense(cls, dense, spatial_shape=(1, 1)):
        """The convolution that does what `dense` does to flattened maps of (h, w) `spatial_shape`.

        It is built, with a copy of the weights of `dense`.
        """
        config = dense.get_config()
        config.pop("quantization_config", None)
        layer = cls.from_config({**config, "kernel_size": tuple(spatial_shape)})
        kernel, *bias = dense.get_weights()
        kernel = kernel.reshape(*spatial_shape, -1, dense.units)
        layer.build((None, None, None, kernel.shape[2]))
        layer.set_weights([kernel, *bias])
        return layer

    def convolution_op(self, inputs, kernel):
        # One product of matrices, as in the Dense layer: on a CPU a convolution rearranges its
        # kernel at each call, which for one as large as a map takes longer than the rest.
        (h, w), (height, width, channels) = self.kernel_size, ops.shape(inputs)[1:]
        columns = ops.arange(width - w + 1)[:, None] + ops.arange(w)
        rows = ops.arange(height - h + 1)[:, None] + ops.arange(h)
        cells = rows[:, None, :, None] * width + columns[:, None, :]
        windows = ops.take(ops.reshape(inputs, (-1, height * width, channels)), cells, axis=1)
        windows = ops.reshape(windows, (-1, height - h + 1, width - w + 1, h * w * channels))
        return ops.einsum("bijk,ku->biju", windows, ops.reshape(kernel, (-1, self.filters)))

    def get_config(self):
        config = super().get_config()
        config["units"] = config.pop("filters")
        for name in ("strides", "padding", "data_format", "dilation_rate", "groups"):
            del config[name]
        return config


_POOLING = {
    layers.GlobalAveragePooling2D: layers.AveragePooling2D,
    layers.GlobalMaxPooling2D: layers.MaxPooling2D,
}
# Between Flatten and its Dense layer only what acts on each element alone can stay.
_ELEMENTWISE = (layers.Dropout, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Identity)
_PER_POSITION = (
    *_ELEMENTWISE,
    layers.Activation,
    layers.Softmax,
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.Add,
    layers.Average,
    layers.Maximum,
    layers.Multiply,
    layers.Subtract,
    layers.Concatenate,
)


def dense_to_conv(model):
    """The fully convolutional form of a classifier or regressor of one image size.

    At the size of `model` the result gives the same numbers, as a 1 x 1 map. On a larger image it
    gives the outputs of `model` for every window at multiples of the network's stride: exactly so
    where all convolutions and poolings are valid; with "same" padding a window sees its
    neighbours where `model` saw zeros. Softmax stays over the channels of each window.

    Nested models are inlined and layers keep their names. All weights are copies: training one
    of the two models leaves the other as it is.

    Args:
        model: a functional or built `Sequential` model, channels last, of inputs (B, H, W, C). Its
            tails may hold Flatten, global pooling, Dense, 1 x 1 Conv2D, Reshape from (C,) to
            (1, 1, C) and back, activations, normalization over the channels, and merges.

    Returns:
        A functional model of inputs (B, H', W', C), any H' >= H and W' >= W, with the outputs of
        `model` in the same structure, each (B, rows, columns, units).

    Raises:
        ValueError: `model` has no such form; the sentence names the layer and the reason.
    """
    graph = _functional(model)
    copies = {}  # by id of the layer in `model`, so that shared layers stay shared
    # Of each tensor of the new model, by id: the tensor of `model` it stands for, and the (h, w)
    # window of the map that each of its positions stands for, None while it is that map itself.
    originals, windows = {}, {}

    def convert(layer, *args, **kwargs):
        if isinstance(layer, keras.Function | keras.Sequential):
            return _functional(layer)._run_through_graph(args, call_fn=convert)
        traced = [x for x in tree.flatten((args, kwargs)) if id(x) in windows]
        window, *others = {windows[id(x)] for x in traced}
        if others:
            raise _refusal(layer, "it mixes maps with flattened or pooled ones")
        old = layer.compute_output_spec(
            *tree.map_structure(lambda x: originals.get(id(x), x), args), **kwargs
        )
        before = originals[id(traced[0])].shape[1:]
        after = tree.flatten(old)[0].shape[1:]
        if id(layer) not in copies:
            copies[id(layer)] = _convolutional(layer, window, before, after)
        copy, window = copies[id(layer)]
        try:
            outputs = copy(*args, **kwargs)
        except (TypeError, ValueError) as error:
            raise _refusal(layer, "it does not take maps of unknown size") from error
        if isinstance(layer, layers.Layer) and not isinstance(copy, DenseToConv):
            copy.set_weights(layer.get_weights())
        return tree.map_structure(partial(trace, window=window), outputs, old)

    def trace(tensor, original, window):
        originals[id(tensor)], windows[id(tensor)] = original, window
        return tensor

    def new_input(old):
        if len(old.shape) != 4:
            raise ValueError(f"Input '{old.name}' of shape {old.shape[1:]} is no image.")
        new = keras.Input((None, None, old.shape[-1]), dtype=old.dtype, name=old.name)
        return trace(new, old, None)

    inputs = tree.map_structure(new_input, graph.input)
    outputs = graph._run_through_graph(inputs, call_fn=convert)
    for old, new in zip(graph.outputs, tree.flatten(outputs), strict=True):
        if windows[id(new)] not in (None, (1, 1)):
            raise _refusal(old._keras_history.operation, "no Dense layer reads the flattened map")
    return keras.Model(inputs, outputs, name=model.name)


def _functional(model):
    """The graph of `model` over its layers; a `Sequential` model has one of its own."""
    if isinstance(model, keras.Sequential) and model.built:
        return keras.Model(model.inputs, model.outputs)
    if not isinstance(model, keras.Function):
        raise ValueError(
            f"Model '{model.name}' ({type(model).__name__}) is neither functional nor a built "
            "Sequential model, so its layers are not known."
        )
    return model


def _is_reshape(layer, window, before, after):
    """Whether `layer` only renames the axes of a window: nothing is left to do on a map."""
    if not isinstance(layer, layers.Flatten | layers.Reshape):
        return False
    if window is None:
        return len(after) == 1
    return before[-1] == after[-1] and set(before[:-1] + after[:-1]) <= {1}


def _convolutional(layer, window, before, after):
    """What takes the place of `layer` on maps, and the window of a position after it.

    `before` and `after` are the shapes that `layer` takes and gives in the original model.
    """
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise _refusal(layer, "it is not channels last")
    if _is_reshape(layer, window, before, after):
        # A layer of its own: other layers may read the same map as it is.
        identity = layers.Identity(name=layer.name, dtype=layer.dtype_policy.name)
        return identity, window or before[:2]
    if type(layer) in _POOLING and window is None:
        pooling = _POOLING[type(layer)]
        if None in before:
            raise _refusal(layer, "the size of the map it pools is unknown")
        config = {"name": layer.name, "dtype": layer.dtype_policy, "data_format": "channels_last"}
        return pooling(before[:2], strides=1, **config), (1, 1)
    if window is None:
        if len(after) != 3:
            raise _refusal(layer, f"it turns a map into shape {after}")
        return _copy(layer), None
    if isinstance(layer, layers.Dense):
        if None in window:
            raise _refusal(layer, "the size of the map it reads is unknown")
        return DenseToConv.from_dense(layer, window), (1, 1)
    if isinstance(layer, _ELEMENTWISE):
        return _copy(layer), window
    if window != (1, 1):
        raise _refusal(layer, "it reads a flattened map but is not a Dense layer")
    if isinstance(layer, layers.Conv2D) and layer.kernel_size == layer.strides == (1, 1):
        return _copy(layer), window
    if not isinstance(layer, _PER_POSITION):
        raise _refusal(layer, "it has no counterpart that acts on each position of a map")
    if not hasattr(layer, "axis"):
        return _copy(layer), window
    if layer.axis not in (-1, len(before), [-1], [len(before)]):
        raise _refusal(layer, "it does not act on the last axis")
    return _copy(layer, axis=-1), window


def _copy(layer, **changes):
    return type(layer).from_config({**layer.get_config(), **changes})


def _refusal(layer, reason):
    kind = type(layer).__name__
    return ValueError(f"Layer '{layer.name}' ({kind}) cannot become a convolution: {reason}.")
