"""What every Keras system of the course shares: the verbs `fit`, `predict`, `save`, `load`."""

import contextlib
import glob
import itertools
import math
import os
import time
from pathlib import Path

import keras
import numpy as np
from keras import ops, tree
from PIL import Image

from cvlib import masks
from cvlib.data.augment import MEAN_COLOR, letterbox, render, view_geometry
from cvlib.data.sample import read_image
from cvlib.models.backbone import freeze
from cvlib.records import remove_leftovers


def jit_compile():
    """Whether XLA makes a graph faster here, for `keras.Model.compile`.

    TensorFlow on a CPU runs its own kernels faster than those that XLA writes: MobileNet trained
    1.6 times as fast without, and JAX cannot do without.
    """
    if keras.backend.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf

    return "auto" if tf.config.list_physical_devices("GPU") else False


@contextlib.contextmanager
def whole_file(path):
    """A name beside `path` to write to, which becomes `path` once the block has succeeded."""
    remove_leftovers(path.parent, f".*.tmp.{glob.escape(path.name)}")
    # Keras looks at how a name ends.
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class Detections(dict):
    """What `predict` returns: arrays by name, and the names of the `classes` that labels index."""

    def __init__(self, arrays, classes=()):
        super().__init__(arrays)
        self.classes = classes


