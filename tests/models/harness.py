"""One call that checks everything `cvlib.models` promises about a system."""

import inspect
import json
import warnings
from pathlib import Path

import keras
import numpy as np
from keras import ops, tree
from keras.layers import BatchNormalization
from PIL import Image

from benchmarks.latency import time_system
from cvlib import masks
from cvlib.data.augment import MEAN_COLOR
from cvlib.models.backbone import freeze

EXPECTED = Path(__file__).with_name("expected")


def run_system_test(
    system_class,
    init_kwargs,
    x,
    y,
    folder,
    *,
    compile_kwargs=None,
    fit_x=None,
    given=None,
    not_saved=(),
    fitted=(),
    keeps_statistics=False,
    tolerance=1e-3,
    seed=0,
):
    """Checks a system on the current backend; every failure names the promise.

    Checked are: every constructor argument is in the config and survives `save` and `load`, with
    the weights, the trainable variables, the names of the classes and the detections; another
    system on the same backbone does not change what is trained; one training step changes the
    trainable variables and the statistics of layers that are trained, and nothing else; the losses
    are the named ones, and their sum; sample weights, losses and metrics are refused; `evaluate`
    works; the stages add up to the whole, without a warning, and can be timed; no image, one image,
    files of any size; a batch without objects trains without NaN; a clone computes the same; a
    `save` that fails leaves the old file; the detections and losses are those that TensorFlow
    stored in `expected/`, so that backends that pass agree with each other.

    Args:
        system_class: the class.
        init_kwargs: its arguments; give values that are not the defaults.
        x, y: a batch of at least two examples: what the network takes (images, or a dict that holds
            them), and targets as `cvlib.data.batches` gives them.
        folder: for files.
        compile_kwargs: arguments of `compile`.
        fit_x: what `fit` takes, where that is not `x`.
        given: what `predict` takes beside the images, by name and for each image, where that is not
            in `x`; then images of other sizes are left to the system's own tests.
        not_saved: names of arguments that are not part of the config, such as shared layers.
        fitted: names of variables that `fit` sets without being trained by gradients.
        keeps_statistics: whether layers that are trained keep the statistics that they come with.
        tolerance: relative and absolute, of detections and losses, between backends.
        seed: of the weights.
    """
    name = system_class.__name__
    system = system_class(**init_kwargs, classes=("a", "b"))
    draw_weights(system, seed)
    images = x["images"] if isinstance(x, dict) else x
    boxes = {key: value for key, value in x.items() if key != "images"} if images is not x else {}
    boxes = boxes if given is None else given
    _check_config(system, init_kwargs, not_saved)
    system.compile(keras.optimizers.SGD(1e-3), **(compile_kwargs or {}))
    found = system.predict(images, **boxes)
    assert found.keys() == set(system.detections), f"{name}: detections {found.keys()}"
    assert found.classes == ("a", "b"), f"{name}: the detections do not name the classes"
    _check_expected(system, x, y, found, tolerance)
    check_files(system, images, boxes, found, folder)
    check_stages(system, x)
    _check_images(system, images, boxes, found, resized=given is None)
    _check_clone(system, x)
    fit_x = x if fit_x is None else fit_x
    _check_training(system, fit_x, y, fitted, keeps_statistics, compile_kwargs or {})
    _check_refusals(system, images, y)
    empty = {k: np.full_like(v, -1) if k in ("boxes", "labels") else 0 * v for k, v in y.items()}
    system.fit(fit_x, empty, verbose=0)
    finite = all(np.isfinite(ops.convert_to_numpy(v)).all() for v in system.variables)
    assert finite, f"{name}: a batch without objects makes variables that are not finite"


