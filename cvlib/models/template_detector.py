"""What detectors share that compare every window with templates: windows, and hard negatives."""

import collections
import itertools
import math

import keras
import numpy as np
from keras import layers, ops

from cvlib import boxes as box_ops
from cvlib.losses import mean_where
from cvlib.models.system import System, epoch_steps, one_pass
from cvlib.targets import forgiven

BLOCK = 2  # cells on a side of a block
RARE = 0.05  # share of a class's objects below which a component is left out
NEVER = -100.0  # score of a component that is left out


class TemplateDetector(System):
    """A detector that scores every window of an image, of any size, for each class.

    Each class has a linear classifier for each of `ratios`, its components, which are support
    vector machines. They learn in rounds: of the millions of negative windows only those count that
    are hard for them, and which those are they find out themselves.

    A subclass sets `windows` and `_places` (level, component, row and column of each window), has
    `scores` (B, W, C) among its outputs, keeps what `slide` shares in `templates`, and implements
    `_look`, `_chosen`, `_features` and `_train`.
    """

    loss_names = ("objects", "background")
    object_iou = (0.5, 0.7)  # of the best window of an object at least, and of others with it
    background_iou = 0.3

    def slide(self, **changes):
        """The same templates over other images.

        Args:
            **changes: of the arguments `size`, `scales` and `nms`.
        """
        return type(self)(
            templates=self.templates, classes=self.classes, **{**self._config, **changes}
        )

    def _rounds(self, count, x, y, C, negatives, per_image, batch_size, kwargs):
        """`fit` in `count` rounds, the first of which takes negatives at random."""
        steps = epoch_steps(x, kwargs)
        verbose = kwargs.get("verbose", "auto")
        callbacks = keras.callbacks.CallbackList(
            kwargs.get("callbacks"),
            add_history=True,
            add_progbar=verbose != 0,
            model=self,
            verbose=verbose,
            epochs=count,
            steps=1,
        )
        self.classes = self.classes or tuple(getattr(x, "classes", ()))
        rng = np.random.default_rng(0)
        components = np.ndindex(len(self._config["ratios"]), self._config["num_classes"])
        examples = {component: Examples(negatives) for component in components}
        callbacks.on_train_begin()
        for number in range(count):
            callbacks.on_epoch_begin(number)
            look = self._look(number, examples)
            for images, targets in one_pass(x, y, batch_size, steps):
                seen = look.predict_on_batch(images)
                if number == 0:
                    seen["scores"] = rng.random(seen["scores"].shape)
                overlaps = ops.convert_to_numpy(self._overlap(targets))
                ignored = ops.convert_to_numpy(forgiven(targets))
                for i, overlap in enumerate(overlaps):
                    objects = {k: np.asarray(targets[k][i]) for k in ("boxes", "labels")}
                    objects["ignored"] = ignored[i]
                    of_image = keras.tree.map_structure(lambda array, i=i: array[i], seen)
                    key = hash(np.asarray(images[i]).tobytes())
                    self._collect(examples, of_image, overlap, objects, key, number, per_image)
            Examples.settle(examples)
            logs = {"loss": self._train(examples, C, number)}
            for name in ("examples", "negatives"):
                logs[name] = sum(len(getattr(e, name)) for e in examples.values())
            callbacks.on_epoch_end(number, logs)
        callbacks.on_train_end()
        return self.history

    def _look(self, number, examples):
        """The network of a round: a dict of all that `_features` needs, with `scores`."""
        raise NotImplementedError

    def _chosen(self, number, overlap, component, scores):
        """The windows that are examples of an object.

        Args:
            number: of the round.
            overlap: (W,) of each window with the object.
            component: the object's.
            scores: (W,) of its class.
        """
        raise NotImplementedError

    def _features(self, seen, window, label):
        """What the classifier of a window sees, flat, and what tells it from other views of it."""
        raise NotImplementedError

    def _train(self, examples, C, number):
        """New weights; the mean loss of the components that have examples."""
        raise NotImplementedError

    def _collect(self, examples, seen, overlap, objects, key, number, per_image):
        """Adds the windows of one image to the examples of all components."""
        labels, scores = objects["labels"], seen["scores"]
        of_component, components = self._places[:, 1], self._component(objects["boxes"])
        for n in np.flatnonzero((labels >= 0) & ~objects["ignored"]):
            label = labels[n]
            for window in self._chosen(number, overlap[:, n], components[n], scores[:, label]):
                # It may be one that is left out by now.
                if (of_component[window], label) in examples:
                    example = examples[of_component[window], label]
                    its, view = self._features(seen, window, label)
                    example.examples.append(its)
                    example.found.append((window, view, objects["boxes"][n]))
        for (component, label), example in examples.items():
            over = overlap[:, labels == label].max(axis=1, initial=0)
            free = (of_component == component) & (over < self.background_iou)
            score = np.where(free, scores[:, label], -np.inf)
            for window in np.argsort(-score)[:per_image]:
                if score[window] > -1:
                    its, view = self._features(seen, window, label)
                    example.offer((key, window, view), score[window], its)

    def _overlap(self, y):
        """IoU (B, W, N) of windows with objects, or the share of a window that forgiven ones cover.

        A crowd is much larger than a window in it, which is no background all the same.
        """
        shared = box_ops.covered(self.windows, y["boxes"]), box_ops.iou(self.windows, y["boxes"])
        return ops.where(forgiven(y)[:, None], *shared)

    def _component(self, boxes):
        width, height = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3).T
        ratios = np.log(self._config["ratios"])
        return np.abs(np.log(height / width)[:, None] - ratios).argmin(axis=1)

    def _best_overlaps(self, overlap, component):
        """The windows of the component that fit an object best, if any does."""
        its = np.where(self._places[:, 1] == component, overlap, 0)
        return np.flatnonzero(its >= np.clip(its.max(), *self.object_iou))

    def compute_losses(self, y, outputs):
        """The mean squared hinges: of objects, at their best window, and of windows without any."""
        scores, labels = outputs["scores"], y["labels"]
        overlap = self._overlap(y)
        best = ops.take_along_axis(scores, ops.maximum(labels, 0)[:, None], axis=2)
        best = ops.max(ops.where(overlap >= self.object_iou[0], best, -float("inf")), axis=1)
        found = ops.logical_and(labels >= 0, ~forgiven(y)) & (best > -float("inf"))
        same = labels[..., None] == ops.arange(self._config["num_classes"])
        over = ops.max(ops.where(same[:, None], overlap[..., None], 0.0), axis=2)
        return {
            "objects": mean_where(found, ops.relu(1 - ops.where(found, best, 1.0)) ** 2),
            "background": mean_where(over < self.background_iou, ops.relu(1 + scores) ** 2),
        }