class System(keras.Model):
    """A functional network whose outputs hold, beside what the losses need, the detections.

    Decoding is part of the network, so everything between image and detections is one compiled
    graph. A subclass builds its network from its arguments, gives inputs and outputs to
    `System.__init__`, keeps its backbone, if it has one, in `backbone`, its other
    arguments in `_config`, to be saved (`frozen_to` among them where there is a backbone), and its
    parts in `_parts`, for timing. It names its detections' keys in `detections` and its losses in
    `loss_names`, and implements `compute_losses`.

    Several systems may be built on one backbone. `compile` and `fit` freeze its layers as this
    system says: up to its `frozen_to`, or all where `backbone.trainable` is False.

    Args:
        inputs, outputs: symbolic tensors, as those of a functional `keras.Model`. The inputs are
            the images, or a dict that holds `images`.
        classes: names of the classes. Without them they are those of the first dataset that `fit`
            is given, if it has any. They are saved.

    Raises:
        TypeError: there are no inputs or outputs.
        ValueError: the outputs lack one of the detections.
    """

    detections = ("boxes", "confidence", "labels", "num_detections")
    loss_names = ("loss",)
    _trains_trunk = True

    def __init__(self, inputs=None, outputs=None, classes=(), **kwargs):
        if inputs is None or outputs is None:
            raise TypeError(
                f"{type(self).__name__} gives System no inputs and outputs: "
                "a system is a functional network."
            )
        if missing := [key for key in self.detections if key not in outputs]:
            raise ValueError(f"The outputs of {type(self).__name__} have no {missing[0]!r}.")
        super().__init__(inputs, outputs, **kwargs)
        if not jit_compile():
            self.jit_compile = False
        self.classes = tuple(classes)
        self._loss_means = [keras.metrics.Mean(name=name) for name in self.loss_names]

    def compute_losses(self, y, outputs):
        """The losses of a batch, whose sum is minimised.

        Args:
            y: the targets, of `cvlib.data.batches`.
            outputs: of the network, in training.

        Returns:
            A dict from each of `loss_names` to a scalar.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what its losses are.")

    def compile(self, optimizer="adam", **kwargs):
        """As in `keras.Model.compile`, but for losses and metrics, which a system brings itself.

        Raises:
            ValueError: losses or metrics are given, or the variables are of float16.
        """
        name = type(self).__name__
        if kwargs.get("metrics") or kwargs.get("weighted_metrics"):
            raise ValueError(
                f"{name} brings its own metrics: measure others on what it predicts,"
                " in a loop or with the callback EvaluateDetections, not in compile."
            )
        if kwargs.get("loss") or kwargs.get("loss_weights"):
            raise ValueError(f"{name} brings its own losses: {', '.join(self.loss_names)}.")
        if any(variable.dtype == "float16" for variable in self.variables):
            # Adam's epsilon is 0 in float16, and 0 / 0 is no step.
            raise ValueError(
                f"{name} has variables of float16, which are too coarse to be trained: "
                "build it under the policy mixed_float16."
            )
        super().compile(optimizer, **{"jit_compile": jit_compile()} | kwargs)
        self._freeze()

    def _freeze(self):
        """Freezes layers of the backbone, of which another system may train others."""
        if hasattr(self, "backbone"):
            trained = self._trains_trunk and self.backbone.trainable
            for layer in freeze(self.backbone, self._config["frozen_to"]):
                layer.trainable = trained

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if sample_weight is not None:
            raise ValueError(f"{type(self).__name__} takes no sample weights.")
        losses = self.compute_losses(y, y_pred)
        for metric in self._loss_means:
            metric.update_state(losses[metric.name])
        return sum(losses.values()) + sum(self.losses)

    def fit(self, x, y=None, **kwargs):
        """Trains on what `cvlib.data.batches` gives; `x.steps_per_epoch` ends each epoch.

        Args:
            x: batches of `(images, targets)`, ours or any that Keras takes, or an array of images.
            y: the targets of that array, a dict.
            **kwargs: as in `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History` of the sum and of each of `loss_names`.

        Raises:
            ValueError: the batches never end, and no `steps_per_epoch` or `validation_steps` is
                given; or they have more classes than the system.
            DataError: a sample of ours cannot be read.
        """
        known, given = self._config.get("num_classes", math.inf), getattr(x, "classes", ())
        if len(given) > known:
            raise ValueError(
                f"{type(self).__name__} was built for {known} classes, these batches have "
                f"{len(given)}: {', '.join(given)}."
            )
        kwargs["steps_per_epoch"] = epoch_steps(x, kwargs)
        if hasattr(x, "steps_per_epoch"):
            # Keras warns that it cannot shuffle what is shuffled already.
            kwargs = {"shuffle": False} | kwargs
        validation = kwargs.get("validation_data")
        if validation is not None and not isinstance(validation, tuple):
            kwargs["validation_steps"] = epoch_steps(validation, kwargs, "validation_steps")
        self.classes = self.classes or tuple(given)
        self._freeze()
        faults = getattr(x, "faults", [])
        faults.clear()  # Those of an earlier call are none of this one.
        try:
            return super().fit(x, y, **kwargs)
        except Exception as error:
            # TensorFlow makes an error of its own, of many lines, of one in the reading.
            if faults:
                raise faults[0] from error
            raise

    def make_train_function(self, force=False):
        # A step that makes the optimizer's variables is traced by TensorFlow again, without that.
        self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def zero_grad(self, set_to_none=True):
        """Forgets the gradients of the last step, which PyTorch would add to those of the next.

        Keras asks for this before each step. Its own way finds weights by their paths, of which two
        copies of a network have the same, and misses some.
        """
        for variable in self.trainable_variables:
            variable.value.grad = None

    def evaluate(self, x, y=None, **kwargs):
        """The losses on `x` and `y`, which are as in `fit`, without training."""
        kwargs["steps"] = epoch_steps(x, kwargs, "steps")
        return super().evaluate(x, y, **kwargs)

    def predict(self, images, batch_size=32, verbose=0, **boxes):
        """Detections in images.

        Images of another size than the network's are resized to it with their proportions kept, and
        the detections are mapped back.

        Args:
            images: (B, H, W, 3) in 0..255, RGB; or one image (H, W, 3), or a list of images of any
                sizes and of names of image files.
            **boxes: what a system looks at besides: for each image `xyxy` boxes in its pixels, in
                the order of its images, or their `labels`.

        Returns:
            `Detections`, a dict of NumPy arrays, in pixels of the given images: `boxes` (B, N, 4)
            xyxy, `confidence` (B, N) in 0..1, `labels` (B, N), -1 where padded, `num_detections`
            (B,), and of instances `masks` (B, N, M, M), probabilities in the frames of the boxes.
            Or `segmentation` (B, H, W), the class of each pixel, as a list where the images
            differ in size. Its attribute `classes` names the classes.

        Raises:
            ValueError: an image is no (H, W, 3), or its file cannot be read.
        """
        images = as_images(images)
        found = {key: [None] * len(images) for key in self.detections}
        for indices, batch, geometry in self._batches(images, batch_size):
            x = {key: [value[i] for i in indices] for key, value in boxes.items()}
            x = self._fitted(x, geometry)
            x = {"images": batch, **x} if isinstance(self.input, dict) else batch
            outputs = super().predict(x, batch_size=batch_size, verbose=verbose)
            if geometry is not None:
                mapped = _mapped_back(outputs, *geometry, [images[i].shape for i in indices])
                outputs = _in_the_image(outputs | mapped, outputs)
            for key, values in found.items():
                for i, value in zip(indices, outputs[key], strict=True):
                    values[i] = value
        return Detections({k: self._stacked(k, v) for k, v in found.items()}, self.classes)

    def predict_step(self, *args):
        # What only the losses need, such as maps, is neither kept for all images nor computed.
        outputs = super().predict_step(*args)
        if isinstance(outputs, tuple):  # JAX gives its state too.
            return self._detections(outputs[0]), *outputs[1:]
        return self._detections(outputs)

    def _detections(self, outputs):
        return {key: outputs[key] for key in self.detections}

    def _batches(self, images, batch_size):
        """Which of the images each batch holds, the batch, and its geometry where it was resized.

        The geometry is a factor and a shift, (b, 1, 4) each, of boxes in the images as given.
        """
        x = self.input["images"] if isinstance(self.input, dict) else self.input
        size = x.shape[1:3]
        sizes = [image.shape[:2] for image in images]
        if None in size or set(sizes) <= {size}:
            # In any size, each as it is.
            for one in dict.fromkeys(sizes):
                indices = [i for i, other in enumerate(sizes) if other == one]
                batch = images if len(indices) == len(images) else [images[i] for i in indices]
                yield indices, np.asarray(batch), None
            return
        for start in range(0, len(images), batch_size):
            indices = range(start, min(start + batch_size, len(images)))
            resized, geometry = zip(*(_letterboxed(images[i], size) for i in indices), strict=True)
            scale, offset = np.split(np.float32(geometry)[:, None], 2, axis=-1)
            yield indices, np.stack(resized), (np.tile(scale, 2), np.tile(offset, 2))

    def _fitted(self, x, geometry):
        """Batches of what images are given with, `x`, by name, where they had this `geometry`."""
        x = {key: np.stack(values) for key, values in x.items()}
        if geometry is None:
            return x
        return x | {k: v * geometry[0] + geometry[1] for k, v in x.items() if k != "labels"}

    def _stacked(self, key, values):
        """The values of all images as one array; as a list where their sizes differ."""
        if not values:
            output = self.output[key]
            return np.zeros((0, *(n or 0 for n in output.shape[1:])), output.dtype)
        if len({value.shape for value in values}) > 1:
            return values
        return np.stack(values)

    def save(self, filepath, **kwargs):
        """Writes one `.keras` file: the whole of it, or, if that fails, nothing.

        Args:
            filepath: name of the file, `.keras`. What is there is replaced.
            **kwargs: as in `keras.Model.save`.
        """
        with whole_file(Path(filepath)) as temporary:
            super().save(temporary, **kwargs)

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """Writes the network from images to detections, for other programs.

        Args:
            filepath: where to.
            format, **kwargs: as in `keras.Model.export`.
        """
        # Without what only the losses need.
        network = keras.Model(plain(self.input), self._detections(self.output))
        network.export(filepath, format, **kwargs)

    @classmethod
    def load(cls, path):
        """The system saved at `path` by `save`, without running code from the file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or holds another system.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: the file does not exist.")
        try:
            model = keras.saving.load_model(path)
        except Exception as error:  # Of many kinds: whatever the damage meets first.
            raise ValueError(f"{path}: no {cls.__name__} can be loaded from this file.") from error
        if not isinstance(model, cls):
            raise ValueError(f"{path}: holds a {type(model).__name__}, not a {cls.__name__}.")
        return model

    def get_compile_config(self):
        """Empty: what is saved predicts; to train it further, `compile` says again how."""
        return {}

    def stages(self):
        """The parts in the order in which they run, `[(name, keras.Model), ...]`, for timing.

        A part takes inputs of the system and what the parts before it give; the last ones give the
        detections.
        """
        return [(name, keras.Model(*map(plain, ends))) for name, ends in self._parts.items()]

    def milliseconds(self, x, runs=50, warmup=10, stages=True):
        """How long the whole graph and each stage take, from NumPy arrays to NumPy arrays.

        A stage sees what those before it make of `x`, but does not wait for them.

        Args:
            x: a batch of what the network takes.
            runs: how many runs are timed.
            warmup: how many come before, in which the graph is compiled.
            stages: whether to time the stages too.

        Returns:
            Dict from `"graph"` and the names of the stages, in their order, to lists of `runs`
            times.
        """
        times = {"graph": time_calls(self.predict_on_batch, x, runs, warmup)}
        if not stages:
            return times
        inputs = [tree.flatten(inputs) for inputs, _ in self._parts.values()]
        given = keras.Model(self.input, inputs).predict_on_batch(x)
        for (name, stage), arrays in zip(self.stages(), given, strict=True):
            stage.jit_compile = self.jit_compile
            arrays = tree.pack_sequence_as(stage.input, arrays)
            times[name] = time_calls(stage.predict_on_batch, arrays, runs, warmup)
        return times

    def get_config(self):
        config = {"name": self.name, "classes": self.classes, **self._config}
        if hasattr(self, "backbone"):
            config["backbone"] = keras.saving.serialize_keras_object(self.backbone)
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        if "backbone" in config:
            backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
            config = {**config, "backbone": backbone}
        return cls(**config)


