"""Templates of edges, compared with every place of an image at every size."""

import itertools
import math

import keras
import numpy as np
from keras import layers, ops

from cvlib import boxes as box_ops
from cvlib.layers import HOG, NonMaxSuppression
from cvlib.losses import mean_where
from cvlib.models.system import System, epoch_steps, one_pass, plain
from cvlib.targets import forgiven

BLOCK = 2  # cells on a side of a block
PER_IMAGE = 20  # windows of an image that a round takes at most, of each component
RARE = 0.05  # share of a class's objects below which a component is left out
NEVER = -100.0  # score of a component that is left out


@keras.saving.register_keras_serializable(package="cvlib")
class HOGDetector(System):
    """A detector that asks of every window of an image, of any size: is this the object?

    The image is resized by each of `scales`, and its histograms of oriented gradients (`HOG`) are
    computed once. A linear classifier of a window is a template of such histograms, and its score
    at every place is a convolution. Each class has a template for each of `ratios`, its components,
    because a window is as high and as wide as the objects that it is for. `NonMaxSuppression` keeps
    the best of windows that overlap.

        detector = HOGDetector(num_classes, size, scales, ratios)
        detector.fit(batches)
        detector.predict(images)

    Args:
        num_classes: number of classes C.
        size: (height, width) of the images.
        scales: each image is resized by each of these factors.
        ratios: height over width of each component's windows. An object belongs to the component
            whose ratio is nearest.
        side: of a window in cells, the root of its area.
        margin: cells around a window that its template sees too.
        cell_size, bins, signed: of `HOG`.
        nms: arguments of `NonMaxSuppression`.
        templates: those of another `HOGDetector`, to share their weights; new ones by default.

    Attributes:
        windows: (W, 4) float32, the windows of all scales without their margin, xyxy in pixels of
            the image, scale by scale, ratio by ratio and row by row.
        grids: (rows, columns) of the windows of each scale and ratio.

    The outputs are detections, whose confidence is the sigmoid of a window's score, and `scores`
    (B, W, C). A class without examples has the score -100 everywhere.

    Raises:
        ValueError: a window is larger than the image at some scale.

    Source: Dalal and Triggs 2005; components by aspect ratio are those of Felzenszwalb et al. 2010.
    """

    loss_names = ("objects", "background")
    object_iou = (0.5, 0.7)  # of the best window of an object at least, and of others with it
    background_iou = 0.3

    def __init__(
        self,
        num_classes,
        size,
        scales=(1,),
        ratios=(1,),
        side=6,
        margin=1,
        cell_size=8,
        bins=9,
        signed=False,
        nms=None,
        templates=None,
        **kwargs,
    ):
        # In cells: a window covers `shape` without its margin.
        shapes = [_shape(side, ratio) for ratio in ratios]
        if templates is None:
            templates = [_template(shape, margin, num_classes, BLOCK**2 * bins) for shape in shapes]
        hog = HOG(cell_size, bins, signed, BLOCK)
        images = keras.Input((*size, 3), name="images")
        pyramid, maps, scores, windows, grids, places = [], [], [], [], [], []
        for level, scale in enumerate(scales):
            scaled = tuple(round(scale * length) for length in size)
            # Nothing is to be smoothed in a larger image; TensorFlow would spend time on it.
            pyramid.append(ops.image.resize(images, scaled, antialias=scale < 1))
            # The margin of a window may lie outside of the image, where there are no edges.
            maps.append(layers.ZeroPadding2D(margin)(hog(pyramid[-1])))
            for component, (shape, template) in enumerate(zip(shapes, templates, strict=True)):
                rows, columns = (n // cell_size - m + 1 for n, m in zip(scaled, shape, strict=True))
                if min(rows, columns) < 1:
                    raise ValueError(
                        f"An image of {_by(size)} at scale {scale} is {_by(scaled)}, smaller than "
                        f"the window of {_by(np.multiply(shape, cell_size))}."
                    )
                found = template(maps[-1])
                scores.append(layers.Reshape((-1, num_classes), dtype="float32")(found))
                grids.append((rows, columns))
                top, left = np.mgrid[:rows, :columns].reshape(2, -1)
                corners = np.stack([left, top, left + shape[1], top + shape[0]], axis=-1)
                windows.append(corners * cell_size * np.tile(np.divide(size, scaled)[::-1], 2))
                place = np.stack(
                    [np.full_like(top, level), np.full_like(top, component), top, left]
                )
                places.append(place.T)
        windows = np.float32(np.concatenate(windows))
        scores = ops.concatenate(scores, axis=1) if len(scores) > 1 else scores[0]
        nms = nms or {}
        found = _detect(windows, scores, NonMaxSuppression(**nms))
        super().__init__(images, {"scores": scores, **found}, **kwargs)
        self.hog, self.templates, self.grids = hog, templates, grids
        self.windows, self._places = windows, np.concatenate(places)
        self._parts = {
            "pyramid": (images, pyramid),
            "hog": (pyramid, maps),
            "templates": (maps, scores),
            "detections": (scores, found),
        }
        self._config = {
            "num_classes": num_classes,
            "size": tuple(size),
            "scales": tuple(scales),
            "ratios": tuple(ratios),
            "side": side,
            "margin": margin,
            "cell_size": cell_size,
            "bins": bins,
            "signed": signed,
            "nms": nms,
        }

    def slide(self, **changes):
        """The same templates over other images.

        Args:
            **changes: of the arguments `size`, `scales` and `nms`.
        """
        return type(self)(
            templates=self.templates, classes=self.classes, **{**self._config, **changes}
        )

    def fit(self, x, y=None, rounds=3, C=0.01, negatives=2000, batch_size=32, **kwargs):
        """Trains a support vector machine for each component, in rounds, which are its epochs.

        The examples of an object are the windows of its component that overlap it with an IoU of
        0.7, and the best one if it reaches 0.5. Negative examples overlap no object of the class
        with 0.3. The first are drawn at random. But there are millions, nearly all of them easy:
        so in each of the `rounds` the templates look at all images, and the windows that they find
        hardest ("hard negatives", those with a score above -1) join the examples; those that no
        longer matter are dropped. A component with at most 5 % of its class's examples is left out.

        Args:
            x: `cvlib.data.batches`, of whose `steps_per_epoch` a round looks at all; or an array of
                images.
            y: the targets of that array.
            rounds: how often hard negatives are looked for.
            C: weight of the examples' errors beside the templates' squared norm.
            negatives: how many a round adds at most to a component's.
            batch_size: of an array.
            **kwargs: `steps_per_epoch`, `callbacks` and `verbose`, as in `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`: of each round, the first at random, the `loss` (mean
            squared hinge of the components' examples), and how many `examples` are objects, and
            how many are `negatives`, of all components together.
        """
        steps = epoch_steps(x, kwargs)
        verbose = kwargs.get("verbose", "auto")
        callbacks = keras.callbacks.CallbackList(
            kwargs.get("callbacks"),
            add_history=True,
            add_progbar=verbose != 0,
            model=self,
            verbose=verbose,
            epochs=rounds + 1,
            steps=1,
        )
        self.classes = self.classes or tuple(getattr(x, "classes", ()))
        look = keras.Model(self.input, [plain(self._parts["hog"][1]), self.output["scores"]])
        rng = np.random.default_rng(0)
        components = np.ndindex(len(self.templates), self._config["num_classes"])
        examples = {component: _Examples(negatives) for component in components}
        callbacks.on_train_begin()
        for number in range(rounds + 1):
            callbacks.on_epoch_begin(number)
            for images, targets in one_pass(x, y, batch_size, steps):
                maps, scores = look.predict_on_batch(images)
                if number == 0:
                    scores = rng.random(scores.shape)
                overlaps = ops.convert_to_numpy(box_ops.iou(self.windows, targets["boxes"]))
                ignored = ops.convert_to_numpy(forgiven(targets))
                for i, overlap in enumerate(overlaps):
                    objects = {k: np.asarray(targets[k][i]) for k in ("boxes", "labels")}
                    objects["ignored"] = ignored[i]
                    features = [level[i] for level in maps]
                    key = hash(np.asarray(images[i]).tobytes())
                    self._collect(examples, features, scores[i], overlap, objects, key, number == 0)
            logs = {"loss": self._train(examples, C)}
            for name in ("examples", "negatives"):
                logs[name] = sum(len(getattr(e, name)) for e in examples.values())
            callbacks.on_epoch_end(number, logs)
        callbacks.on_train_end()
        return self.history

    def _collect(self, examples, features, scores, overlap, objects, key, first):
        """Adds the windows of one image to the examples of all components."""
        labels, components = objects["labels"], self._component(objects["boxes"])
        of_component = self._places[:, 1]
        if first:
            for n in np.flatnonzero((labels >= 0) & ~objects["ignored"]):
                its = np.where(of_component == components[n], overlap[:, n], 0)
                for window in np.flatnonzero(its >= np.clip(its.max(), *self.object_iou)):
                    example = examples[components[n], labels[n]]
                    example.examples.append(self._features(features, window))
        for (component, label), example in examples.items():
            over = overlap[:, labels == label].max(axis=1, initial=0)
            free = (of_component == component) & (over < self.background_iou)
            score = np.where(free, scores[:, label], -np.inf)
            for window in np.argsort(-score)[:PER_IMAGE]:
                if score[window] > -1:
                    its = self._features(features, window)
                    example.offer((key, window), score[window], its)

    def _component(self, boxes):
        width, height = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3).T
        ratios = np.log(self._config["ratios"])
        return np.abs(np.log(height / width)[:, None] - ratios).argmin(axis=1)

    def _features(self, maps, window):
        """What the template of a window sees, flat."""
        level, component, row, column = self._places[window]
        height, width = self.templates[component].kernel_size
        return maps[level][row : row + height, column : column + width].ravel()

    def _train(self, examples, C):
        """New weights of the templates; the mean loss of those that have examples."""
        # It takes a second to import, which only training needs.
        from sklearn.svm import LinearSVC

        losses = []
        for component, template in enumerate(self.templates):
            kernel, bias = (np.zeros_like(w) for w in template.get_weights())
            bias[:] = NEVER
            for of in [of for of in examples if of[0] == component]:
                of_class = sum(
                    len(e.examples) for (_, label), e in examples.items() if label == of[1]
                )
                example = examples[of]
                example.settle()
                positive, negative = example.examples, list(example.negatives.values())
                if len(positive) <= RARE * of_class or not negative:
                    del examples[of]
                    continue
                x = np.stack([*positive, *negative])
                y = np.repeat([1, -1], [len(positive), len(negative)])
                machine = LinearSVC(C=C, intercept_scaling=10, tol=1e-3, random_state=0).fit(x, y)
                kernel[..., of[1]] = machine.coef_.reshape(kernel.shape[:-1])
                bias[of[1]] = machine.intercept_[0]
                margins = y * machine.decision_function(x)
                losses.append(np.mean(np.maximum(0, 1 - margins) ** 2))
                example.keep(margins[len(positive) :] < 1)
            template.set_weights([kernel, bias])
        return float(np.mean(losses)) if losses else 0.0

    def compute_losses(self, y, outputs):
        """The mean hinges: of objects, at their best window, and of windows that see none."""
        scores, labels = outputs["scores"], y["labels"]
        overlap = box_ops.iou(self.windows, y["boxes"])
        best = ops.take_along_axis(scores, ops.maximum(labels, 0)[:, None], axis=2)
        best = ops.max(ops.where(overlap >= self.object_iou[0], best, -float("inf")), axis=1)
        found = ops.logical_and(labels >= 0, ~forgiven(y)) & (best > -float("inf"))
        same = labels[..., None] == ops.arange(self._config["num_classes"])
        over = ops.max(ops.where(same[:, None], overlap[..., None], 0.0), axis=2)
        return {
            "objects": mean_where(found, ops.relu(1 - ops.where(found, best, 1.0))),
            "background": mean_where(over < self.background_iou, ops.relu(1 + scores)),
        }


