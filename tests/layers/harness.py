"""One call that checks everything `cvlib.layers` promises about a layer."""

import inspect
import json
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import ops, tree

# Exact in float32 beside coordinates of hundreds of pixels, and above its rounding.
STEP = 2.0**-7
CHECKED = 24  # elements of each input and weight whose gradient is checked


def run_layer_test(
    layer_class,
    init_kwargs,
    inputs,
    reference=None,
    *,
    float32=(),
    differentiable=None,
    examples=None,
    batched=True,
    jit_compile=True,
    tolerance=1e-5,
    seed=0,
):
    """Checks a layer on the current backend; every failure names the layer and the promise.

    Checked are: eager against symbolic shapes and dtypes; `compute_output_shape`; a complete
    `get_config`; the `.keras` round trip in a functional model; mixed bfloat16 and float16;
    gradients of inputs and weights against finite differences; independence of the examples in
    a batch; compiled against eager; one training step; equality with `reference`. Each backend is
    held to the same NumPy reference with the same inputs and weights (drawn by NumPy, biases too),
    so that backends that pass agree with each other to twice the tolerance.

    Args:
        layer_class: the class, registered with `keras.saving.register_keras_serializable`.
        init_kwargs: its arguments; give values that are not the defaults.
        inputs: array, list of arrays (one argument), or dict of arrays (keyword arguments). Keep
            them small. Gradients allow for a kink within `STEP` of a value, as of a maximum, but
            not for a jump, as at a rounding threshold.
        reference: function called as the layer is, with `weights=layer.get_weights()` besides if
            there are any, that returns the output computed independently in NumPy.
        float32: names of the dict inputs that arrive in float32 under every policy (coordinates)
            and of the dict outputs that must leave in it; `"output"` is an output without a name.
            Give coordinates that bfloat16 cannot represent.
        differentiable: names of the dict inputs whose gradient is checked; `()` for none, None
            for all inputs of floats. Trainable weights are always checked.
        examples: how many examples `inputs` hold, where that is not the length of their first axis.
        batched: False for a layer whose output has no batch axis.
        jit_compile: False for a layer that cannot be compiled with XLA.
        tolerance: relative and absolute, for every comparison in float32.
        seed: of the weights and of the gradient check.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    name = layer_class.__name__
    layer = layer_class(**init_kwargs)
    _call(layer, inputs)
    for weight in layer.trainable_weights:
        weight.assign(0.5 * rng.standard_normal(weight.shape))
    eager = _call(layer, inputs)
    expected = _numpy(eager)

    def check(promise, actual, desired=expected, rtol=tolerance, atol=tolerance):
        tree.assert_same_structure(actual, desired)
        for (path, a), d in zip(tree.flatten_with_path(actual), tree.flatten(desired), strict=True):
            where = f"{name}: {promise}{''.join(f' [{key!r}]' for key in path)}"
            assert np.shape(a) == np.shape(d), f"{where}: shape {np.shape(a)}, not {np.shape(d)}"
            np.testing.assert_allclose(a, d, rtol, atol, err_msg=where)

    if reference is not None:
        weights = {"weights": layer.get_weights()} if layer.weights else {}
        check("output against the reference", expected, _call(reference, inputs, **weights))

    placeholders = _placeholders(inputs, batched)
    symbolic = _call(layer_class.from_config(layer.get_config()), placeholders)
    _check_specs(f"{name}: symbolic output", symbolic, eager, batched)
    _check_output_shape(layer, inputs, eager)
    _check_config(layer, check, inputs)

    if batched:
        examples = examples or len(tree.flatten(inputs)[0])
        assert examples > 1, f"{name}: give inputs with a batch of at least two examples."
        splits = [np.split(x, examples) for x in tree.flatten(inputs)]
        parts = [
            _numpy(_call(layer, tree.pack_sequence_as(inputs, list(part))))
            for part in zip(*splits, strict=True)
        ]
        one_by_one = tree.map_structure(lambda *leaves: np.concatenate(leaves), *parts)
        check("examples of a batch one by one", one_by_one)

    compiled = jit_compile and keras.backend.backend() != "torch"
    model = keras.Model(placeholders, _call(layer, placeholders))
    model.compile(jit_compile=compiled)
    try:
        outputs = model.predict_on_batch(inputs)
    except Exception as error:
        raise AssertionError(f"{name}: does not run compiled") from error
    check("compiled output", outputs)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model.keras"))
        restored = keras.saving.load_model(Path(folder, "model.keras"))
    check("output after the .keras round trip", _numpy(restored(inputs)))

    for policy in ("mixed_bfloat16", "mixed_float16"):
        _check_mixed_precision(layer, inputs, policy, float32, check, batched)

    checked = [
        i
        for i, (path, x) in enumerate(tree.flatten_with_path(inputs))
        if _is_float(x) and (differentiable is None or path[:1] and path[0] in differentiable)
    ]
    if any(map(_is_float, tree.flatten(eager))) and (checked or layer.trainable_weights):
        _check_gradients(layer, model, inputs, checked, rng)
        _check_training(layer, inputs, checked, compiled, batched)


def _call(layer, inputs, **kwargs):
    return layer(**inputs, **kwargs) if isinstance(inputs, dict) else layer(inputs, **kwargs)


def _numpy(outputs):
    return tree.map_structure(ops.convert_to_numpy, outputs)


def _dtype(x):
    return keras.backend.standardize_dtype(x.dtype)


def _is_float(x):
    return "float" in _dtype(x)


def _copy(layer, inputs, **config):
    copy = type(layer).from_config({**layer.get_config(), **config})
    _call(copy, inputs)
    copy.set_weights(layer.get_weights())
    return copy


def _placeholders(inputs, batched):
    placeholders = [
        keras.Input(
            batch_shape=(None if batched else len(x), *x.shape[1:]),
            dtype=_dtype(x),
            name="_".join(map(str, path)) or None,
        )
        for path, x in tree.flatten_with_path(inputs)
    ]
    return tree.pack_sequence_as(inputs, placeholders)


def _check_specs(where, specs, tensors, batched):
    tree.assert_same_structure(specs, tensors)
    for spec, tensor in zip(tree.flatten(specs), tree.flatten(tensors), strict=True):
        actual, desired = tuple(spec.shape), tuple(tensor.shape)
        if batched:
            actual, desired = actual[1:], desired[1:]
        assert actual == desired, f"{where}: shape {spec.shape}, but the call gives {tensor.shape}"
        assert _dtype(spec) == _dtype(tensor), (
            f"{where}: dtype {_dtype(spec)}, but the call gives {_dtype(tensor)}"
        )


def _check_output_shape(layer, inputs, outputs):
    shapes = tree.map_structure(lambda x: x.shape, inputs)
    if isinstance(inputs, dict):
        shapes = layer.compute_output_shape(**{f"{k}_shape": shape for k, shape in shapes.items()})
    else:
        shapes = layer.compute_output_shape(shapes)

    def same(tensor, shape):
        assert tuple(shape) == tuple(tensor.shape), (
            f"{type(layer).__name__}: compute_output_shape gives {tuple(shape)}, "
            f"but the call gives {tuple(tensor.shape)}"
        )

    tree.map_structure_up_to(outputs, same, outputs, shapes)


def _check_config(layer, check, inputs):
    name, config = type(layer).__name__, layer.get_config()
    arguments = inspect.signature(type(layer).__init__).parameters.values()
    named = {a.name for a in arguments if a.kind not in (a.VAR_POSITIONAL, a.VAR_KEYWORD)}
    missing = sorted(named - {"self"} - set(config))
    assert not missing, f"{name}: get_config misses {missing}"
    json.dumps(keras.saving.serialize_keras_object(layer))
    again = type(layer).from_config(config).get_config()
    assert again == config, (
        f"{name}: from_config(get_config()) has the config {again}, not {config}"
    )
    check("output of a layer made from the config", _numpy(_call(_copy(layer, inputs), inputs)))


def _check_mixed_precision(layer, inputs, policy, float32, check, batched):
    where = f"{type(layer).__name__} under {policy}"
    compute = keras.DTypePolicy(policy).compute_dtype

    def arriving(path, x):
        return ops.cast(x, compute) if _is_float(x) and not set(path[:1]) & set(float32) else x

    leaves = [arriving(path, x) for path, x in tree.flatten_with_path(inputs)]
    low = tree.pack_sequence_as(inputs, leaves)
    high = tree.map_structure(lambda x: ops.cast(x, "float32") if _is_float(x) else x, low)
    copy = _copy(layer, low, dtype=policy)
    outputs, desired = _call(copy, low), _call(layer, high)
    for (path, a), d in zip(tree.flatten_with_path(outputs), tree.flatten(desired), strict=True):
        kept = not _is_float(d) or (path[0] if path else "output") in float32
        dtype = _dtype(d) if kept else compute
        assert _dtype(a) == dtype, f"{where}: output {path} is {_dtype(a)}, not {dtype}"
        a, d = ops.convert_to_numpy(ops.cast(a, "float32")), _numpy(ops.cast(d, "float32"))
        slack = 1e-5 if kept else 2.0**-5 * np.abs(d).max()
        np.testing.assert_allclose(a, d, 1e-5, slack, err_msg=f"{where}: output {path}")
    for weight in copy.weights:
        assert _dtype(weight) != compute, f"{where}: weight {weight.path} is {compute}"
    symbolic = _call(type(copy).from_config(copy.get_config()), _placeholders(low, batched))
    _check_specs(f"{where}: symbolic output", symbolic, outputs, batched)


def _objective(outputs, projections):
    """A scalar that depends on every float output: their inner products with `projections`."""
    floats = [x for x in tree.flatten(outputs) if _is_float(x)]
    return sum(ops.sum(ops.multiply(x, p)) for x, p in zip(floats, projections, strict=True))


def _gradients(layer, inputs, checked, projections):
    """Gradients of `_objective` by the backend: of the `checked` inputs, of trainable weights."""
    leaves = [ops.convert_to_tensor(x) for x in tree.flatten(inputs)]
    weights = [w.value for w in layer.trainable_weights]

    def objective(sources, call=layer):
        replaced = dict(zip(checked, sources, strict=True))
        merged = [replaced.get(i, x) for i, x in enumerate(leaves)]
        return _objective(_call(call, tree.pack_sequence_as(inputs, merged)), projections)

    sources = [leaves[i] for i in checked]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(sources)
            loss = objective(sources)
        gradients = tape.gradient(loss, sources + weights, unconnected_gradients="zero")
    elif keras.backend.backend() == "jax":
        import jax

        def stateless(sources, weights):
            fixed = [w.value for w in layer.non_trainable_variables]
            return objective(
                sources, lambda *a, **k: layer.stateless_call(weights, fixed, *a, **k)[0]
            )

        gradients = sum(jax.grad(stateless, (0, 1))(sources, weights), [])
    else:
        import torch

        sources = [x.detach().requires_grad_() for x in sources]
        # A loss that depends on nothing has no graph: zero times each variable gives it one.
        loss = objective(sources) + sum(0 * x.sum() for x in sources + weights)
        gradients = torch.autograd.grad(loss, sources + weights)
    return [ops.convert_to_numpy(ops.convert_to_tensor(g)) for g in gradients]


def _check_gradients(layer, model, inputs, checked, rng):
    """Each gradient lies between the differences to both sides, which differ at kinks only.

    `model` is the layer, compiled: the differences need its outputs dozens of times.
    """
    outputs = [x for x in tree.flatten(_numpy(_call(layer, inputs))) if _is_float(x)]
    projections = [rng.standard_normal(x.shape).astype("float32") for x in outputs]
    noise = 1e-4 * max(1, *(np.abs(x).max() for x in outputs))
    analytic = _gradients(layer, inputs, checked, projections)
    leaves = [np.array(x) for x in tree.flatten(inputs)]
    weights = [ops.convert_to_numpy(w).copy() for w in layer.trainable_weights]

    def objective():
        for variable, weight in zip(layer.trainable_weights, weights, strict=True):
            variable.assign(weight)
        outputs = tree.flatten(model.predict_on_batch(tree.pack_sequence_as(inputs, leaves)))
        floats = [x.astype("float64") for x in outputs if _is_float(x)]
        return sum(np.vdot(x, p) for x, p in zip(floats, projections, strict=True))

    def slopes(value, index):
        before, middle = value.flat[index], objective()
        value.flat[index] = before + STEP
        above = objective()
        value.flat[index] = before - STEP
        below = objective()
        value.flat[index] = before
        return sorted([(above - middle) / STEP, (middle - below) / STEP])

    names = [f"input {i}" for i in checked] + [w.path for w in layer.trainable_weights]
    values = [leaves[i] for i in checked] + weights
    for name, value, gradient in zip(names, values, analytic, strict=True):
        steepest = np.argsort(-np.abs(gradient), axis=None)[: CHECKED // 2]
        chosen = np.union1d(steepest, rng.permutation(value.size)[: CHECKED // 2])
        low, high = np.transpose([slopes(value, i) for i in chosen])
        slack = 0.01 * max(np.abs(gradient).max(), np.abs([low, high]).max()) + noise
        np.testing.assert_allclose(
            gradient.flat[chosen],
            np.clip(gradient.flat[chosen], low, high),
            rtol=0,
            atol=slack,
            err_msg=f"{type(layer).__name__}: gradient of {name} against finite differences",
        )
    objective()


def _check_training(layer, inputs, checked, compiled, batched):
    """One step of SGD through the layer, with a trainable scale on each `checked` input."""
    placeholders = _placeholders(inputs, batched)
    leaves = tree.flatten(placeholders)
    for i in checked:
        scale = keras.layers.EinsumDense(
            "...c,c->...c", leaves[i].shape[-1], kernel_initializer="ones"
        )
        leaves[i] = scale(leaves[i])
    outputs = _call(_copy(layer, inputs), tree.pack_sequence_as(placeholders, leaves))
    model = keras.Model(placeholders, [x for x in tree.flatten(outputs) if _is_float(x)])
    losses = [lambda _, y: ops.mean(ops.square(y)) for _ in model.outputs]
    model.compile("sgd", losses, jit_compile=compiled)
    before = model.get_weights()
    count = len(tree.flatten(inputs)[0])
    model.fit(inputs, [np.zeros((count, 1))] * len(losses), batch_size=count, verbose=0)
    after = [ops.convert_to_numpy(w) for w in model.trainable_weights]
    name = type(layer).__name__
    assert all(np.isfinite(w).all() for w in after), f"{name}: a training step gives nan"
    moved = any((a != b).any() for a, b in zip(model.get_weights(), before, strict=True))
    assert moved, f"{name}: a training step moves no weight"
