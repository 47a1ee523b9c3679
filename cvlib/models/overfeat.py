"""A sliding window as a convolution: classes and boxes at every window of an image, merged."""

import keras
import numpy as np
from keras import layers, ops

from cvlib import losses
from cvlib.boxes import CENTRAL_HALF, area, clip
from cvlib.layers import BoxMerging, DenseToConv, InterleaveOffsets, ShiftedMaxPooling2D
from cvlib.models.backbone import freeze
from cvlib.models.system import System
from cvlib.sizes import height_and_width, positive_numbers

STRIDE = 16  # of the trunk's last map, in pixels
POOL = 2  # of that map, before the heads


@keras.saving.register_keras_serializable(package="cvlib")
class OverFeat(System):
    """A detector that asks of every window of an image: what is in it, and where exactly?

    The trunk's map at stride 16 is max pooled 2 x 2. A classifier (over the classes and
    "background") and a box regressor, each with one fully connected layer, read the part of it that
    belongs to one window. As convolutions they read every part at once: every window of every
    scaled image has class scores and a box. `BoxMerging` makes detections of them.

    Windows are 32 pixels apart, the stride times the pooling. With `shifted` the pooling is done at
    each of its 2 x 2 offsets, so that windows are 16 pixels apart at no cost to the trunk.

    A window answers for that object of which it sees the largest area, among those that it sees by
    half or more, and for the background
    where there is none. It learns from batches whose images are of its `size`: of one window, as
    views, or larger, when all their windows are examples at once (section 5). Then `slide` applies
    the same weights to other sizes and scales:

        overfeat = OverFeat(backbone("tiny"), num_classes, size=(128, 128), window=64)
        overfeat.compile("adam")
        overfeat.fit(batches)
        overfeat.slide(size=(384, 512), scales=(0.5, 1, 2)).predict(images)

    Unlike the paper's, both heads are trained at once, with smooth L1 on boxes that all classes
    share, and the negatives are all windows that see no object, not a few of each image.

    Args:
        backbone: a model from `cvlib.models.backbone`; it is used, and trained, in place.
        num_classes: number of classes C, without the background.
        size: (height, width) of the images.
        window: side of a window in pixels, a multiple of 32.
        scales: each image is resized by each of these factors.
        shifted: whether the pooling is done at all its offsets.
        merging: arguments of `BoxMerging`.
        hidden: units of the fully connected layer of each head.
        dropout: rate after these layers.
        frozen_to: name of the backbone's map up to which its layers are never trained.
        heads: those of another `OverFeat`, to share their weights; new ones by default.

    Attributes:
        windows: (W, 4) float32, the windows of all scales, xyxy in pixels of the image, scale by
            scale and row by row.
        grids: (rows, columns) of the windows of each scale.

    The outputs are detections and `probabilities` (B, C), the classes of the whole image: the
    highest score of any window, averaged over the scales (section 3.3, where it is averaged over
    flips too). What the windows say is in `logits` (B, W, C + 1), the background last, and
    `window_boxes` (B, W, 4).

    Raises:
        ValueError: `window` is no multiple of 32, an image at some scale is smaller than it, or
            `scales` are not numbers above 0.

    Source: OverFeat (Sermanet et al. 2013), sections 3.3, 4 and 5.
    """

    detections = (*System.detections, "probabilities")
    loss_names = ("classification", "box")

    def __init__(
        self,
        backbone,
        num_classes,
        size=(128, 128),
        window=128,
        scales=(1,),
        shifted=True,
        merging=None,
        hidden=256,
        dropout=0.5,
        frozen_to=None,
        heads=None,
        **kwargs,
    ):
        size, scales = height_and_width(size), positive_numbers("scales", scales)
        if window <= 0 or window % (STRIDE * POOL):
            raise ValueError(f"`window` is a multiple of {STRIDE * POOL}, not {window}.")
        # The deeper layers of the backbone would be computed and saved for nothing.
        kept = {name: x for name, x in backbone.output.items() if name != "stride32"}
        backbone = keras.Model(backbone.input, kept, name=backbone.name)
        if heads is None:
            cells, channels = window // (STRIDE * POOL), kept["stride16"].shape[-1]
            heads = _heads(cells, channels, num_classes, hidden, dropout)

        images = keras.Input((*size, 3), name="images")
        step = STRIDE if shifted else STRIDE * POOL
        maps, logits, offsets, windows, grids = [], [], [], [], []
        for scale in scales:
            scaled = tuple(round(scale * length) for length in size)
            if min(scaled) < window:
                raise ValueError(
                    f"An image of {_by(size)} at scale {scale} is {_by(scaled)}, smaller than the "
                    f"window of {_by((window, window))}."
                )
            x = images if scaled == size else ops.image.resize(images, scaled)
            maps.append(backbone(x)["stride16"])
            rows, columns = ((length - window) // step + 1 for length in scaled)
            # The backbone pads images to a multiple of 32: no window lies in the padding.
            scores, boxes = (x[:, :rows, :columns] for x in _slide(heads, maps[-1], shifted))
            logits.append(layers.Reshape((-1, num_classes + 1), dtype="float32")(scores))
            offsets.append(layers.Reshape((-1, 4), dtype="float32")(boxes))
            top, left = np.mgrid[:rows, :columns].reshape(2, -1) * step
            corners = np.stack([left, top, left + window, top + window], axis=-1)
            windows.append(corners * np.tile(np.divide(size, scaled)[::-1], 2))
            grids.append((rows, columns))
        found = _locate(logits, offsets, windows)
        merging = merging or {}
        merged = _detect(found, grids, size, BoxMerging(**merging))
        super().__init__(images, found | merged, **kwargs)
        self.backbone, self.heads, self.grids = backbone, heads, grids
        self.windows = np.concatenate(windows).astype("float32")
        self._parts = {
            "trunk": (images, maps),
            "heads": (maps, found),
            "merging": (list(found.values()), merged),
        }
        self._config = {
            "num_classes": num_classes,
            "size": size,
            "window": window,
            "scales": scales,
            "shifted": shifted,
            "merging": merging,
            "hidden": hidden,
            "dropout": dropout,
            "frozen_to": frozen_to,
        }
        freeze(backbone, frozen_to)

    def slide(self, **changes):
        """The same network, with the same weights, over other images.

        Args:
            **changes: of the arguments `size`, `scales`, `shifted` and `merging`.
        """
        how = {**self._config, **changes}
        return type(self)(self.backbone, heads=self.heads, classes=self.classes, **how)

    def compile(self, optimizer="adam", box_weight=50.0, **kwargs):
        """Prepares for `fit`.

        Args:
            optimizer: as in `keras.Model.compile`, like `**kwargs`.
            box_weight: factor of the box loss, which is added to the cross-entropy.
        """
        super().compile(optimizer, **kwargs)
        self._box_weight = box_weight

    def compute_losses(self, y, outputs):
        labels, boxes = self._responsible(y["boxes"], y["labels"])
        classification = keras.losses.sparse_categorical_crossentropy(
            labels, outputs["logits"], from_logits=True
        )
        corner, side = _frames(self.windows)
        target, found = (
            ops.divide(ops.subtract(b, corner), side) for b in (boxes, outputs["window_boxes"])
        )
        regression = losses.smooth_l1(target, found, beta=0.1)
        sees = labels < self._config["num_classes"]
        return {
            "classification": ops.mean(classification),
            "box": self._box_weight * losses.mean_where(sees, regression),
        }

    def _responsible(self, boxes, labels):
        """The object that each window answers for: labels (B, W), C for none, and boxes (B, W, 4).

        It is the one with most of it inside, of those that are half inside (section 4.2 trains no
        box of the others).
        """
        objects, windows = boxes[:, None], self.windows[:, None]
        top_left = ops.maximum(objects[..., :2], windows[..., :2])
        bottom_right = ops.minimum(objects[..., 2:], windows[..., 2:])
        inside = area(ops.concatenate([top_left, bottom_right], axis=-1))
        seen = ops.logical_and(labels[:, None] >= 0, 2 * inside >= area(objects))
        inside = ops.where(seen, inside, -1.0)
        largest = ops.argmax(inside, axis=-1)
        any_seen = ops.max(inside, axis=-1) >= 0
        labels = ops.take_along_axis(labels, largest, axis=1)
        boxes = ops.take_along_axis(boxes, largest[..., None], axis=1)
        return ops.where(any_seen, labels, self._config["num_classes"]), boxes


def _heads(cells, channels, num_classes, hidden, dropout):
    """Pooled maps (B, h, w, channels) to the class scores and the box of every cells x cells."""

    def fully_connected(name):
        x = DenseToConv(hidden, (cells, cells), activation="relu", name=name)(pooled)
        return layers.Dropout(dropout)(x)

    pooled = keras.Input((None, None, channels), name="pooled")
    logits = DenseToConv(num_classes + 1, name="logits")(fully_connected("fc"))
    # Boxes begin where `_locate` puts them: larger first errors would drown the gradient.
    small = keras.initializers.RandomNormal(stddev=0.001)
    offsets = DenseToConv(4, kernel_initializer=small, name="offsets")(fully_connected("box_fc"))
    return keras.Model(pooled, [logits, offsets], name="heads")


def _slide(heads, maps, shifted):
    """The heads at every pooled part of a map, which with `shifted` begins at every cell."""
    if not shifted:
        return heads(layers.MaxPooling2D(POOL)(maps))
    # Shifted pooling ends where all its offsets do. Room for the last window of each is made by
    # zeros, which no window that is kept sees.
    room = (0, POOL - 1)
    pooled = ShiftedMaxPooling2D(POOL)(layers.ZeroPadding2D((room, room))(maps))
    return [InterleaveOffsets(POOL)(x) for x in heads(pooled)]


def _locate(logits, offsets, windows):
    """What the windows of all scales, a list of each, say: logits and boxes in the image."""
    corner, side = _frames(np.concatenate(windows))
    # Boxes start as the central half of their window, so that they overlap objects at once.
    relative = ops.concatenate(offsets, axis=1) + np.float32(CENTRAL_HALF)
    return {"logits": ops.concatenate(logits, axis=1), "window_boxes": relative * side + corner}


def _detect(found, grids, size, merge):
    """What the windows say to detections and classes of the whole image."""
    scores = ops.softmax(found["logits"])[..., :-1]
    counts = [rows * columns for rows, columns in grids]
    ends = np.cumsum(counts)
    best = [ops.max(scores[:, end - n : end], axis=1) for n, end in zip(counts, ends, strict=True)]
    return {
        "probabilities": sum(best) / len(best),
        **merge(clip(found["window_boxes"], *size), scores),
    }


def _frames(windows):
    """Corner and side of windows (W, 4), for each coordinate of a box: two (W, 4)."""
    windows = np.float32(windows)
    return np.tile(windows[:, :2], (1, 2)), np.tile(windows[:, 2:] - windows[:, :2], (1, 2))


def _by(size):
    return "x".join(map(str, size))
