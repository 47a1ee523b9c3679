"""Templates with parts that may move, each for a price."""

import keras
import numpy as np
from keras import layers, ops
from threadpoolctl import threadpool_limits

from cvlib.layers import HOG, DistanceTransformPooling, NonMaxSuppression
from cvlib.models.system import System, plain
from cvlib.models.template_detector import (
    BLOCK,
    NEVER,
    Examples,
    TemplateDetector,
    by,
    resized,
    template,
    window_grid,
    window_shape,
)
from cvlib.sizes import height_and_width, positive_numbers

FINER = 2  # times the root's resolution
BIAS = 10.0  # the constant that a machine sees beside the features
STIFF = 0.01  # least price of a squared displacement
NORM = 0.1  # of a part's filter at first
CANDIDATES = 1000  # windows of an image whose parts are looked up, without `pre_nms_top_k`
RIDGE = 1.0  # weight of the squared norm beside the errors of boxes, in cells of the parts


@keras.saving.register_keras_serializable(package="cvlib")
class DeformablePartsModel(TemplateDetector):
    """A detector that looks for an object as a whole, and for its parts near where they belong.

    A window is scored by a template of edges, its root, as in `HOGDetector`; and by `parts`, which
    are templates at twice the resolution. Each part is at its best place within `reach` cells of
    where it belongs, and pays for its displacement (`DistanceTransformPooling`):

        score = root + bias + sum over parts of max over d of (fit - price of d)

    All of it also looks at the mirror image, and the better of both counts. Each class has a root
    and parts for each of `ratios`, its components. A box is predicted from where the parts are.

        detector = DeformablePartsModel(num_classes, size, scales, ratios)
        detector.fit(batches)
        detector.predict(images)

    Args:
        num_classes, size, scales, ratios, side, margin, cell_size, bins: as of `HOGDetector`.
        parts: P, how many each component of a class has.
        part_side: of a part, in cells of the root. It has twice as many cells of its own.
        reach: how far a part may move each way, in its own cells, half of the root's.
        nms: arguments of `NonMaxSuppression`. Unlike there, `pre_nms_top_k` is 1000 by default.
        templates: those of another `DeformablePartsModel`, to share their weights; new ones by
            default.

    Attributes:
        windows, grids: as of `HOGDetector`.
        templates: the layers with weights: roots, filters of the parts, distance transform,
            and placements, of which the first and the last are one for each component. Channels of
            the parts are ordered by component, class and part.

    The outputs are detections, whose confidence is the sigmoid of a window's score; `scores`
    (B, W, C); and `parts` (B, K, P, 4), boxes of the parts of each detection. Where the parts are
    is looked up for the surest windows only: all others need but what the parts are worth. A class
    without examples has a score near -100 everywhere.

    Raises:
        ValueError: a window is larger than the image at some scale, or a part than a window; or
            `scales` or `ratios` are not numbers above 0.

    Source: Felzenszwalb, Girshick, McAllester and Ramanan 2010, and its release 5.
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
        parts=6,
        part_side=3,
        reach=4,
        nms=None,
        templates=None,
        **kwargs,
    ):
        size = height_and_width(size)
        scales, ratios = positive_numbers("scales", scales), positive_numbers("ratios", ratios)
        shapes = [window_shape(side, ratio) for ratio in ratios]
        channels, of_component = BLOCK**2 * bins, num_classes * parts
        if part_side > np.min(shapes):
            shown = " and ".join(map(by, shapes))
            raise ValueError(
                f"A part of {part_side} cells is larger than windows of {shown} cells."
            )
        if templates is None:
            number = len(shapes) * of_component
            filters = layers.Conv2D(number, FINER * part_side - 1, use_bias=False, name="parts")
            filters.build((None, None, None, channels))
            transform = PartTransform(reach, FINER, name="transform", dtype="float32")
            transform.build((None, None, None, number))
            templates = (
                [template(shape, margin, num_classes, channels) for shape in shapes],
                filters,
                transform,
                [Placement(shape, num_classes, parts, part_side, margin) for shape in shapes],
            )
        roots, filters, transform, placements = templates
        hog = HOG(cell_size, bins, block_size=BLOCK)
        images = keras.Input((*size, 3), name="images")
        # Scales an octave apart share what they see.
        pyramid, blocks = {}, {}
        maps, finer, rooted, fits, best, placed = [], [], [], [], [], []
        windows, grids, places, units = [], [], [], []
        known = [None] * len(shapes)
        for level, scale in enumerate(scales):
            scaled = resized(size, scale)
            twice = tuple(FINER * n for n in scaled)
            for pixels in (scaled, twice):
                if pixels not in blocks:
                    antialias = pixels[0] < size[0]
                    pyramid[pixels] = ops.image.resize(images, pixels, antialias=antialias)
                    blocks[pixels] = hog(pyramid[pixels])
            # Parts see the same cells as the root, not what is left at the border of an image.
            rows, columns = (FINER * (n // cell_size) - BLOCK + 1 for n in scaled)
            maps.append(layers.ZeroPadding2D(margin)(blocks[scaled]))
            finer.append(layers.ZeroPadding2D(FINER * margin)(blocks[twice][:, :rows, :columns]))
            fits.append(filters(_both_ways(finer[-1], bins)))
            scores, prices = transform(fits[-1])
            best.append(scores)
            both = _both_ways(maps[-1], bins)
            for component, shape in enumerate(shapes):
                grid, place, boxes = window_grid(size, scale, cell_size, shape)
                rooted.append(ops.cast(roots[component](both), "float32"))
                its = best[-1][..., component * of_component : (component + 1) * of_component]
                scores, *known[component] = placements[component](rooted[-1], its)
                placed.append(scores)
                grids.append(grid)
                windows.append(boxes)
                places.append(np.insert(place, [0, 0], [level, component], axis=1))
                unit = np.divide(size, scaled)[::-1] * cell_size / FINER
                units.append(np.tile(np.float32(unit), (len(place), 1)))
        windows, units, places = map(np.concatenate, (windows, units, places))
        views, nms = _better_way(placed), nms or {}
        columns = np.repeat([columns for _, columns in grids], [np.prod(grid) for grid in grids])
        finder = PartFinder(places.tolist(), columns.tolist(), shapes, part_side, margin, reach)
        known = [prices, *map(list, zip(*known, strict=True))]  # weights: prices, anchors, boxes
        detected = _detect(windows, units, views, fits, known, finder, nms)
        super().__init__(images, {"scores": views["scores"], **detected}, **kwargs)
        self.templates, self.grids = templates, grids
        self.windows, self._places = windows, places
        self._units, self._shapes, self._columns = units, shapes, columns
        self._maps = {"maps": maps, "finer": finer, "fits": [_ways(x) for x in fits]}
        self._rooted, self._views = rooted, views
        self._parts = {
            "pyramid": (images, list(pyramid.values())),
            "hog": (list(pyramid.values()), [*maps, *finer]),
            "filters": ([*maps, *finer], [rooted, fits]),
            "distance transform": (fits, [best, known[0]]),
            "placement": ([rooted, best], [*views.values(), known[1:]]),
            "detections": ([*views.values(), fits, known], detected),
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
            "parts": parts,
            "part_side": part_side,
            "reach": reach,
            "nms": nms,
        }

    def fit(
        self,
        x,
        y=None,
        rounds=2,
        latent=2,
        mining=3,
        C=0.01,
        negatives=1000,
        per_image=20,
        batch_size=16,
        **kwargs,
    ):
        """Trains a support vector machine for each component, in rounds, which are its epochs.

        At first there are roots only. They learn from the windows that overlap an object best, all
        of them turned the same way, and from random ones; and then in `rounds`, as those of
        `HOGDetector` do, from hard negatives. Of each object the window and the direction count
        that the model itself scores highest of those that overlap it with an IoU of 0.5.

        Then each root gets its parts: they cover one after the other the place where the root has
        the most positive weight, and their filters are the root's, enlarged. In each of `latent`
        rounds, now with the parts, the model finds the best window, component, direction and places
        of the parts of every object ("latent", since nobody has drawn them). With these root, parts
        and prices are trained together, as often as hard negatives are looked for: `mining` times.
        Boxes are fitted by least squares.

        Args:
            x, y, C, negatives, per_image, batch_size, **kwargs: as of `HOGDetector.fit`.
            rounds: how often hard negatives are looked for with roots alone.
            latent: how often objects are looked for with parts. 0 gives roots without parts.
            mining: how often hard negatives are, for each of these.

        Returns:
            A `keras.callbacks.History`, as that of `HOGDetector.fit`.
        """
        self._first_latent, self._mining = rounds + 1, mining
        roots, filters, *_ = self.templates
        filters.set_weights([np.zeros(filters.kernel.shape)])
        for root, placement in zip(roots, self.templates[3], strict=True):
            root.set_weights([np.zeros_like(w) for w in root.get_weights()])
            placement.reset()
        count = rounds + 1 + latent * mining
        return self._rounds(count, x, y, C, negatives, per_image, batch_size, kwargs)

    def _look(self, number, examples):
        for example in examples.values():
            if self._relabels(number):
                example.examples, example.found = [], []
            if number == self._first_latent:  # Those of roots alone have no parts.
                example.negatives = {}
        if number == 0:
            maps = {"maps": self._maps["maps"]}
            self._looking = keras.Model(self.input, plain({**maps, **_better_way(self._rooted)}))
        elif number == self._first_latent:
            self._place_parts()
            self._looking = keras.Model(self.input, plain({**self._maps, **self._views}))
        self._read_parts()
        return self._looking

    def _relabels(self, number):
        """Whether objects are looked for again in a round, or only hard negatives."""
        return number < self._first_latent or (number - self._first_latent) % self._mining == 0

    def _read_parts(self):
        """Keeps anchors and prices as arrays, since `_moves` needs them window by window."""
        self._anchors = [placement.get_weights()[0] for placement in self.templates[3]]
        (self._prices,) = self.templates[2].get_weights()

    def _chosen(self, number, overlap, component, scores):
        if number == 0:
            return self._best_overlaps(overlap, component)
        if not self._relabels(number):
            return []
        best = np.where(overlap >= self.object_iou[0], scores, -np.inf).argmax()
        return [best] if overlap[best] >= self.object_iou[0] else []

    def _features(self, seen, window, label):
        level, component, row, column = self._places[window]
        margin, side = self._config["margin"], FINER * self._config["part_side"]
        mirrored = bool(seen["mirrored"][window, label])
        height, width = self.templates[0][component].kernel_size

        def cut(blocks, top, left, height, width):
            cut = blocks[top : top + height, left : left + width]
            return _mirrored(cut, self._config["bins"]) if mirrored else cut

        features = [cut(seen["maps"][level], row, column, height, width).ravel()]
        view = (mirrored,)
        if "finer" in seen:
            anchors, moved = self._moves(seen["fits"][level][mirrored], window, label, mirrored)
            corners = FINER * anchors + moved
            if mirrored:
                corners[:, 1] = FINER * self._shapes[component][1] - side - corners[:, 1]
            for top, left in FINER * (np.array([row, column]) + margin) + corners:
                features.append(cut(seen["finer"][level], top, left, side - 1, side - 1).ravel())
            features.append(-_powers(moved).ravel())
            view = (mirrored, moved.tobytes())
        return np.float32(np.concatenate([*features, [BIAS]])), view

    def _moves(self, fits, window, label, mirrored):
        """Where the parts of a window belong, and how they move (P, 2), as the template sees it.

        `fits` (h, w, channels) are those of its level and direction.
        """
        _, component, row, column = self._places[window]
        parts, reach = self._config["parts"], self._config["reach"]
        if mirrored:
            column = self._columns[window] - 1 - column
        anchors = self._anchors[component][label]
        channels = self._channels(component).start + label * parts + np.arange(parts)
        d = np.arange(-reach, reach + 1)
        places = FINER * (np.array([row, column]) + self._config["margin"] + anchors)
        rows, columns = places[:, 0, None, None] + d[:, None], places[:, 1, None, None] + d
        ay, by, ax, bx = self._prices[channels].T[..., None, None]
        height, width, _ = fits.shape
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        worth = fits[rows % height, columns % width, channels[:, None, None]]
        worth = worth - (ax * d**2 + bx * d) - (ay * d[:, None] ** 2 + by * d[:, None])
        best = np.where(inside, worth, -np.inf).reshape(parts, -1).argmax(axis=1)
        return anchors, np.stack(np.divmod(best, len(d)), axis=-1) - reach

    def _train(self, examples, C, number):
        losses, bins = [], self._config["bins"]
        with_parts = number >= self._first_latent
        for component, root in enumerate(self.templates[0]):
            given = self._weights(component, with_parts)
            for label, example, x, y in Examples.of_component(examples, component):
                if number == 0:
                    objects = x[: len(example.examples), :-1].reshape(-1, *root.kernel.shape[:-1])
                    x[: len(objects), :-1] = _one_way(objects, bins).reshape(len(objects), -1)
                w = _machine(x, y, C, given[label], self._stiff(component, with_parts))
                given[label] = w
                margins = y * (x @ np.float32(w))
                losses.append(np.mean(np.maximum(0, 1 - margins) ** 2))
                example.keep(margins[y < 0] < 1)
                if with_parts:
                    self._fit_boxes(component, label, example)
            absent = [
                k for k in range(self._config["num_classes"]) if (component, k) not in examples
            ]
            given[absent] = 0
            given[absent, -1] = NEVER / BIAS
            self._set_weights(component, given, with_parts)
        return float(np.mean(losses)) if losses else 0.0

    def _weights(self, component, with_parts):
        """Weights (C, F) of the features that `_features` gives for the windows of a component."""
        roots, filters, transform, _ = self.templates
        kernel, bias = roots[component].get_weights()
        weights = [_by_class(kernel, len(bias))]
        if with_parts:
            its = self._channels(component)
            weights.append(_by_class(filters.get_weights()[0][..., its], len(bias)))
            weights.append(transform.get_weights()[0][its].reshape(len(bias), -1))
        return np.concatenate([*weights, bias[:, None] / BIAS], axis=1)

    def _set_weights(self, component, weights, with_parts):
        roots, filters, transform, _ = self.templates
        root, count = roots[component], len(weights)
        size = np.prod(root.kernel.shape[:-1])
        kernel = weights[:, :size].T.reshape(root.kernel.shape)
        root.set_weights([kernel, BIAS * weights[:, -1]])
        if with_parts:
            its = self._channels(component)
            (kernel,), (price,) = filters.get_weights(), transform.get_weights()
            price[its] = weights[:, -1 - 4 * self._config["parts"] : -1].reshape(-1, 4)
            of_parts = weights[:, size : -1 - 4 * self._config["parts"]]
            of_parts = of_parts.reshape(count * self._config["parts"], -1).T
            kernel[..., its] = of_parts.reshape(*kernel.shape[:-1], -1)
            filters.set_weights([kernel])
            transform.set_weights([price])

    def _channels(self, component):
        each = self._config["num_classes"] * self._config["parts"]
        return slice(component * each, (component + 1) * each)

    def _place_parts(self):
        """Parts where the roots have the most positive weight, and filters that are the roots'."""
        _, filters, transform, placements = self.templates
        parts, side = self._config["parts"], self._config["part_side"]
        (kernels,), (price,) = filters.get_weights(), transform.get_weights()
        size = FINER * side - 1
        for component, (shape, placement) in enumerate(zip(self._shapes, placements, strict=True)):
            kernel = self.templates[0][component].get_weights()[0]
            # Blocks of the finer cells, and where their centres are among the root's blocks.
            rows, columns = (
                _hats((np.arange(FINER * n - 1) - 1) / FINER + self._config["margin"], blocks)
                for n, blocks in zip(shape, kernel.shape, strict=False)
            )
            enlarged = np.maximum(np.einsum("ai,bj,ijkc->cabk", rows, columns, kernel), 0)
            energy = np.sum(enlarged**2, axis=-1)
            anchors = np.zeros(placement.anchors.shape, int)
            for label, part in np.ndindex(*anchors.shape[:2]):
                views = np.lib.stride_tricks.sliding_window_view(energy[label], (size, size))
                sums = views[::FINER, ::FINER].sum(axis=(2, 3))
                anchor = np.unravel_index(sums.argmax(), sums.shape)
                anchors[label, part] = anchor
                top, left = FINER * np.array(anchor)
                covered = slice(top, top + size), slice(left, left + size)
                its = enlarged[label][covered]
                channel = self._channels(component).start + label * parts + part
                kernels[..., channel] = NORM * its / max(np.linalg.norm(its), 1e-9)
                energy[label][covered] = 0
            placement.anchors.assign(anchors)
        price[:] = [0.1, 0, 0.1, 0]
        filters.set_weights([kernels])
        transform.set_weights([price])

    def _stiff(self, component, with_parts):
        """Lower bounds of the weights: moving far has to cost something."""
        lower = np.full(self._weights(component, with_parts).shape[1], -np.inf)
        if with_parts:
            lower[-1 - 4 * self._config["parts"] : -1 : 2] = STIFF
        return lower

    def _fit_boxes(self, component, label, example):
        """The boxes of the examples, from where their parts are, by least squares."""
        placement = self.templates[3][component]
        moved = -np.stack(example.examples)[:, -1 - 4 * self._config["parts"] : -1][:, 1::2]
        x = np.insert(moved, moved.shape[1], 1, axis=1)
        window = placement.window
        targets = []
        for place, (mirrored, _), box in example.found:
            corners = (box.reshape(2, 2) - self.windows[place, :2]) / self._units[place]
            left, top, right, bottom = corners.ravel()
            if mirrored:
                left, right = window[2] - right, window[2] - left
            targets.append([left, top, right, bottom])
        squares = x.T @ x + RIDGE * np.eye(x.shape[1])
        by_moving = np.linalg.solve(squares, x.T @ (np.array(targets) - window))
        by_moving[-1] += window
        boxes = placement.get_weights()[1]
        boxes[label] = by_moving
        placement.boxes.assign(boxes)


