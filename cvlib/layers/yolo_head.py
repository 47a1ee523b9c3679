"""YOLO's head: what each cell of a grid says of the object whose centre it holds."""

import math

import keras
import numpy as np
from keras import layers, ops

from cvlib.boxes import area, clip, convert


@keras.saving.register_keras_serializable(package="cvlib")
class YOLOHead(keras.layers.Layer):
    """Two fully connected layers, after which each cell of a grid speaks of boxes and classes.

    The numbers of a cell are, for each of its boxes, `x, y` (the centre, from the cell's top left
    corner, in sides of the cell), the **square roots** of the width and the height (in sides of the
    image) and the confidence; then a probability for each class, shared by the cell's boxes. The
    last layer is linear, so that any of them may be negative or above 1. Every cell sees the whole
    image: the grid need not be that of the features.

    The layers run in float32 under any policy, for what they give are coordinates.

    Args:
        grid: S, cells along each side of the image.
        boxes: B, boxes of a cell.
        classes: C.
        hidden: units of the first layer, which is a leaky ReLU.
        dropout: rate after it.

    Call arguments:
        features: (batch, H, W, channels), H and W static.

    Returns:
        (batch, S, S, 5 B + C) float32, rows of cells first.

    Source: YOLO (Redmon et al. 2016), section 2. That the square roots themselves are predicted is
    of the released code; the paper's loss only compares them.
    """

    def __init__(self, grid=7, boxes=2, classes=20, hidden=4096, dropout=0.5, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.grid, self.boxes, self.classes = grid, boxes, classes
        self.hidden, self.dropout = hidden, dropout
        self.fc = layers.Dense(hidden, dtype="float32", name="fc")
        self.drop = layers.Dropout(dropout, dtype="float32")
        self.regression = layers.Dense(
            grid**2 * (5 * boxes + classes), dtype="float32", name="regression"
        )

    def build(self, features_shape):
        self.fc.build((None, math.prod(features_shape[1:])))
        self.regression.build((None, self.hidden))

    def call(self, features, training=None):
        x = ops.reshape(ops.cast(features, "float32"), (-1, math.prod(features.shape[1:])))
        x = self.drop(ops.leaky_relu(self.fc(x), 0.1), training=training)
        return ops.reshape(self.regression(x), self._shape(-1))

    def split(self, cells):
        """What the cells say, by name and with the cells in a row.

        Args:
            cells: (batch, S, S, 5 B + C), of the head.

        Returns:
            A dict: `center` (batch, S S, B, 2), x and y in the cell; `root` (batch, S S, B, 2), of
            width and height; `confidence` (batch, S S, B); `classes` (batch, S S, C); and `boxes`
            (batch, S S, B, 4), the same boxes as `rel_center_xywh` in the image.
        """
        S, B = self.grid, self.boxes
        cells = ops.reshape(cells, (-1, S * S, 5 * B + self.classes))
        boxes = ops.reshape(cells[..., : 5 * B], (-1, S * S, B, 5))
        center, root = boxes[..., :2], boxes[..., 2:4]
        return {
            "center": center,
            "root": root,
            "confidence": boxes[..., 4],
            "classes": cells[..., 5 * B :],
            "boxes": ops.concatenate(
                [ops.add(self.corners(), center) / S, ops.square(root)], axis=-1
            ),
        }

    def corners(self):
        """The top left corners (1, S S, 1, 2) of the cells, as `x, y` in sides of a cell."""
        rows, columns = np.indices((self.grid, self.grid), "float32").reshape(2, 1, -1, 1)
        return np.stack([columns, rows], axis=-1)

    def decode(self, cells, height, width):
        """The boxes that the cells mean, and their scores.

        The score of a class is its probability times the confidence, each cut to 0..1; of boxes
        without area in the image it is 0.

        Args:
            cells: (batch, S, S, 5 B + C), of the head; symbolic too.
            height, width: of the image in pixels.

        Returns:
            `boxes` (batch, S S B, 4) xyxy in pixels, cut at the image's border, and `scores`
            (batch, S S B, C); box b of the cell in row r and column c is (r S + c) B + b.

        Source: YOLO (Redmon et al. 2016), section 2, equation 1.
        """
        said = self.split(cells)
        boxes = convert(said["boxes"], "rel_center_xywh", "xyxy", height, width)
        boxes = clip(boxes, height, width)
        confidence = ops.clip(said["confidence"], 0, 1)[..., None]
        scores = confidence * ops.clip(said["classes"], 0, 1)[..., None, :]
        # A box outside of the image, or without width, is none.
        scores = ops.where(area(boxes)[..., None] > 0, scores, 0.0)
        number = self.grid**2 * self.boxes
        boxes = ops.reshape(boxes, (-1, number, 4))
        return boxes, ops.reshape(scores, (-1, number, self.classes))

    def compute_output_shape(self, features_shape):
        return self._shape(features_shape[0])

    def compute_output_spec(self, features, training=None):
        return keras.KerasTensor(self._shape(features.shape[0]), "float32")

    def _shape(self, batch):
        return (batch, self.grid, self.grid, 5 * self.boxes + self.classes)

    def get_config(self):
        return {
            **super().get_config(),
            "grid": self.grid,
            "boxes": self.boxes,
            "classes": self.classes,
            "hidden": self.hidden,
            "dropout": self.dropout,
        }
