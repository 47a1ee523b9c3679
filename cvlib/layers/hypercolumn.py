"""What maps of several depths say of each pixel of a box, and classifiers for each part of a box.

Hariharan et al., Hypercolumns for Object Segmentation and Fine-grained Localization, 2015,
section 3.
"""

import math

import keras
import numpy as np
from keras import ops

from cvlib.layers.crop_and_resize import extended, resample
from cvlib.sizes import height_and_width, positive_stride


@keras.saving.register_keras_serializable(package="cvlib")
class Hypercolumn(keras.layers.Layer):
    """Linear scores of the hypercolumns at every pixel of a grid over each box.

    The hypercolumn of a pixel is what all maps hold there, interpolated bilinearly, and what the
    box as a whole holds, one below the other: thousands of numbers. None is ever built. A linear
    score of it is a sum over the maps, and interpolation is linear too: so each map is scored in
    its own cells, by a convolution, and the scores are interpolated and added.

    Half-pixel aligned: a map's cell holds the value of its centre; beyond the outermost centres a
    map goes on as it ends. Differentiable in the features and, where nothing is clamped, in the
    boxes.

    Args:
        channels: D, scores of a pixel.
        strides: of each map, pixels of the image between its neighbouring cells; None for features
            of boxes as wholes.
        size: (height, width) of the grid; one number stands for both.
        num_classes: C; each class has scores of its own.
        kernel_size: of the convolutions. From 3 on they see a cell's neighbours too; 1 is the
            linear classifier of the hypercolumn alone. The authors' release has 3 for VGG's third
            pooled map, and 1 for the fourth.
        scales: of each map, a factor before it is scored; all 1 by default. Networks without
            normalisation have early maps of large values; the release has 0.0027 for the third
            pooled map, and 0.063 for the fourth.

    Call arguments:
        features: list, for each of `strides` a map (B, H, W, F) or features of boxes (B, R, F).
        boxes: (B, R, 4) floats, `xyxy` in pixels of the image; kept in float32 under any policy.
        labels: (B, R) integers in 0..C-1, the class of each box; 0 without them. Those below 0,
            such as padding, count as 0, and those above as C-1.

    Returns:
        (B, R, height, width, D) in the layer's compute type.

    Memory at the peak, beside input and output: (B, R, height, W, D) of the largest map, and with
    several classes (B, R, H, W, D).

    Raises:
        ValueError: there are no `strides`, one is not above 0, there are not as many `features`
            or `scales`, or not as many labels or features of boxes as boxes.
    """

    def __init__(
        self,
        channels,
        strides=(8, 16),
        size=(50, 50),
        num_classes=1,
        kernel_size=1,
        scales=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.channels = channels
        self.strides = tuple(s if s is None else positive_stride(s) for s in strides)
        if not self.strides:
            raise ValueError("There are no `strides`, and so nothing to score.")
        self.size = height_and_width(size)
        self.num_classes = num_classes
        self.kernel_size = kernel_size
        self.scales = (1.0,) * len(self.strides) if scales is None else tuple(scales)
        self._check("`scales`", self.scales)

    def _check(self, name, given):
        if len(given) != len(self.strides):
            raise ValueError(f"{len(self.strides)} strides, but {len(given)} {name}.")

    def build(self, features_shape, boxes_shape, labels_shape=None):
        self._check("features", features_shape)
        self.scores = []
        for i, shape in enumerate(features_shape):
            count = self.num_classes * self.channels
            options = {
                # At first all pixels are alike, as in the authors' release.
                "kernel_initializer": keras.initializers.RandomNormal(stddev=0.01),
                "name": f"score{i}",
                "dtype": self.dtype_policy,
            }
            if self.strides[i] is None:
                score = keras.layers.Dense(count, **options)
            else:
                options |= {"padding": "same", "data_format": "channels_last"}
                score = keras.layers.Conv2D(count, self.kernel_size, **options)
            score.build(shape)
            self.scores.append(score)

    def call(self, features, boxes, labels=None):
        shape = (*ops.shape(boxes)[:2], *self.size, self.channels)
        total = 0.0
        for scores, boxes_there in self.of_depths(features, boxes, labels):
            if boxes_there is None:
                total = total + scores[:, :, None, None]
            else:
                upsampled = resample(scores, *_weights(scores, boxes_there, self.size))
                total = total + ops.reshape(upsampled, shape)
        return ops.broadcast_to(total, shape)

    def of_depths(self, features, boxes, labels=None):
        """For each of the `strides` the scores of the boxes' classes, not yet interpolated.

        Yields:
            Maps (N, H, W, D), and the boxes (N, B R / N, 4), in cells, that look at each: with one
            class N is B, with several a map is of one box alone. Or (B, R, D), and None.
        """
        self._check("features", features)
        boxes = ops.cast(boxes, "float32")
        batch, count = ops.shape(boxes)[:2]
        labels = ops.zeros((batch, count), "int32") if labels is None else labels
        labels = ops.clip(ops.cast(labels, "int32"), 0, self.num_classes - 1)
        of_boxes = (x for x, stride in zip(features, self.strides, strict=True) if stride is None)
        counts = [x.shape[1] for x in (boxes, labels, *of_boxes)]
        if len({*counts} - {None}) > 1:
            raise ValueError(
                f"{counts[0]} boxes, but labels and features of boxes for {counts[1:]}."
            )
        for x, stride, scale, score in zip(
            features, self.strides, self.scales, self.scores, strict=True
        ):
            x = scale * ops.cast(x, self.compute_dtype)
            if stride is None:
                scores = ops.reshape(score(x), (batch, count, self.num_classes, self.channels))
                yield ops.take_along_axis(scores, labels[..., None, None], axis=2)[:, :, 0], None
            elif self.num_classes == 1:
                yield score(x), boxes / stride
            else:
                own = self._of_boxes(score(x), labels)
                yield own, ops.reshape(boxes / stride, (-1, 1, 4))

    def _of_boxes(self, scores, labels):
        """Maps (B R, H, W, D), for each box those of its class, of all scores (B, H, W, C D)."""
        batch, height, width, _ = ops.shape(scores)
        of_classes = ops.reshape(scores, (-1, height, width, self.num_classes, self.channels))
        of_classes = ops.transpose(of_classes, (0, 3, 1, 2, 4))
        maps = ops.reshape(of_classes, (-1, height, width, self.channels))
        place = ops.arange(batch, dtype="int32")[:, None] * self.num_classes + labels
        return ops.take(maps, ops.reshape(place, (-1,)), axis=0)

    def compute_output_shape(self, features_shape, boxes_shape, labels_shape=None):
        return (*boxes_shape[:2], *self.size, self.channels)

    def get_config(self):
        config = {
            "channels": self.channels,
            "strides": self.strides,
            "size": self.size,
            "num_classes": self.num_classes,
            "kernel_size": self.kernel_size,
            "scales": self.scales,
        }
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="cvlib")
class ClassifierGrid(keras.layers.Layer):
    """Probabilities of pixels by K x K classifiers, each for its part of the box.

    A head is at the top of a box and feet are at its bottom: each of K x K equal parts has a
    classifier of its own, which holds at its centre. Between the centres what the classifiers say
    is interpolated bilinearly, the probabilities and not the logits; beyond the outermost centres
    the nearest ones hold.

    Call arguments:
        logits: (B, R, M, N, K K) floats, what every classifier says of each pixel of a box; those
            of the first row of parts come first.

    Returns:
        (B, R, M, N) in 0..1, in the layer's compute type.

    Raises:
        ValueError: the number of classifiers is no square.

    Source: Hariharan et al. 2015, section 3. There the interpolation is left out in training.
    """

    def call(self, logits):
        _, _, height, width, count = ops.shape(logits)
        side = _side(count)
        rows, columns = _shares(height, side), _shares(width, side)
        shares = np.reshape(rows[:, None, :, None] * columns[:, None], (height, width, count))
        shares = ops.convert_to_tensor(shares, self.compute_dtype)
        return ops.sum(ops.sigmoid(logits) * shares, axis=-1)

    def compute_output_shape(self, logits_shape):
        return logits_shape[:-1]