@keras.saving.register_keras_serializable(package="cvlib")
class Placement(keras.layers.Layer):
    """The score of every window of a scale, for its root and its parts.

    Args:
        shape: rows and columns of a window, in cells.
        num_classes: C.
        parts: P.
        part_side: of a part, in cells of the root.
        margin: cells around the image that the parts may see too.

    Call arguments:
        roots: (B, rows, columns, C), scores of the roots.
        fits: (B, h, w, C * P), how well each part fits near where it belongs, at each cell.

    Returns:
        (B, rows, columns, C), the scores of the windows; and `anchors` and `boxes`.

    Attributes:
        anchors: (C, P, 2), the root's cell at which each part belongs, (row, column).
        boxes: (C, 2 P + 1, 4), xyxy from displacements and a constant, in cells of the parts from
            the window's corner.
        window: xyxy of the window.
    """

    def __init__(self, shape, num_classes, parts, part_side, margin, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.shape = tuple(shape)
        self.num_classes = num_classes
        self.parts = parts
        self.part_side = part_side
        self.margin = margin
        self.window = np.array([0, 0, FINER * shape[1], FINER * shape[0]])

    def build(self, *_):
        each = (self.num_classes, self.parts)
        self.anchors = self.add_weight(
            (*each, 2), "zeros", dtype="int32", trainable=False, name="anchors"
        )
        self.boxes = self.add_weight(
            (each[0], 2 * each[1] + 1, 4), "zeros", trainable=False, autocast=False, name="boxes"
        )
        self.reset()

    def reset(self):
        """A box is the window until it is learned."""
        boxes = np.zeros(self.boxes.shape)
        boxes[:, -1] = self.window
        self.boxes.assign(boxes)

    def call(self, roots, fits):
        C, P = self.num_classes, self.parts
        _, rows, columns, _ = roots.shape
        _, height, width, channels = fits.shape
        i, j = np.mgrid[:rows, :columns].reshape(2, -1, 1) + self.margin
        anchors = ops.reshape(self.anchors, (-1, 2))
        place = ops.convert_to_tensor(i * width + j, "int32")
        place = place + (anchors[:, 0] * width + anchors[:, 1])
        x = ops.reshape(fits, (-1, height * width, channels))
        x = ops.take_along_axis(x, place[None], axis=1)
        scores = roots + ops.sum(ops.reshape(x, (-1, rows, columns, C, P)), axis=-1)
        return scores, ops.convert_to_tensor(self.anchors), ops.convert_to_tensor(self.boxes)

    def get_config(self):
        return {
            **super().get_config(),
            "shape": self.shape,
            "num_classes": self.num_classes,
            "parts": self.parts,
            "part_side": self.part_side,
            "margin": self.margin,
        }


@keras.saving.register_keras_serializable(package="cvlib")
class PartTransform(DistanceTransformPooling):
    """The scores of a `DistanceTransformPooling`, and its weights, which `PartFinder` sees too."""

    def call(self, inputs):
        return super().call(inputs)["scores"], ops.convert_to_tensor(self.deformation)

    def compute_output_shape(self, input_shape):
        return super().compute_output_shape(input_shape)["scores"], self.deformation.shape

    def compute_output_spec(self, inputs):
        scores, prices = self.compute_output_shape(inputs.shape)
        return keras.KerasTensor(scores), keras.KerasTensor(prices)


@keras.saving.register_keras_serializable(package="cvlib")
class PartFinder(keras.layers.Layer):
    """Where the parts of some windows are, and the boxes that they give.

    The maxima of the distance transform say what a part is worth. Where it is takes several times
    as long to find, and is of interest in few windows; in these each displacement is tried.

    Args:
        places: level, component, row and column of each of W windows.
        columns: of the windows of its level and component, for each window.
        shapes: (rows, columns) of a window of each component, in cells.
        part_side, margin, reach: as of `DeformablePartsModel`.

    Call arguments:
        fits: of each level (2 B, h, w, channels), how well each part fits at each cell of the image
            and of its mirror image.
        windows, labels: (B, K), of which window and class parts are looked for.
        mirrored: (B, K), whether in the mirror image.
        known: weights: the transform's, a list of `anchors` of each component, and one of `boxes`.

    Returns:
        `{"corners": (B, K, P, 2), "boxes": (B, K, 4)}`: (row, column) of the parts, and xyxy, in
        cells of the parts from the window's corner, in the image's direction.
    """

    def __init__(self, places, columns, shapes, part_side, margin, reach, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.places = places
        self.columns = columns
        self.shapes = shapes
        self.part_side = part_side
        self.margin = margin
        self.reach = reach

    def call(self, fits, windows, labels, mirrored, known):
        prices, anchors, boxes = known
        C, P, _ = anchors[0].shape
        reach, channels = self.reach, fits[0].shape[-1]
        room = ((0, 0), (reach, reach), (reach, reach), (0, 0))
        fits = [ops.pad(ops.cast(x, "float32"), room, constant_values=-float("inf")) for x in fits]
        heights, widths = np.transpose([x.shape[1:3] for x in fits])
        starts = np.cumsum([0, *heights * widths])
        fits = [ops.reshape(x, (2, -1, x.shape[1] * x.shape[2] * channels)) for x in fits]
        fits = ops.concatenate(fits, axis=2) if len(fits) > 1 else fits[0]

        level, component, row, column = np.transpose(self.places)
        breadth = FINER * np.array(self.shapes)[component, 1]
        opposite = np.array(self.columns) - 1 - column
        table = [component, starts[level], widths[level], row, column, opposite, breadth]
        table = ops.take(np.stack(table, axis=1).astype("int32"), windows, axis=0)
        component, start, width, row, column, opposite, breadth = ops.unstack(table, axis=-1)
        column = ops.where(mirrored, opposite, column)
        kind = component * C + labels

        def of_kind(weights, *shape):
            weights = ops.concatenate([ops.reshape(w, (-1, *shape)) for w in weights], axis=0)
            return ops.take(weights, kind, axis=0)

        anchors, boxes = of_kind(anchors, P, 2), of_kind(boxes, 2 * P + 1, 4)
        prices = of_kind([prices], P, 4)[..., None]
        # All displacements, row by row, at every part's place among the values of `fits`.
        moves = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
        dy, dx = ops.unstack(ops.convert_to_tensor(moves, "int32"))
        y, x = (
            FINER * (place[..., None] + self.margin + anchors[..., k]) + reach
            for k, place in enumerate((row, column))
        )
        y, x = y[..., None] + dy, x[..., None] + dx
        part = kind[..., None] * P + ops.arange(P)
        at = (y * width[..., None, None] + x) * channels + part[..., None]
        at = start[..., None, None] * channels + at
        each = at.shape[1:]
        at = ops.reshape(at, (-1, np.prod(each)))
        worth = [
            ops.reshape(ops.take_along_axis(fits[way], at, axis=1), (-1, *each)) for way in range(2)
        ]
        worth = ops.where(mirrored[..., None, None], worth[1], worth[0])
        dy, dx = ops.cast(dy, "float32"), ops.cast(dx, "float32")
        worth = worth - (prices[..., 2, :] * dx**2 + prices[..., 3, :] * dx)
        worth = worth - (prices[..., 0, :] * dy**2 + prices[..., 1, :] * dy)
        best = ops.top_k(worth, 1)[1][..., 0]  # An argmax that every format has.
        moved = ops.stack([best // (2 * reach + 1), best % (2 * reach + 1)], axis=-1) - reach

        corners = FINER * anchors + moved
        x = ops.reshape(ops.cast(moved, "float32"), (-1, moved.shape[1], 2 * P))
        boxes = boxes[:, :, -1] + ops.einsum("bkf,bkfo->bko", x, boxes[:, :, :-1])
        side = FINER * self.part_side
        turned = ops.stack([corners[..., 0], breadth[..., None] - side - corners[..., 1]], axis=-1)
        left, top, right, bottom = ops.unstack(boxes, axis=-1)
        breadth = ops.cast(breadth, "float32")
        opposite = ops.stack([breadth - right, top, breadth - left, bottom], axis=-1)
        return {
            "corners": ops.where(mirrored[..., None, None], turned, corners),
            "boxes": ops.where(mirrored[..., None], opposite, boxes),
        }

    def compute_output_spec(self, fits, windows, labels, mirrored, known):
        shape = (*windows.shape, known[1][0].shape[1], 2)
        return {
            "corners": keras.KerasTensor(shape, "int32"),
            "boxes": keras.KerasTensor((*windows.shape, 4), "float32"),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "places": self.places,
            "columns": self.columns,
            "shapes": self.shapes,
            "part_side": self.part_side,
            "margin": self.margin,
            "reach": self.reach,
        }


def _both_ways(blocks, bins):
    """(B, h, w, D) to (2 B, h, w, D): blocks of the images, then of their mirror images."""
    return ops.concatenate([blocks, _mirrored(blocks, bins)], axis=0)


def _ways(x):
    """Of (2 B, ...) what is of the images, and what is of their mirror images."""
    x = ops.reshape(x, (2, -1, *x.shape[1:]))
    return [x[0], x[1]]


def _better_way(scores):
    """For each window of an image, whether it or its mirror image scores higher, and how high.

    Args:
        scores: of each level and component (2 B, rows, columns, C), of images and mirror images.

    Returns:
        `{"scores": (B, W, C), "mirrored": (B, W, C)}`.
    """
    joined = []
    for ways, (_, rows, columns, classes) in ((_ways(x), x.shape) for x in scores):
        ways[1] = ops.flip(ways[1], axis=2)
        joined.append([ops.reshape(x, (-1, rows * columns, classes)) for x in ways])
    here, there = (
        ops.concatenate(x, axis=1) if len(x) > 1 else x[0] for x in zip(*joined, strict=True)
    )
    return {"scores": ops.maximum(here, there), "mirrored": there > here}


def _mirrored(blocks, bins):
    """The blocks of the mirror image, which has them, their cells and directions the other way."""
    order = np.arange(BLOCK**2 * bins).reshape(BLOCK, BLOCK, bins)[:, ::-1, ::-1].ravel()
    if isinstance(blocks, np.ndarray):
        return blocks[..., ::-1, :][..., order]
    return ops.take(ops.flip(blocks, axis=-2), order, axis=-1)


def _one_way(objects, bins):
    """Objects (N, h, w, D), some of them mirrored, so that as many as can be look the same way.

    The differences from their mirror images have signs; those that make the sum longest are sought
    by turns, as in a k-means of two clusters.
    """
    other = _mirrored(objects, bins)
    differences = (objects - other).reshape(len(objects), -1)
    towards = differences[np.linalg.norm(differences, axis=1).argmax()]
    for _ in range(10):
        turned = differences @ towards < 0
        towards = np.where(turned[:, None], -differences, differences).sum(axis=0)
    return np.where(turned[:, None, None, None], other, objects)


@threadpool_limits.wrap(limits=1)  # More would wait for each other: the matrices are small.
def _machine(x, y, C, start, lower):
    """Weights of a support vector machine of squared hinges, none of them under `lower`."""
    # It takes a second to import, which only training needs.
    from scipy import linalg, optimize

    free = ~np.isfinite(lower)
    if len(x) < free.sum():
        # The weights are a sum of examples: as many coordinates are enough, in which the squared
        # norm is the same, and which are looked at much faster.
        its = x[:, free]
        gram = np.float64(its @ its.T)
        root = linalg.cholesky(gram + 1e-6 * gram.trace() / len(x) * np.eye(len(x)), lower=True)
        fewer = np.hstack([np.float32(root), x[:, ~free]])
        start = linalg.solve_triangular(root, its @ start[free], lower=True), start[~free]
        bounds = np.repeat(-np.inf, len(x)), lower[~free]
        found = _machine(fewer, y, C, *map(np.concatenate, (start, bounds)))
        w = np.zeros(len(free))
        w[free] = linalg.solve_triangular(root.T, found[: len(x)]) @ its
        w[~free] = found[len(x) :]
        return w

    def cost(w):
        errors = np.maximum(0, 1 - y * (x @ np.float32(w)))
        value = w @ w / 2 + C * np.sum(errors**2, dtype="float64")
        return value, w - 2 * C * np.float64(np.float32(y * errors) @ x)

    bounds = [(low if np.isfinite(low) else None, None) for low in lower]
    options = {"maxiter": 200, "ftol": 1e-6}
    start = np.maximum(start, lower)
    return optimize.minimize(
        cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    ).x


def _powers(moved):
    """What a displacement (..., 2) is charged for: dy^2, dy, dx^2, dx."""
    moved = np.float32(moved)
    return np.stack([moved**2, moved], axis=-1).reshape(*moved.shape[:-1], 4)


def _hats(positions, count):
    """Shares (N, count) of the values at 0, 1, ... in linear interpolation at `positions`."""
    positions = np.clip(positions, 0, count - 1)
    return np.maximum(1 - np.abs(positions[:, None] - np.arange(count)), 0)


def _by_class(kernel, num_classes):
    """Weights (C, F) of a kernel (h, w, D, C * P), class by class and part by part."""
    return np.moveaxis(kernel, -1, 0).reshape(num_classes, -1)


def _detect(windows, units, views, fits, known, finder, nms):
    """Detections, and the boxes of their parts."""
    _, number, classes = views["scores"].shape
    scores, mirrored = (ops.reshape(x, (-1, number * classes)) for x in views.values())
    candidates = min(nms.get("pre_nms_top_k") or CANDIDATES, number * classes)
    scores, order = ops.top_k(scores, candidates)
    indices, labels = order // classes, order % classes
    found = finder(fits, indices, labels, ops.take_along_axis(mirrored, order, axis=1), known)
    origins, scales = (ops.take(np.tile(x, 2), indices, axis=0) for x in (windows[:, :2], units))
    boxes = origins + found["boxes"] * scales
    # A candidate is of one class, and no candidate for the others.
    its = ops.equal(labels[..., None], np.arange(classes, dtype="int32"))
    kept = NonMaxSuppression(**nms)(boxes, ops.where(its, ops.sigmoid(scores)[..., None], -1.0))
    corners = ops.flip(ops.cast(found["corners"], "float32"), axis=-1)
    side = float(FINER * finder.part_side)
    sides = ops.concatenate([corners, corners + side], axis=-1)
    placed = origins[:, :, None] + sides * scales[:, :, None]
    parts = placed.shape[2]
    placed = ops.reshape(placed, (-1, candidates, parts * 4))
    placed = ops.take_along_axis(placed, ops.maximum(kept["indices"], 0)[..., None], axis=1)
    placed = ops.reshape(placed, (-1, placed.shape[1], parts, 4))
    placed = ops.where(kept["labels"][..., None, None] >= 0, placed, 0.0)
    return {**{key: kept[key] for key in System.detections}, "parts": placed}