def compiled(function):
    """`function` in one piece on JAX, which would compile its operations one by one otherwise."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    def run(*args):
        @jax.jit
        def alone(leaves):
            with keras.StatelessScope():
                return function(*tree.pack_sequence_as(args, leaves))

        return alone(tree.flatten(args))

    return run


def draw_weights(system, seed):
    """The same weights on every backend: those of He's rule, smaller in dense layers, so that the
    rounding of one part does not become a difference in the next."""
    rng = np.random.default_rng(seed)
    for variable in system.variables:
        kind = variable.path.rpartition("/")[2]
        if kind == "kernel":
            fan_in = np.prod(variable.shape[:-1])
            gain = 1 if len(variable.shape) > 2 else 0.1
            values = rng.standard_normal(variable.shape)
            variable.assign(gain * np.sqrt(2 / fan_in) * values)


def _check_config(system, init_kwargs, not_saved):
    name = type(system).__name__
    arguments = set(inspect.signature(type(system).__init__).parameters) - {"self", "kwargs"}
    config = system.get_config()
    missing = arguments - config.keys() - set(not_saved)
    assert not missing, f"{name}: the config lacks {', '.join(sorted(missing))}"
    for key, value in init_kwargs.items():
        if key != "backbone" and key not in not_saved:
            same = json.dumps(config[key]) == json.dumps(value)
            assert same, f"{name}: {key} is {value!r}, and {config[key]!r} in the config"


def check_files(system, images, boxes, found, folder):
    name = type(system).__name__
    path = Path(folder) / "system.keras"
    system.save(path)
    again = type(system).load(path)
    config = json.dumps(system.get_config()), json.dumps(again.get_config())
    assert config[0] == config[1], f"{name}: the config of the loaded system differs"
    _same(f"{name}: weights after loading", again.get_weights(), system.get_weights())
    trained, before = ([v.path for v in s.trainable_variables] for s in (again, system))
    assert len(trained) == len(before), (
        f"{name}: {len(trained)} variables are trained after loading, not {len(before)}"
    )
    _same(f"{name}: detections after loading", again.predict(images, **boxes), found)
    assert again.classes == system.classes

    content = path.read_bytes()
    complete = keras.Model.save

    def broken(self, filepath, **kwargs):
        Path(filepath).write_bytes(b"half")
        raise OSError("No space left on device")

    keras.Model.save = broken
    try:
        system.save(path)
    except OSError:
        pass
    finally:
        keras.Model.save = complete
    left = [other.name for other in Path(folder).iterdir()]
    assert path.read_bytes() == content, f"{name}: a save that failed has changed the old file"
    assert left == [path.name], f"{name}: a save that failed leaves {left}"
    damaged = Path(folder) / "damaged.keras"
    damaged.write_bytes(content[: len(content) // 2])
    try:
        type(system).load(damaged)
    except ValueError as error:
        assert "damaged.keras" in str(error)
    else:
        raise AssertionError(f"{name}: half a file can be loaded")
    damaged.unlink()


def check_stages(system, x):
    """Chains the stages by their symbolic tensors and compares what comes out."""
    name = type(system).__name__
    given = map(ops.convert_to_tensor, tree.flatten(x))
    values = dict(zip(map(id, tree.flatten(system.input)), given, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stages = system.stages()
        for (_, stage), ends in zip(stages, system._parts.values(), strict=True):
            inputs, outputs = ends
            given = [values[id(tensor)] for tensor in tree.flatten(inputs)]
            inputs = tree.pack_sequence_as(inputs, given)
            got = compiled(lambda x, stage=stage: stage(x, training=False))(inputs)
            tensors = zip(tree.flatten(outputs), tree.flatten(got), strict=True)
            values |= {id(tensor): value for tensor, value in tensors}
    whole = compiled(lambda x: system(x, training=False))(x)
    for key in system.detections:
        tensor = system.output[key]
        assert id(tensor) in values, f"{name}: no stage gives {key!r}"
        _same(f"{name}: {key!r} of the stages", values[id(tensor)], whole[key], 1e-4)
    times = time_system(system, 1, runs=1, warmup=1)
    assert times.keys() == {"graph", *system._parts}, f"{name}: timed are {times.keys()}"


def _check_images(system, images, boxes, found, resized):
    name = type(system).__name__
    none = system.predict(images[:0], **{key: value[:0] for key, value in boxes.items()})
    for key, value in none.items():
        assert len(value) == 0, f"{name}: {key!r} of no image is {value.shape}"
        assert np.ndim(value) == np.ndim(found[key]), f"{name}: {key!r} of no image is {value}"
    first = {key: value[:1] for key, value in boxes.items()}
    one = {key: value[:1] for key, value in found.items()}
    _same(f"{name}: one image without a batch", system.predict(images[0], **first), one, 1e-3)
    _same(f"{name}: a list", system.predict(list(images), **boxes), found, 1e-3)
    if "boxes" in found and resized:
        # Twice as high as wide and as the network is, in a list: shrunk, put into the middle, and
        # mapped back.
        side = images.shape[1]
        assert images.shape[1:3] == (side, side) and side % 4 == 0, "give square images"
        tall = np.concatenate([images[0], images[1]])
        canvas = np.full((2 * side, 2 * side, 3), MEAN_COLOR, np.uint8)
        canvas[:, side // 2 : 3 * side // 2] = tall
        by_hand = Image.fromarray(canvas).resize((side, side), Image.Resampling.BILINEAR)
        shift = np.float32([side / 4, 0, side / 4, 0])
        x = {key: np.stack([v[1], v[0]]) for key, v in boxes.items()}
        located = {k: np.stack([v[1] / 2 + shift, v[0]]) for k, v in boxes.items() if k != "labels"}
        expected = system.predict(np.stack([np.asarray(by_hand), images[0]]), **x | located)
        actual = system.predict([tall, images[0]], **x)
        real = (expected["labels"] >= 0)[0, :, None]
        limits = np.float32([side, 2 * side] * 2)
        boxes = 2 * (expected["boxes"][0] - shift)
        expected["boxes"][0] = np.where(real, np.clip(boxes, 0, limits), 0)
        if "masks" in expected:
            inside = masks.reframe(expected["masks"][0], boxes, np.clip(boxes, 0, limits))
            expected["masks"][0] = np.where(real[..., None], inside, 0)
        # What lies beside the image is left out, and the others move up.
        now, then = ((b[:, 2:] > b[:, :2]).all(axis=1) for b in (expected["boxes"][0], boxes))
        there = real[:, 0] & (now | ~then)
        count = expected["num_detections"][0] = there.sum()
        for key in expected.keys() & {"boxes", "confidence", "labels", "masks"}:
            moved = np.full_like(expected[key][0], -1 if key == "labels" else 0)
            moved[:count] = expected[key][0][there]
            expected[key][0] = moved
        _same(f"{name}: a list of images of other sizes", actual, expected, 1e-2)


def _check_clone(system, x):
    clone = keras.models.clone_model(system)
    clone.set_weights(system.get_weights())
    expected, found = (
        compiled(lambda x, model=model: model(x, training=False))(x) for model in (system, clone)
    )
    _same(f"{type(system).__name__}: a clone", found, expected, 1e-5)


def _check_training(system, x, y, fitted, keeps_statistics, compile_kwargs):
    name = type(system).__name__
    trained = {v.path for v in system.trainable_variables}
    _build_another(system)
    system.compile(keras.optimizers.SGD(1e-3), **compile_kwargs)
    again = {v.path for v in system.trainable_variables}
    assert again == trained, f"{name}: compile lets another system on the backbone choose"
    _build_another(system)
    before = {v.path: ops.convert_to_numpy(v) for v in system.variables}
    said, compute_losses = [], system.compute_losses
    if hasattr(system, "_training"):

        def listen(y, outputs):
            said.append(system._training)
            return compute_losses(y, outputs)

        system.compute_losses = listen
    history = system.fit(x, y, verbose=0).history
    assert all(said), f"{name}: fit does not say to the losses that it is training"
    said.clear()
    assert np.isfinite(history["loss"][0])
    after = {v.path: ops.convert_to_numpy(v) for v in system.variables}
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    moving = {path for path in before if "moving_" in path or "seed" in path}
    moving |= {path for path in before if path.rpartition("/")[2] in fitted}
    wrong = changed - trained - moving
    assert not wrong, f"{name}: training changes {', '.join(sorted(wrong))}"
    assert changed & trained, f"{name}: training changes nothing"
    norms = (layer for layer in system._flatten_layers() if isinstance(layer, BatchNormalization))
    moved = {layer.moving_mean.path in changed for layer in norms if layer.gamma.path in changed}
    assert moved <= {not keeps_statistics}, f"{name}: statistics that are moved: {moved}"
    if keras.backend.backend() == "torch":
        system.zero_grad()
        kept = [v.path for v in system.trainable_variables if v.value.grad is not None]
        assert not kept, f"{name}: the gradients of steps add up in {', '.join(kept)}"
    losses = system.evaluate(x, y, verbose=0, return_dict=True)
    assert np.isfinite(losses["loss"]), f"{name}: evaluate gives {losses}"
    assert not any(said), f"{name}: evaluate says to the losses that it is training"
    system.compute_losses = compute_losses


def _build_another(system):
    """What another system does to the layers of the backbone that it is built on."""
    if hasattr(system, "backbone"):
        freeze(system.backbone)


def _check_refusals(system, images, y):
    name = type(system).__name__
    for kwargs in ({"metrics": ["mae"]}, {"loss_weights": [1.0]}):
        try:
            type(system).compile(system, **kwargs)
        except ValueError as error:
            assert name in str(error)
        else:
            raise AssertionError(f"{name}: compile takes {kwargs}")
    try:
        system.compute_loss(images, y, None, sample_weight=np.ones(len(images)))
    except ValueError as error:
        assert f"{name} takes no sample weights" in str(error)
    else:
        raise AssertionError(f"{name}: sample weights are taken")


def _check_expected(system, x, y, found, tolerance):
    """Compares losses and detections with those stored; TensorFlow stores them where none are."""
    name = type(system).__name__
    losses = compiled(lambda x, y: system.compute_losses(y, system(x, training=False)))(x, y)
    assert losses.keys() == set(system.loss_names), f"{name}: losses {losses.keys()}"
    actual = {"losses": {k: float(ops.stop_gradient(v)) for k, v in losses.items()}}
    actual |= {key: np.ravel(value)[:200].tolist() for key, value in found.items()}
    path = EXPECTED / f"{name}.json"
    if not path.exists():
        assert keras.backend.backend() == "tensorflow", f"{path.name} is stored by TensorFlow"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(actual) + "\n")
    expected = json.loads(path.read_text())
    assert actual.keys() == expected.keys(), f"{name}: other detections on TensorFlow"
    for part, desired in expected.items():
        _same(f"{name}: {part} on TensorFlow", actual[part], desired, tolerance)


def _same(promise, actual, desired, tolerance=0.0):
    # A tree is of dicts, which `Detections` is a kind of.
    actual, desired = (dict(x) if isinstance(x, dict) else x for x in (actual, desired))
    tree.assert_same_structure(actual, desired)
    for a, d in zip(tree.flatten(actual), tree.flatten(desired), strict=True):
        a, d = ops.convert_to_numpy(a), ops.convert_to_numpy(d)
        np.testing.assert_allclose(a, d, tolerance, tolerance, err_msg=promise)