def time_calls(function, inputs, runs, warmup):
    """Milliseconds of each of `runs` calls of `function(inputs)`, after `warmup` others.

    It has to give NumPy arrays, which exist only when the device has finished.
    """
    times = []
    for _ in range(warmup + runs):
        start = time.perf_counter()
        function(inputs)
        times.append(1000 * (time.perf_counter() - start))
    return times[warmup:]


def plain(tensors):
    """`tensors` in lists and dicts of Python instead of Keras's own, which JAX does not return."""
    if isinstance(tensors, dict):
        return {key: plain(value) for key, value in tensors.items()}
    return [plain(value) for value in tensors] if isinstance(tensors, list) else tensors


def epoch_steps(x, kwargs, name="steps_per_epoch"):
    """How many batches of `x` are an epoch: as given, or as `x` says; None where Keras knows."""
    steps = kwargs.get(name) or getattr(x, "steps_per_epoch", None)
    # `map` and the like of our batches, which repeat for ever, lose how many an epoch has.
    if steps is None and type(x).__module__.startswith("grain"):
        raise ValueError(f"These batches do not say when an epoch ends: give `{name}`.")
    return steps


def one_pass(x, y=None, batch_size=16, steps=None):
    """Batches of one pass over what `fit` is given.

    Args:
        x, y: as in `System.fit`: batches, or arrays, or dicts of them, and targets.
        batch_size: of arrays.
        steps: how many batches are a pass; None for all.
    """
    if y is None:
        yield from itertools.islice(x, steps)
        return
    for start in range(0, len(tree.flatten(y)[0]), batch_size):
        part = slice(start, start + batch_size)
        yield tree.map_structure(lambda array, part=part: array[part], (x, y))


