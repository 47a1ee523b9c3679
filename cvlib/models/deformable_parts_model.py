"""Templates with parts that may move, each for a price."""

import keras
import numpy as np
from keras import layers, ops

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

FINER = 2  # times the root's resolution
BIAS = 10.0  # the constant that a machine sees beside the features
STIFF = 0.01  # least price of a squared displacement
NORM = 0.1  # of a part's filter at first
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
        num_classes, size, scales, ratios, side, margin, cell_size, bins, nms: as of `HOGDetector`.
        parts: P, how many each component of a class has.
        part_side: of a part, in cells of the root. It has twice as many cells of its own.
        reach: how far a part may move each way, in its own cells, half of the root's.
        templates: those of another `DeformablePartsModel`, to share their weights; new ones by
            default.

    Attributes:
        windows, grids: as of `HOGDetector`.
        templates: the layers with weights: roots, filters of the parts, distance transform,
            and placements, of which the first and the last are one for each component. Channels of
            the parts are ordered by component, class and part.

    The outputs are detections, whose confidence is the sigmoid of a window's score; `scores`
    (B, W, C); and `parts` (B, K, P, 4), boxes of the parts of each detection. A class without
    examples has a score near -100 everywhere.

    Raises:
        ValueError: a window is larger than the image at some scale, or a part than a window.

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
        shapes = [window_shape(side, ratio) for ratio in ratios]
        channels = BLOCK**2 * bins
        if part_side > np.min(shapes):
            shown = " and ".join(map(by, shapes))
            raise ValueError(
                f"A part of {part_side} cells is larger than windows of {shown} cells."
            )
        if templates is None:
            number = len(shapes) * num_classes * parts
            filters = layers.Conv2D(number, FINER * part_side - 1, use_bias=False, name="parts")
            filters.build((None, None, None, channels))
            transform = DistanceTransformPooling(reach, FINER, name="transform", dtype="float32")
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
        maps, finer, rooted, fits, moved, found = [], [], [], [], [], []
        windows, grids, places, units = [], [], [], []
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
            # The image, and its mirror image.
            fits.append([filters(x) for x in (finer[-1], _mirrored(finer[-1], bins))])
            moved.append([list(transform(x).values()) for x in fits[-1]])
            both = maps[-1], _mirrored(maps[-1], bins)
            for component, shape in enumerate(shapes):
                grid, place, boxes = window_grid(size, scale, cell_size, shape)
                rooted.append([ops.cast(roots[component](x), "float32") for x in both])
                of_component = slice(
                    component * num_classes * parts, (component + 1) * num_classes * parts
                )
                ways = [
                    placements[component](root, best[..., of_component], at[..., of_component, :])
                    for root, (best, at) in zip(rooted[-1], moved[-1], strict=True)
                ]
                found.append(_better_way(*ways, FINER * shape[1], FINER * part_side))
                grids.append(grid)
                windows.append(boxes)
                places.append(np.insert(place, [0, 0], [level, component], axis=1))
                unit = np.divide(size, scaled)[::-1] * cell_size / FINER
                units.append(np.tile(np.float32(unit), (len(place), 1)))
        windows, units = np.concatenate(windows), np.concatenate(units)
        views = {key: _joined([of[key] for of in found]) for key in found[0]}
        nms = nms or {}
        detected = _detect(windows, units, views, NonMaxSuppression(**nms), FINER * part_side)
        super().__init__(images, {"scores": views["scores"], **detected}, **kwargs)
        self.templates, self.grids = templates, grids
        self.windows, self._places = windows, np.concatenate(places)
        self._units, self._shapes = units, shapes
        self._rooted, self._maps, self._views = rooted, {"maps": maps, "finer": finer}, views
        self._parts = {
            "pyramid": (images, list(pyramid.values())),
            "hog": (list(pyramid.values()), [*maps, *finer]),
            "filters": ([*maps, *finer], [rooted, fits]),
            "distance transform": (fits, moved),
            "placement": ([rooted, moved], views),
            "detections": (list(views.values()), detected),
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
            "parts": parts,
            "part_side": part_side,
            "reach": reach,
            "nms": nms,
        }

    def fit(self, x, y=None, rounds=2, latent=2, C=0.01, negatives=1000, batch_size=16, **kwargs):
        """Trains a support vector machine for each component, in rounds, which are its epochs.

        At first there are roots only. They learn from the windows that overlap an object best, all
        of them turned the same way, and from random ones; and then in `rounds`, as those of
        `HOGDetector` do, from hard negatives. Of each object the window and the direction count
        that the model itself scores highest of those that overlap it with an IoU of 0.5.

        Then each root gets its parts: they cover one after the other the place where the root has
        the most positive weight, and their filters are the root's, enlarged. In each of `latent`
        rounds, now with the parts, the model finds the best window, component, direction and places
        of the parts of every object ("latent", since nobody has drawn them), and hard negatives;
        and root, parts and prices are trained together. Boxes are fitted by least squares.

        Args:
            x, y, C, negatives, batch_size, **kwargs: as of `HOGDetector.fit`.
            rounds: how often hard negatives are looked for with roots alone.
            latent: and with parts. 0 gives roots without parts.

        Returns:
            A `keras.callbacks.History`, as that of `HOGDetector.fit`.
        """
        self._first_latent = rounds + 1
        roots, filters, *_ = self.templates
        filters.set_weights([np.zeros(filters.kernel.shape)])
        for root, placement in zip(roots, self.templates[3], strict=True):
            root.set_weights([np.zeros_like(w) for w in root.get_weights()])
            placement.reset()
        return self._rounds(rounds + 1 + latent, x, y, C, negatives, batch_size, kwargs)

    def _look(self, number, examples):
        for example in examples.values():
            example.examples, example.found = [], []
            if number == self._first_latent:  # Those of roots alone have no parts.
                example.negatives = {}
        if number == 0:
            alone = [_better_way({"scores": a}, {"scores": b}) for a, b in self._rooted]
            views = {key: _joined([of[key] for of in alone]) for key in alone[0]}
            self._looking = keras.Model(self.input, {"maps": plain(self._maps["maps"]), **views})
        elif number == self._first_latent:
            self._place_parts()
            self._looking = keras.Model(self.input, plain({**self._maps, **self._views}))
        return self._looking

    def _chosen(self, number, overlap, component, scores):
        if number == 0:
            return self._best_overlaps(overlap, component)
        best = np.where(overlap >= self.object_iou[0], scores, -np.inf).argmax()
        return [best] if overlap[best] >= self.object_iou[0] else []

    def _features(self, seen, window, label):
        level, component, row, column = self._places[window]
        margin = self._config["margin"]
        mirrored = bool(seen["mirrored"][window, label])
        height, width = self.templates[0][component].kernel_size

        def cut(blocks, top, left, height, width):
            cut = blocks[top : top + height, left : left + width]
            return _mirrored(cut, self._config["bins"]) if mirrored else cut

        features = [cut(seen["maps"][level], row, column, height, width).ravel()]
        view = (mirrored,)
        if "finer" in seen:
            corners, moved = (seen[key][window, label] for key in ("corners", "displacements"))
            origin = FINER * (np.array([row, column]) + margin)
            side = FINER * self._config["part_side"] - 1
            for top, left in origin + corners:
                features.append(cut(seen["finer"][level], top, left, side, side).ravel())
            features.append(-_powers(moved).ravel())
            view = (mirrored, moved.tobytes())
        return np.float32(np.concatenate([*features, [BIAS]])), view

    def _train(self, examples, C, number):
        losses, bins = [], self._config["bins"]
        with_parts = number >= self._first_latent
        for component, root in enumerate(self.templates[0]):
            given = self._weights(component, with_parts)
            for label, example, x, y in Examples.settled(examples, component):
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
    """The score of every window of a scale, for its root and its parts, and where the parts are.

    Args:
        shape: rows and columns of a window, in cells.
        num_classes: C.
        parts: P.
        part_side: of a part, in cells of the root.
        margin: cells around the image that the parts may see too.

    Call arguments:
        roots: (B, rows, columns, C), scores of the roots.
        fits: (B, h, w, C * P), how well each part fits near where it belongs, at each cell.
        displacements: (B, h, w, C * P, 2), where that is.

    Returns:
        A dict, of each window and class: `scores` (B, rows, columns, C); of its parts
        `displacements` and `corners` (B, rows, columns, C, P, 2), (row, column); and `boxes`
        (B, rows, columns, C, 4), xyxy. All in cells of the parts, from the window's corner.

    Attributes:
        anchors: (C, P, 2), the root's cell at which each part belongs, (row, column).
        boxes: (C, 2 P + 1, 4), xyxy from displacements and a constant.
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

    def call(self, roots, fits, displacements):
        C, P = self.num_classes, self.parts
        _, rows, columns, _ = roots.shape
        _, height, width, channels = fits.shape
        i, j = np.mgrid[:rows, :columns].reshape(2, -1, 1) + self.margin
        anchors = ops.reshape(self.anchors, (-1, 2))
        place = ops.convert_to_tensor(i * width + j, "int32")
        place = place + (anchors[:, 0] * width + anchors[:, 1])

        def of_parts(x):
            x = ops.reshape(x, (-1, height * width, channels))
            return ops.reshape(
                ops.take_along_axis(x, place[None], axis=1), (-1, rows, columns, C, P)
            )

        moved = ops.stack([of_parts(displacements[..., k]) for k in range(2)], axis=-1)
        x = ops.reshape(ops.cast(moved, "float32"), (-1, rows, columns, C, 2 * P))
        boxes = self.boxes[:, -1] + ops.einsum("brqcf,cfo->brqco", x, self.boxes[:, :-1])
        return {
            "scores": roots + ops.sum(of_parts(fits), axis=-1),
            "displacements": moved,
            "corners": FINER * self.anchors + moved,
            "boxes": boxes,
        }

    def get_config(self):
        return {
            **super().get_config(),
            "shape": self.shape,
            "num_classes": self.num_classes,
            "parts": self.parts,
            "part_side": self.part_side,
            "margin": self.margin,
        }


def _better_way(here, there, width=None, side=None):
    """Of an image and its mirror image what is found where the score is higher, for each window.

    Args:
        here, there: what `Placement` gives, or `scores` alone; of the image and its mirror image.
        width, side: of a window and of a part, in cells of the parts.

    Returns:
        A dict of (B, N, C, ...) in the image's direction, but for `displacements`, which are in
        the template's; and `mirrored` (B, N, C), which of both it was.
    """
    there = {key: ops.flip(x, axis=2) for key, x in there.items()}
    if width:
        row, column = (there["corners"][..., k] for k in range(2))
        there["corners"] = ops.stack([row, width - side - column], axis=-1)
        left, top, right, bottom = (there["boxes"][..., k] for k in range(4))
        there["boxes"] = ops.stack([width - right, top, width - left, bottom], axis=-1)

    def flat(x):
        return ops.reshape(x, (-1, x.shape[1] * x.shape[2], *x.shape[3:]))

    mirrored = there["scores"] > here["scores"]
    better = {"mirrored": flat(mirrored)}
    for key in here:
        which = mirrored
        while len(which.shape) < len(here[key].shape):
            which = which[..., None]
        better[key] = flat(ops.where(which, there[key], here[key]))
    return better


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


def _machine(x, y, C, start, lower):
    """Weights of a support vector machine of squared hinges, none of them under `lower`."""
    # It takes a second to import, which only training needs.
    from scipy.optimize import minimize

    def cost(w):
        errors = np.maximum(0, 1 - y * (x @ np.float32(w)))
        value = w @ w / 2 + C * np.sum(errors**2, dtype="float64")
        return value, w - 2 * C * np.float64(np.float32(y * errors) @ x)

    bounds = [(low if np.isfinite(low) else None, None) for low in lower]
    options = {"maxiter": 200, "ftol": 1e-6}
    start = np.maximum(start, lower)
    return minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x


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


def _joined(maps):
    return ops.concatenate(maps, axis=1) if len(maps) > 1 else maps[0]


def _detect(windows, units, views, nms, side):
    """Detections, and the boxes of their parts."""
    _, number, classes, parts, _ = views["corners"].shape
    origins, scales = windows[:, None, :2], units[:, None]
    boxes = views["boxes"] * np.tile(scales, 2) + np.tile(origins, 2)
    found = nms(boxes, ops.sigmoid(views["scores"]))
    indices, labels = (ops.maximum(found[key], 0) for key in ("indices", "labels"))
    corners = ops.reshape(views["corners"], (-1, number * classes, 2 * parts))
    corners = ops.take_along_axis(corners, (indices * classes + labels)[..., None], axis=1)
    corners = ops.reshape(ops.cast(corners, "float32"), (-1, *indices.shape[1:], parts, 2))
    corners = ops.flip(corners, axis=-1)
    sides = ops.concatenate([corners, corners + float(side)], axis=-1)
    origins = ops.take(np.tile(origins, 2), indices, axis=0)
    placed = origins + sides * ops.take(np.tile(scales, 2), indices, axis=0)
    placed = ops.where(found["labels"][..., None, None] >= 0, placed, 0.0)
    return {**{key: found[key] for key in System.detections}, "parts": placed}
