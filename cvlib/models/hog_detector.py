"""Templates of edges, compared with every place of an image at every size."""

import keras
import numpy as np
from keras import layers, ops

from cvlib.layers import HOG, NonMaxSuppression
from cvlib.models.system import System, plain
from cvlib.models.template_detector import (
    BLOCK,
    NEVER,
    Examples,
    TemplateDetector,
    resized,
    template,
    window_grid,
    window_shape,
)
from cvlib.sizes import height_and_width, positive_numbers


@keras.saving.register_keras_serializable(package="cvlib")
class HOGDetector(TemplateDetector):
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
        margin: cells around a window that its template sees too. A block that is not whole inside
            the image is of zeros, as if there were no edges: when it learns and when it looks.
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
        ValueError: a window is larger than the image at some scale; or `scales` or `ratios` are not
            numbers above 0.

    Source: Dalal and Triggs 2005; components by aspect ratio are those of Felzenszwalb et al. 2010.
    """

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
        size = height_and_width(size)
        scales, ratios = positive_numbers("scales", scales), positive_numbers("ratios", ratios)
        # In cells: a window covers `shape` without its margin.
        shapes = [window_shape(side, ratio) for ratio in ratios]
        if templates is None:
            templates = [template(shape, margin, num_classes, BLOCK**2 * bins) for shape in shapes]
        hog = HOG(cell_size, bins, signed, BLOCK)
        images = keras.Input((*size, 3), name="images")
        pyramid, maps, scores, windows, grids, places = [], [], [], [], [], []
        for level, scale in enumerate(scales):
            # Nothing is to be smoothed in a larger image; TensorFlow would spend time on it.
            pyramid.append(ops.image.resize(images, resized(size, scale), antialias=scale < 1))
            # The margin of a window may lie outside of the image.
            maps.append(layers.ZeroPadding2D(margin)(hog(pyramid[-1])))
            for component, (shape, of_shape) in enumerate(zip(shapes, templates, strict=True)):
                grid, place, boxes = window_grid(size, scale, cell_size, shape)
                found = of_shape(maps[-1])
                scores.append(layers.Reshape((-1, num_classes), dtype="float32")(found))
                grids.append(grid)
                windows.append(boxes)
                places.append(np.insert(place, [0, 0], [level, component], axis=1))
        windows = np.concatenate(windows)
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
            "size": size,
            "scales": scales,
            "ratios": ratios,
            "side": side,
            "margin": margin,
            "cell_size": cell_size,
            "bins": bins,
            "signed": signed,
            "nms": nms,
        }

    def fit(
        self,
        x,
        y=None,
        rounds=3,
        C=0.01,
        negatives=2000,
        per_image=20,
        batch_size=32,
        **kwargs,
    ):
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
            per_image: how many of them are from one image at most. Large images with many objects
                have more that are hard, and need more rounds where few of them are taken.
            batch_size: of an array.
            **kwargs: `steps_per_epoch`, `callbacks` and `verbose`, as in `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`: of each round, the first at random, the `loss` (mean
            squared hinge of the components' examples), and how many `examples` are objects, and
            how many are `negatives`, of all components together.
        """
        return self._rounds(rounds + 1, x, y, C, negatives, per_image, batch_size, kwargs)

    def _look(self, number, examples):
        if number == 0:
            self._looking = keras.Model(
                self.input, {"maps": plain(self._parts["hog"][1]), "scores": self.output["scores"]}
            )
        return self._looking

    def _chosen(self, number, overlap, component, scores):
        return self._best_overlaps(overlap, component) if number == 0 else []

    def _features(self, seen, window, label):
        level, component, row, column = self._places[window]
        height, width = self.templates[component].kernel_size
        its = seen["maps"][level][row : row + height, column : column + width]
        return np.float32(its.ravel()), None

    def _train(self, examples, C, number):
        # It takes a second to import, which only training needs.
        from sklearn.svm import LinearSVC

        losses = []
        for component, of_shape in enumerate(self.templates):
            kernel, bias = (np.zeros_like(w) for w in of_shape.get_weights())
            bias[:] = NEVER
            for label, example, x, y in Examples.of_component(examples, component):
                machine = LinearSVC(C=C, intercept_scaling=10, tol=1e-3, random_state=0).fit(x, y)
                kernel[..., label] = machine.coef_.reshape(kernel.shape[:-1])
                bias[label] = machine.intercept_[0]
                margins = y * machine.decision_function(x)
                losses.append(np.mean(np.maximum(0, 1 - margins) ** 2))
                example.keep(margins[y < 0] < 1)
            of_shape.set_weights([kernel, bias])
        return float(np.mean(losses)) if losses else 0.0


def _detect(windows, scores, nms):
    # The same windows for every image.
    boxes = ops.ones_like(scores[..., :1]) * windows
    found = nms(boxes, ops.sigmoid(scores))
    return {key: found[key] for key in System.detections}