class _Examples:
    """What a component is trained from: windows that are the object, and windows that are not."""

    def __init__(self, limit):
        self.examples, self.negatives = [], {}
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

    def settle(self):
        """Those offered become negatives."""
        self._prune()
        self.negatives |= {key: features for key, (_, features) in self._offered.items()}
        self._offered = {}

    def keep(self, which):
        """Drops the negatives that are not hard, and do not matter to the machine."""
        self.negatives = dict(itertools.compress(self.negatives.items(), which))


def _shape(side, ratio):
    """Rows and columns of a window of the area `side`**2, height over width `ratio`."""
    root = math.sqrt(ratio)
    return max(round(side * root), 1), max(round(side / root), 1)


def _template(shape, margin, num_classes, channels):
    """The convolution whose kernel sees a window's blocks, which are one less than its cells."""
    kernel = [n + 2 * margin - BLOCK + 1 for n in shape]
    template = layers.Conv2D(num_classes, kernel, name=f"template_{_by(shape)}")
    template.build((None, None, None, channels))
    return template


def _detect(windows, scores, nms):
    # The same windows for every image.
    boxes = ops.ones_like(scores[..., :1]) * windows
    found = nms(boxes, ops.sigmoid(scores))
    return {key: found[key] for key in System.detections}


def _by(size):
    return "x".join(map(str, size))