class Examples:
    """What a component is trained from: windows that are the object, and windows that are not.

    Attributes:
        examples: features of the object's windows.
        found: of each of them the window, how it is seen, and the object's box.
        negatives: dict from what tells a window from all others to its features.
    """

    def __init__(self, limit):
        self.examples, self.found, self.negatives = [], [], {}
        self._limit, self._offered = limit, {}

    def offer(self, key, score, features):
        """A negative window, known by `key`; of those offered the highest scores stay."""
        if key not in self.negatives:
            self._offered[key] = score, features
            if len(self._offered) > 2 * self._limit:
                self._prune()

    def _prune(self):
        hardest = sorted(self._offered.items(), key=lambda item: -item[1][0])
        self._offered = dict(hardest[: self._limit])

    def keep(self, which):
        """Drops the negatives that are not hard, and do not matter to the machine."""
        self.negatives = dict(itertools.compress(self.negatives.items(), which))

    @staticmethod
    def settle(examples):
        """Makes negatives of those offered to the `examples` of each component and class.

        Those with too few of a class's objects, or nothing to tell them from, are dropped.
        """
        of_class = collections.Counter()
        for (_, label), example in examples.items():
            example._prune()
            example.negatives |= {key: its for key, (_, its) in example._offered.items()}
            example._offered = {}
            of_class[label] += len(example.examples)
        for component, example in list(examples.items()):
            rare = len(example.examples) <= RARE * of_class[component[1]]
            if rare or not example.negatives:
                del examples[component]

    @staticmethod
    def of_component(examples, component):
        """Those of a component: class, examples, features and 1 or -1, one after another."""
        for (its, label), example in examples.items():
            if its == component:
                x = np.stack([*example.examples, *example.negatives.values()])
                y = np.repeat([1, -1], [len(example.examples), len(example.negatives)])
                yield label, example, x, y


def window_grid(size, scale, cell_size, shape):
    """The windows of a scale.

    Args:
        size: (height, width) of the images.
        scale: factor by which they are resized.
        cell_size: pixels on a side of a cell.
        shape: rows and columns of a window, in cells.

    Returns:
        (rows, columns) of the windows; row and column of each (W, 2); and their boxes (W, 4), xyxy
        in pixels of the image.

    Raises:
        ValueError: a window is larger than the image.
    """
    scaled = resized(size, scale)
    rows, columns = (n // cell_size - m + 1 for n, m in zip(scaled, shape, strict=True))
    if min(rows, columns) < 1:
        raise ValueError(
            f"An image of {by(size)} at scale {scale} is {by(scaled)}, smaller than "
            f"the window of {by(np.multiply(shape, cell_size))}."
        )
    top, left = np.mgrid[:rows, :columns].reshape(2, -1)
    corners = np.stack([left, top, left + shape[1], top + shape[0]], axis=-1)
    windows = corners * cell_size * np.tile(np.divide(size, scaled)[::-1], 2)
    return (rows, columns), np.stack([top, left], axis=-1), np.float32(windows)


def resized(size, scale):
    """(height, width) of an image at a scale."""
    return tuple(round(scale * length) for length in size)


def window_shape(side, ratio):
    """Rows and columns of a window of the area `side`**2, height over width `ratio`."""
    root = math.sqrt(ratio)
    return max(round(side * root), 1), max(round(side / root), 1)


def template(shape, margin, num_classes, channels):
    """The convolution whose kernel sees a window's blocks, which are one less than its cells."""
    kernel = [n + 2 * margin - BLOCK + 1 for n in shape]
    convolution = layers.Conv2D(num_classes, kernel, name=f"template_{by(shape)}")
    convolution.build((None, None, None, channels))
    return convolution


def by(size):
    """A size, readable."""
    return "x".join(map(str, size))
