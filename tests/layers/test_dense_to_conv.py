import keras
import numpy as np
import pytest
from keras import layers

from cvlib.layers import DenseToConv, dense_to_conv

from .harness import run_layer_test


def images(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def randomized(model):
    """`model` with weights that leave no bias and no moving average at its initial value."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(weight + 0.1 * np.abs(rng.standard_normal(weight.shape)))
    return model


def dense_at_every_window(inputs, weights, size):
    kernel, bias = weights
    (h, w), units = size, len(bias)
    batch, height, width, _ = inputs.shape
    outputs = np.zeros((batch, height - h + 1, width - w + 1, units), "float32")
    for b in range(batch):
        for i in range(height - h + 1):
            for j in range(width - w + 1):
                flat = inputs[b, i : i + h, j : j + w].ravel()
                outputs[b, i, j] = np.maximum(0, flat @ kernel.reshape(-1, units) + bias)
    return outputs


def test_layer():
    run_layer_test(
        DenseToConv,
        {"units": 3, "kernel_size": (2, 3), "activation": "relu"},
        images(2, 4, 4, 2),
        lambda inputs, weights: dense_at_every_window(inputs, weights, (2, 3)),
    )


def test_from_dense():
    dense = layers.Dense(5, activation="relu", name="fc6")
    maps = images(2, 3, 4, 6)
    expected = keras.ops.convert_to_numpy(dense(maps.reshape(2, -1)))
    layer = DenseToConv.from_dense(dense, (3, 4))
    assert layer.name == "fc6"
    assert layer.kernel_size == (3, 4)
    actual = keras.ops.convert_to_numpy(layer(maps))[:, 0, 0]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def valid_body(inputs):
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    x = layers.BatchNormalization()(layers.MaxPooling2D(2)(x))
    return layers.Conv2D(6, 3, activation="relu")(x)


def flatten_tail(inputs):
    x = layers.Dropout(0.5)(layers.Flatten()(valid_body(inputs)))
    x = layers.BatchNormalization()(layers.Dense(8, activation="relu")(x))
    return layers.Dense(5, activation="softmax")(x)


def pooled_tail(inputs):
    x = valid_body(inputs)
    x = [layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D(keepdims=True)(x)]
    x = layers.Concatenate(axis=1)([x[0], layers.Flatten()(x[1])])
    return layers.Softmax()(layers.Dense(5)(layers.LayerNormalization()(x)))


def convolutional_tail(inputs):
    x = layers.Reshape((1, 1, 6))(layers.GlobalAveragePooling2D()(valid_body(inputs)))
    return layers.Activation("softmax")(layers.Reshape((5,))(layers.Conv2D(5, 1)(x)))


def two_heads(inputs):
    x = layers.Dense(8, activation="relu")(layers.Flatten()(valid_body(inputs)))
    return {"label": layers.Dense(5, activation="softmax")(x), "box": layers.Dense(4)(x)}


def flattened_and_pooled(inputs):
    x = valid_body(inputs)
    hidden = layers.Dense(5)(layers.Dense(8, activation="relu")(layers.Flatten()(x)))
    return layers.Add()([hidden, layers.Dense(5)(layers.GlobalAveragePooling2D()(x))])


def nested(inputs):
    body = keras.Model(inner := keras.Input((14, 17, 3)), valid_body(inner))
    head = keras.Sequential([layers.Flatten(), layers.Dense(8, activation="relu"), layers.Dense(5)])
    return head(body(inputs))


def shared_dense(inputs):
    x, dense = layers.Flatten()(valid_body(inputs)), layers.Dense(6)
    hidden = layers.Dense(6)(x)
    return layers.Add()([dense(hidden), dense(layers.ReLU()(hidden))])


TAILS = [
    flatten_tail,
    pooled_tail,
    convolutional_tail,
    two_heads,
    flattened_and_pooled,
    nested,
    shared_dense,
]


@pytest.mark.parametrize("tail", TAILS)
def test_every_window_of_a_larger_image(tail):
    inputs = keras.Input((14, 17, 3))
    model = randomized(keras.Model(inputs, tail(inputs)))
    converted = dense_to_conv(model)
    large = images(2, 20, 21, 3)
    maps = converted.predict(large, verbose=0)
    for i in range(4):
        for j in range(3):
            window = large[:, 2 * i : 2 * i + 14, 2 * j : 2 * j + 17]
            expected = model.predict_on_batch(window)
            actual = keras.tree.map_structure(lambda x, i=i, j=j: x[:, i, j], maps)
            for a, e in zip(keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True):
                np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5, err_msg=f"window {i}, {j}")
    assert [x.shape[1:3] for x in keras.tree.flatten(maps)] == [(4, 3)] * len(model.outputs)


@pytest.mark.slow
def test_equal_at_the_training_size_with_padding_and_pooled_tail():
    model = randomized(
        keras.applications.MobileNet(
            weights=None, alpha=0.25, input_shape=(96, 96, 3), classes=10, dropout=0.1
        )
    )
    converted = dense_to_conv(model)
    batch = images(2, 96, 96, 3)
    maps = converted.predict(batch, verbose=0)
    assert maps.shape == (2, 1, 1, 10)
    np.testing.assert_allclose(maps[:, 0, 0], model.predict(batch, verbose=0), atol=1e-4)
    assert converted.compute_output_shape((1, 160, 128, 3)) == (1, 3, 2, 10)


def test_sequential_model_survives_saving_and_keeps_its_weights_apart(tmp_path):
    model = keras.Sequential(
        [keras.Input((6, 6, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(5, name="fc")]
    )
    converted = dense_to_conv(model)
    converted.save(tmp_path / "fully_convolutional.keras")
    restored = keras.saving.load_model(tmp_path / "fully_convolutional.keras")
    batch = images(2, 9, 7, 3)
    before = converted.predict(batch, verbose=0)
    np.testing.assert_allclose(restored.predict(batch, verbose=0), before, atol=1e-6)
    model.get_layer("fc").kernel.assign(np.zeros((64, 5)))
    np.testing.assert_array_equal(converted.predict(batch, verbose=0), before)


def test_frozen_layers_stay_frozen():
    inputs = keras.Input((14, 17, 3))
    model = keras.Model(inputs, nested(inputs))
    model.layers[1].trainable = False
    converted = dense_to_conv(model)
    assert len(converted.trainable_weights) == len(model.trainable_weights) == 4


def to_sequence(x):
    return layers.Dense(2)(layers.LSTM(4)(layers.Reshape((-1, 6), name="rows")(x)))


def to_boxes(x):
    return layers.Reshape((2, 4), name="boxes")(layers.Dense(8)(layers.Flatten()(x)))


def unread_flatten(x):
    return layers.Flatten(name="flat")(x)


def softmax_of_flattened(x):
    return layers.Dense(2)(layers.Softmax(name="attention")(layers.Flatten()(x)))


def squeeze_and_excite(x):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Dense(2)(layers.Flatten()(layers.Multiply(name="gate")([x, gate])))


def normalized_rows(x):
    return layers.Dense(2)(layers.Flatten()(layers.LayerNormalization((1, 2), name="rows")(x)))


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (to_sequence, r"'rows' \(Reshape\).*turns a map into shape \(8, 6\)"),
        (to_boxes, r"'boxes' \(Reshape\).*no counterpart"),
        (unread_flatten, r"'flat' \(Flatten\).*no Dense layer reads"),
        (softmax_of_flattened, r"'attention' \(Softmax\).*not a Dense layer"),
        (squeeze_and_excite, r"'gate' \(Multiply\).*mixes maps with flattened or pooled"),
        (normalized_rows, r"'rows' \(LayerNormalization\).*unknown size"),
    ],
)
def test_model_that_cannot_be_converted(tail, message):
    inputs = keras.Input((10, 8, 3))
    model = keras.Model(inputs, tail(layers.Conv2D(6, 3, strides=2)(inputs)[:, :, :2]))
    with pytest.raises(ValueError, match=message):
        dense_to_conv(model)


def test_model_of_unknown_size():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(inputs))
    with pytest.raises(ValueError, match=r"'pool'.*size of the map it pools is unknown"):
        dense_to_conv(model)


def test_input_that_is_no_image():
    with pytest.raises(ValueError, match=r"Input 'age' of shape \(2,\) is no image"):
        inputs = keras.Input((2,), name="age")
        dense_to_conv(keras.Model(inputs, layers.Dense(1)(inputs)))


def test_model_that_is_not_built():
    with pytest.raises(ValueError, match="neither functional nor a built Sequential"):
        dense_to_conv(keras.Sequential([layers.Dense(1)]))


def test_a_window_moves_by_one_cell():
    with pytest.raises(TypeError, match="strides"):
        DenseToConv(3, strides=2)