def as_images(images):
    """What `predict` is given as an array (B, H, W, 3) or as a list of arrays (H, W, 3)."""
    if isinstance(images, str | Path):
        images = [images]
    if isinstance(images, list | tuple):
        images = [read_image(x) if isinstance(x, str | Path) else _array(x) for x in images]
        shapes = [image.shape for image in images]
    else:
        images = _array(images)
        images = images[None] if images.ndim == 3 else images
        shapes = [images.shape[1:]]
    for shape in shapes:
        if len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(f"An image is (height, width, 3), not {shape}.")
    return images


def _array(x):
    return x if isinstance(x, np.ndarray) else ops.convert_to_numpy(x)


def _letterboxed(image, size):
    """An image resized to `size` as `batches(..., resize="pad")` does, and its geometry (4,)."""
    height, width = image.shape[:2]
    view = letterbox((0, 0, width, height), size)
    pixels = image if image.dtype == np.uint8 else np.clip(np.round(image), 0, 255).astype("uint8")
    resized = render(Image.fromarray(pixels), view, size, fill=MEAN_COLOR)
    return np.asarray(resized), view_geometry(view, size)


def _in_the_image(outputs, before):
    """`outputs` without the detections that lost their area: they lay in the margin of the image.

    The others move up, and what is left is padded as `Detections` are.
    """
    if "boxes" not in outputs:
        return outputs
    now, then = ((y["boxes"][..., 2:] > y["boxes"][..., :2]).all(-1) for y in (outputs, before))
    real = (outputs["labels"] >= 0) & (now | ~then)
    order = np.argsort(~real, axis=1, kind="stable")
    real = np.take_along_axis(real, order, axis=1)
    moved = {"num_detections": real.sum(axis=1, dtype=np.int32)}
    for key in outputs.keys() & {"boxes", "confidence", "labels", "masks"}:
        add = [...] + [None] * (outputs[key].ndim - 2)
        x = np.take_along_axis(outputs[key], order[tuple(add)], axis=1)
        moved[key] = np.where(real[tuple(add)], x, -1 if key == "labels" else 0).astype(x.dtype)
    return outputs | moved


def _mapped_back(outputs, scale, offset, shapes):
    """What `outputs` locate, in pixels of the images as they were given, and inside them."""
    mapped = {}
    if "boxes" in outputs:
        limits = np.float32([[width, height, width, height] for height, width, _ in shapes])
        boxes = (outputs["boxes"] - offset) / scale
        shown = np.clip(boxes, 0, limits[:, None])
        mapped["boxes"] = np.where(outputs["labels"][..., None] >= 0, shown, 0)
        if "masks" in outputs:
            # Boxes that lie in the image whole keep their masks.
            mapped["masks"] = np.array(outputs["masks"], np.float32)
            cut = (boxes != shown).any(axis=-1) & (outputs["labels"] >= 0)
            mapped["masks"][cut] = masks.reframe(mapped["masks"][cut], boxes[cut], shown[cut])
    if "segmentation" in outputs:
        sides = np.float32([[[0, 0, width, height]] for height, width, _ in shapes])
        mapped["segmentation"] = [
            # The class of the nearest pixel: a mean of two classes would be a third.
            np.asarray(render(Image.fromarray(classes), view, shape[:2], Image.Resampling.NEAREST))
            for classes, (view,), shape in zip(
                outputs["segmentation"], sides * scale + offset, shapes, strict=True
            )
        ]
    return mapped
