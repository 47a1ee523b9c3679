"""What maps of several depths say of each pixel of a box, and classifiers for each part of a box.

Hariharan et al., Hypercolumns for Object Segmentation and Fine-grained Localization, 2015,
section 3.
"""

import math

import keras
from keras import ops

from cvlib.layers.crop_and_resize import extended, resample
from cvlib.sizes import height_and_width


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
            linear classifier of the hypercolumn alone.
        scales: of each map, a factor before it is scored; all 1 by default. Networks without
            normalisation have early maps of large values; the authors' release has 0.0027 for
            VGG's third pooled map, and 0.063 for the fourth.

    Call arguments:
        features: list, for each of `strides` a map (B, H, W, F) or features of boxes (B, R, F).
        boxes: (B, R, 4) floats, `xyxy` in pixels of the image; kept in float32 under any policy.
        labels: (B, R) integers, the class of each box; without them, or where padded with -1, 0.

    Returns:
        (B, R, height, width, D) in the layer's compute type.

    Memory at the peak, beside input and output: (B, R, H, W, D) of the largest map.

    Raises:
        ValueError: there are not as many `features`, or `scales`, as `strides`.
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
        self.strides = tuple(strides)
        self.size = height_and_width(size)
        self.num_classes = num_classes
        self.kernel_size = kernel_size
        self.scales = tuple(scales or (1.0,) * len(self.strides))
        self._check("`scales`", self.scales)

    def _check(self, name, given):
        if len(given) != len(self.strides):
            raise ValueError(f"{len(self.strides)} strides, but {len(given)} {name}.")

    def build(self, features_shape, boxes_shape, labels_shape=None):
        self._check("features", features_shape)
        self.scores = []
        for i, shape in enumerate(features_shape):
            score = keras.layers.Conv2D(
                self.num_classes * self.channels,
                self.kernel_size if len(shape) == 4 else 1,
                padding="same",
                data_format="channels_last",
                # At first all pixels are alike, as in the authors' release.
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
                name=f"score{i}",
                dtype=self.dtype_policy,
            )
            # Boxes are a row of cells.
            score.build(shape if len(shape) == 4 else (shape[0], 1, *shape[1:]))
            self.scores.append(score)

    def call(self, features, boxes, labels=None):
        self._check("features", features)
        boxes = ops.cast(boxes, "float32")
        batch, count = ops.shape(boxes)[:2]
        labels = ops.zeros((batch, count), "int32") if labels is None else labels
        labels = ops.maximum(ops.cast(labels, "int32"), 0)
        total = 0.0
        for x, stride, scale, score in zip(
            features, self.strides, self.scales, self.scores, strict=True
        ):
            x = scale * ops.cast(x, self.compute_dtype)
            if stride is None:
                scores = ops.reshape(
                    score(x[:, None]), (batch, count, self.num_classes, self.channels)
                )
                scores = ops.take_along_axis(scores, labels[..., None, None], axis=2)
                total = total + scores[:, :, :, None]
            else:
                total = total + self._upsampled(score(x), boxes / stride, labels)
        if not any(self.strides):
            total = ops.broadcast_to(total, (batch, count, *self.size, self.channels))
        return total

    def _upsampled(self, scores, boxes, labels):
        """At the pixels of boxes, in cells, their class's of the scores (B, H, W, C D) of a map."""
        _, height, width, _ = ops.shape(scores)
        batch, count = ops.shape(boxes)[:2]
        of_classes = ops.reshape(scores, (-1, height, width, self.num_classes, self.channels))
        of_classes = ops.transpose(of_classes, (0, 3, 1, 2, 4))
        maps = ops.reshape(of_classes, (-1, height, width, self.channels))
        place = ops.arange(batch, dtype="int32")[:, None] * self.num_classes + labels
        own = ops.take(maps, ops.reshape(place, (-1,)), axis=0)
        boxes = ops.reshape(boxes, (-1, 1, 4))
        rows = extended(boxes[..., 1], boxes[..., 3], self.size[0], height)
        columns = extended(boxes[..., 0], boxes[..., 2], self.size[1], width)
        upsampled = resample(own, rows, columns)
        return ops.reshape(upsampled, (batch, count, *self.size, self.channels))

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

    Source: Hariharan et al. 2015, section 3.2. There the interpolation is left out in training.
    """

    def call(self, logits):
        _, _, height, width, count = ops.shape(logits)
        side = math.isqrt(count)
        if side * side != count:
            raise ValueError(f"{count} classifiers are no square grid.")
        # Made here, not kept: a tensor that one graph makes is of no use in another.
        frame = ops.convert_to_tensor([0.0, side], "float32")
        rows, columns = (extended(frame[0], frame[1], n, side) for n in (height, width))
        shares = rows[:, None, :, None] * columns[None, :, None, :]
        shares = ops.cast(ops.reshape(shares, (height, width, count)), self.compute_dtype)
        return ops.sum(ops.sigmoid(logits) * shares, axis=-1)

    def compute_output_shape(self, logits_shape):
        return logits_shape[:-1]
