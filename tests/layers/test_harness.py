"""The harness must fail on each way in which a layer can break a promise."""

import keras
import numpy as np
import pytest
from keras import ops

from .harness import run_layer_test


@keras.saving.register_keras_serializable(package="tests")
class Scaled(keras.layers.Layer):
    """`power` applied to the inputs, times a weight per channel: keeps every promise."""

    def __init__(self, power=1, **kwargs):
        super().__init__(**kwargs)
        self.power = power

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

    def call(self, inputs):
        return inputs**self.power * self.scale

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "power": self.power}


@keras.saving.register_keras_serializable(package="tests")
class WrongOutputShape(Scaled):
    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 1)


@keras.saving.register_keras_serializable(package="tests")
class ShapeOfOneSize(Scaled):
    def call(self, inputs):
        return super().call(inputs)[:, :3]

    def compute_output_shape(self, input_shape):
        return (None, 3, *input_shape[2:])


@keras.saving.register_keras_serializable(package="tests")
class ForgottenArgument(Scaled):
    def get_config(self):
        config = super().get_config()
        del config["power"]
        return config


@keras.saving.register_keras_serializable(package="tests")
class IgnoredArgument(Scaled):
    def get_config(self):
        return {**super().get_config(), "power": 1}


@keras.saving.register_keras_serializable(package="tests")
class MixedBatch(Scaled):
    def call(self, inputs):
        return super().call(inputs - ops.mean(inputs, axis=0, keepdims=True))


@keras.saving.register_keras_serializable(package="tests")
class StoppedInputGradient(Scaled):
    def call(self, inputs):
        return super().call(ops.stop_gradient(inputs))


@keras.saving.register_keras_serializable(package="tests")
class StoppedWeightGradient(Scaled):
    def call(self, inputs):
        return inputs**self.power * ops.stop_gradient(self.scale)


@keras.saving.register_keras_serializable(package="tests")
class HalfGradient(Scaled):
    def call(self, inputs):
        return super().call((inputs + ops.stop_gradient(inputs)) / 2)


@keras.saving.register_keras_serializable(package="tests")
class AlwaysFloat32(Scaled):
    def call(self, inputs):
        return ops.cast(super().call(inputs), "float32")


@keras.saving.register_keras_serializable(package="tests")
class UndeclaredDtype(Scaled):
    def call(self, inputs):
        return ops.cast(super().call(inputs), "int32")


@keras.saving.register_keras_serializable(package="tests")
class ForgottenState(Scaled):
    """A state that is not a weight does not come back from a file."""

    def build(self, input_shape):
        super().build(input_shape)
        self.offset = float(np.random.default_rng().random())

    def call(self, inputs):
        return super().call(inputs) + self.offset


@keras.saving.register_keras_serializable(package="tests")
class EagerOnly(Scaled):
    def call(self, inputs):
        return super().call(inputs) * ops.convert_to_numpy(inputs).std() ** 0


@keras.saving.register_keras_serializable(package="tests")
class NotANumberInTraining(Scaled):
    def call(self, inputs, training=False):
        outputs = super().call(inputs)
        return outputs / 0.0 if training else outputs


def squares(inputs, weights):
    return inputs**2 * weights[0]


def run(layer_class, reference=None, **kwargs):
    inputs = np.random.default_rng(0).standard_normal((2, 4, 3)).astype("float32")
    run_layer_test(layer_class, {"power": 2}, inputs, reference, **kwargs)


def test_layer_that_keeps_its_promises():
    run(Scaled, squares)


@pytest.mark.parametrize(
    ("layer_class", "message"),
    [
        (WrongOutputShape, "symbolic output: shape"),
        (ShapeOfOneSize, "compute_output_shape gives"),
        (ForgottenArgument, "get_config misses"),
        (IgnoredArgument, "made from the config"),
        (MixedBatch, "one by one"),
        (StoppedInputGradient, "gradient of input 0"),
        (StoppedWeightGradient, "gradient of .*scale"),
        (HalfGradient, "gradient of input 0"),
        (AlwaysFloat32, "under mixed_bfloat16: output"),
        (UndeclaredDtype, "symbolic output: dtype"),
        (ForgottenState, "made from the config"),
        (NotANumberInTraining, "training step gives nan"),
    ],
)
def test_broken_promise(layer_class, message):
    with pytest.raises(AssertionError, match=message):
        run(layer_class)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch runs eagerly")
def test_layer_that_cannot_be_compiled():
    with pytest.raises(AssertionError, match="does not run compiled"):
        run(EagerOnly)


def test_wrong_output():
    with pytest.raises(AssertionError, match="against the reference"):
        run(Scaled, lambda inputs, weights: squares(inputs, weights) + 1e-3)


@keras.saving.register_keras_serializable(package="tests")
class Shifted(keras.layers.Layer):
    """Moves `boxes` by the mean of `features`; `autocast=False` keeps coordinates exact."""

    def __init__(self, autocast=False, **kwargs):
        super().__init__(autocast=autocast, **kwargs)

    def call(self, features, boxes):
        shift = ops.mean(ops.cast(features, "float32"), axis=(1, 2))
        boxes = ops.cast(boxes, "float32") + shift[:, None, None]
        return {"boxes": boxes, "features": ops.cast(features, self.compute_dtype)}

    def compute_output_shape(self, features_shape, boxes_shape):
        return {"boxes": boxes_shape, "features": features_shape}

    def compute_output_spec(self, features, boxes):
        return {
            "boxes": keras.KerasTensor(boxes.shape, "float32"),
            "features": keras.KerasTensor(features.shape, self.compute_dtype),
        }

    def get_config(self):
        return {**super().get_config(), "autocast": self.autocast}


def run_shifted(**kwargs):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 4, 3)).astype("float32")
    boxes = np.float32(301.7) + rng.random((2, 5, 4)).astype("float32")
    inputs = {"features": features, "boxes": boxes}
    run_layer_test(Shifted, inputs=inputs, float32=("boxes",), **kwargs)


def test_coordinates_stay_in_float32():
    def reference(features, boxes):
        return {"boxes": boxes + features.mean((1, 2))[:, None, None], "features": features}

    run_shifted(init_kwargs={"autocast": False}, reference=reference)


def test_coordinates_that_are_cast():
    with pytest.raises(AssertionError, match="under mixed_bfloat16: output .*boxes"):
        run_shifted(init_kwargs={"autocast": True})