@keras.saving.register_keras_serializable(package="cvlib")
class HypercolumnMasks(keras.layers.Layer):
    """What a `ClassifierGrid` makes of the scores of a `Hypercolumn`, in less time.

    At a pixel at most four of K x K classifiers count. So each has a window, from the centres of
    its neighbours on one side, or the box's border, to those on the other, and is asked at the rows
    and columns of that alone. On a processor it takes a third to three quarters of the time of the
    two layers (`hypercolumn_cost`).

    Args:
        hypercolumn: a `Hypercolumn` of K x K channels.

    Call arguments:
        features, boxes, labels: as of the hypercolumn.

    Returns:
        (B, R, height, width) probabilities, in the layer's compute type.

    Memory at the peak, beside input and output: about (B, R, 2 height, 2 width), (B, R, 2 height,
    W, K) of the largest map, its scores (B, H, W, C K K), and with several classes those of each
    box, (B, R, H, W, K K).

    Raises:
        ValueError: as `Hypercolumn` and `ClassifierGrid` do.

    Source: as of those two; the windows are our own.
    """

    def __init__(self, hypercolumn, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.hypercolumn = hypercolumn
        self.side = _side(hypercolumn.channels)
        # Of each direction the pixels of the windows (K, n), and what each counts (pixels, K n).
        self._windows = [_windows(pixels, self.side) for pixels in hypercolumn.size]

    def build(self, features_shape, boxes_shape, labels_shape=None):
        if not self.hypercolumn.built:
            self.hypercolumn.build(features_shape, boxes_shape)

    def call(self, features, boxes, labels=None):
        batch, count = ops.shape(boxes)[:2]
        (rows, row_shares), (columns, column_shares) = self._windows
        side, height, width = self.side, rows.shape[1], columns.shape[1]
        # (B, R, K, K, height, width): columns of windows, rows, and pixels in them. Columns come
        # first so that no product has to be transposed for the next.
        total = 0.0
        for scores, boxes_there in self.hypercolumn.of_depths(features, boxes, labels):
            *each, _ = ops.shape(scores)
            scores = ops.reshape(scores, (*each, side, side))
            if boxes_there is None:
                total = total + ops.swapaxes(scores, 2, 3)[..., None, None]
                continue
            maps = ops.transpose(scores, (0, 4, 3, 1, 2))
            of_rows, of_columns = _weights(scores, boxes_there, self.hypercolumn.size)
            of_rows = ops.take(of_rows, rows, axis=2)
            of_columns = ops.swapaxes(ops.take(of_columns, columns, axis=2), -1, -2)
            upsampled = of_rows[:, :, None] @ maps[:, None]
            *each, _, _, across = ops.shape(upsampled)
            upsampled = ops.reshape(upsampled, (*each, side * height, across)) @ of_columns
            total = total + ops.reshape(upsampled, (batch, count, side, side, height, width))
        total = ops.broadcast_to(total, (batch, count, side, side, height, width))
        probabilities = ops.sigmoid(ops.cast(total, self.compute_dtype))
        probabilities = ops.transpose(probabilities, (0, 1, 3, 4, 2, 5))
        probabilities = ops.reshape(probabilities, (batch, count, rows.size, columns.size))
        row_shares, column_shares = (
            ops.convert_to_tensor(shares, self.compute_dtype)
            for shares in (row_shares, column_shares.T)
        )
        return row_shares @ probabilities @ column_shares

    def compute_output_shape(self, features_shape, boxes_shape, labels_shape=None):
        return (*boxes_shape[:2], *self.hypercolumn.size)

    def get_config(self):
        hypercolumn = keras.saving.serialize_keras_object(self.hypercolumn)
        return {**super().get_config(), "hypercolumn": hypercolumn}

    @classmethod
    def from_config(cls, config):
        hypercolumn = keras.saving.deserialize_keras_object(config["hypercolumn"])
        return cls(**{**config, "hypercolumn": hypercolumn})


def _side(count):
    """K, of a grid of K x K classifiers."""
    side = math.isqrt(count)
    if count < 1 or side * side != count:
        raise ValueError(f"{count} classifiers are no square grid.")
    return side


def _shares(pixels, side):
    """How much each of a row of classifiers counts at each pixel: (pixels, side)."""
    places = np.clip((np.arange(pixels) + 0.5) * side / pixels - 0.5, 0, side - 1)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(side)), 0)


def _windows(pixels, side):
    """Pixels (side, n) where each of a row of classifiers counts, and how much (pixels, side n)."""
    shares = _shares(pixels, side)
    counts = shares > 0
    first, n = counts.argmax(axis=0), counts.sum(axis=0).max()
    # At the border windows are shorter: those are filled up, with pixels where nothing counts.
    windows = np.minimum(first, pixels - n)[:, None] + np.arange(n)
    one_hot = np.arange(pixels)[:, None] == windows.ravel()
    return windows, one_hot * np.repeat(shares, n, axis=1)


def _weights(maps, boxes, size):
    """Weights, in the maps' type, of rows and columns of maps (N, H, W, ...) at the pixels of boxes
    (N, -, 4) in cells."""
    height, width = ops.shape(maps)[1:3]
    rows = extended(boxes[..., 1], boxes[..., 3], size[0], height)
    columns = extended(boxes[..., 0], boxes[..., 2], size[1], width)
    return ops.cast(rows, maps.dtype), ops.cast(columns, maps.dtype)
