"""What detectors that classify regions share: head, losses, proposals, detections."""

import math

import keras
import numpy as np
from keras import layers, ops

from cvlib import boxes as box_ops
from cvlib.layers import RoIAlign, RoIPooling, SpatialPyramidPooling
from cvlib.losses import mean_where, smooth_l1
from cvlib.models.system import System, as_images
from cvlib.targets import forgiven, match, sample


class RegionDetector(System):
    """A detector that classifies regions of a feature map, and moves and resizes their boxes.

    The head runs twice: in the network, on all proposals, for the detections; and in the losses, on
    a sample of the proposals and of the objects themselves. The losses read the `features` and the
    `proposals` among the outputs and no detection, so training does not pay for the detections.

    A subclass sets the layer `pooling` and the model `heads` (of `region_heads`).
    """

    background_iou = (0.1, 0.5)  # of a proposal with its object, in training
    _training = False

    def compile(self, optimizer="adam", num_regions=64, background_iou=None, **kwargs):
        """Prepares for `fit`.

        Args:
            optimizer: as in `keras.Model.compile`, like `**kwargs`.
            num_regions: how many regions of each image the head learns from, a quarter of them
                objects where there are so many.
            background_iou: (low, high): background is a region whose highest IoU with an object is
                at least low and below high. By default 0.1 and 0.5 for `FastRCNN`, as its paper has
                it, 0 and 0.5 for all others. Regions under a low that is not 0 are never learnt
                from: small ones inside large objects, too.

        Raises:
            ValueError: `background_iou` is no two numbers with 0 <= low < high <= 0.5.
        """
        bounds = type(self).background_iou if background_iou is None else background_iou
        try:
            low, high = map(float, bounds)
        except (TypeError, ValueError):
            low = high = float("nan")
        if not 0 <= low < high <= 0.5:
            raise ValueError(
                f"`background_iou` is two numbers with 0 <= low < high <= 0.5, not {bounds!r}."
            )
        super().compile(optimizer, **kwargs)
        self.background_iou = low, high
        self._num_regions = num_regions
        self._seed = keras.random.SeedGenerator()

    def predict(self, images, batch_size=8, **kwargs):
        """As `System.predict`; pooled regions take memory, some 20 MB for 300 of MobileNet's."""
        return super().predict(images, batch_size, **kwargs)

    def compute_loss(self, *args, training=True, **kwargs):
        # Keras tells the network whether it is trained, but not the head inside the losses.
        self._training = training
        try:
            return super().compute_loss(*args, training=training, **kwargs)
        finally:
            self._training = False

    def _region_losses(self, y, outputs):
        """`classification` and `box`, of a sample of the proposals and of the objects' boxes."""
        drawn = self._draw_regions(y, outputs["proposals"])
        pooled = self.pooling(outputs["features"], drawn["regions"])
        logits, deltas = self.heads(pooled, training=self._training)
        classification = keras.losses.sparse_categorical_crossentropy(
            drawn["labels"], logits, from_logits=True
        )
        return {
            "classification": mean_where(drawn["valid"], classification),
            "box": self._box_loss(deltas, drawn),
        }

    def _draw_regions(self, y, proposals, ignored=None):
        """What the heads learn from: a sample of the proposals and of the objects' boxes.

        Args:
            ignored: (B, N) booleans of objects that are neither right nor wrong; by default the
                `forgiven`.

        Returns:
            `_answers` to it, with `regions` without area where there are none.
        """
        regions = ops.concatenate([proposals, ops.cast(y["boxes"], "float32")], axis=1)
        drawn = self._draw(self._match(y, regions, ignored), self._num_regions, 0.25)
        regions = ops.take_along_axis(regions, drawn["place"][..., None], axis=1)
        # Where none was drawn there may be NaN, which the head would make of all its gradients.
        return self._answers(y, ops.where(drawn["valid"][..., None], regions, 0.0), drawn)

    def _match(self, y, regions, ignored=None, overlap=None):
        return match(
            regions,
            y["boxes"],
            y["labels"] >= 0,
            positive=0.5,
            negative=self.background_iou,
            best=False,
            ignored=forgiven(y) if ignored is None else ignored,
            overlap=overlap,
        )

    def _answers(self, y, regions, drawn):
        """What the heads should say of `regions` (B, R, 4), of which `_draw` says what they are.

        Returns:
            A dict of (B, R): `regions` (..., 4); `labels`, C of background; `valid`, whether there
            is a region at all; `positive`; `object`, which it answers for, and `objects` (..., 4),
            the boxes of these.
        """
        labels = ops.take_along_axis(y["labels"], drawn["object"], axis=1)
        objects = ops.cast(y["boxes"], "float32")
        return {
            "regions": regions,
            "labels": ops.where(drawn["positive"], labels, self._config["num_classes"]),
            "objects": ops.take_along_axis(objects, drawn["object"][..., None], axis=1),
            "valid": drawn["valid"],
            "positive": drawn["positive"],
            "object": drawn["object"],
        }

    def _box_loss(self, deltas, answers):
        positive = answers["positive"]
        of_class = ops.where(positive, answers["labels"], 0)[..., None, None]
        deltas = ops.take_along_axis(deltas, of_class, axis=2)[:, :, 0]
        targets = ops.stop_gradient(box_ops.encode(answers["objects"], answers["regions"]))
        errors = 4 * smooth_l1(targets, deltas)
        # Over all regions, as the other loss: a region weighs the same in both.
        return mean_where(answers["valid"], ops.where(positive, errors, 0.0))

    def _draw(self, found, count, positive_fraction):
        """A sample of anchors or regions of which `found`, by `match`, says what they are.

        Returns:
            A dict of (B, count): `place`, which each is; `valid`, whether it is one at all;
            `positive`; `object`, the object that it answers for.
        """
        drawn = sample(found["state"], count, positive_fraction, self._seed)
        place, valid = drawn["indices"], drawn["valid"]
        return {
            "place": place,
            "valid": valid,
            "positive": valid & (ops.take_along_axis(found["state"], place, axis=1) == 1),
            "object": ops.take_along_axis(found["index"], place, axis=1),
        }


class ProposalDetector(RegionDetector):
    """A region detector that is given its proposals: `{"images": ..., "proposals": (B, R, 4)}`."""

    def predict(self, images, proposals, batch_size=8, verbose=0):
        """Detections in images, among their proposals.

        Args:
            images: as in `System.predict`.
            proposals: for each image its boxes (N, 4) xyxy, in its pixels, or its `Proposals`, the
                best first; those after `max_proposals` are left out.

        Returns:
            `Detections`, as `System.predict` does.

        Raises:
            ValueError: there are not as many proposals as images, or they are no boxes.
        """
        images = as_images(images)
        if len(proposals) != len(images):
            raise ValueError(f"there are {len(proposals)} proposals for {len(images)} images.")
        padded = np.full((len(images), self._config["max_proposals"], 4), -1, np.float32)
        for row, found in zip(padded, proposals, strict=True):
            boxes = np.asarray(getattr(found, "boxes", found), np.float32)
            if boxes.size:
                if boxes.ndim != 2 or boxes.shape[1] != 4:
                    raise ValueError(f"The proposals of an image are (N, 4), not {boxes.shape}.")
                boxes = boxes[: len(row)]
                row[: len(boxes)] = boxes
        return super().predict(images, batch_size, verbose=verbose, proposals=padded)


def region_pooling(kind, size, stride):
    """The layer from a map and boxes to what a head sees of each box.

    Args:
        kind: `"pool"` (`RoIPooling`), `"align"` (`RoIAlign`) or `"spp"`
            (`SpatialPyramidPooling`, of 4 x 4, 2 x 2 and 1 x 1 cells).
        size: cells on a side, of the first two.
        stride: pixels of the image between neighbouring cells of the map.

    Raises:
        ValueError: `kind` is none of these.
    """
    if kind not in ("pool", "align", "spp"):
        raise ValueError(f"`pooling` is one of pool, align, spp, not {kind!r}.")
    if kind == "spp":
        return SpatialPyramidPooling(stride=stride, name="pooling")
    layer = RoIPooling if kind == "pool" else RoIAlign
    return layer((size, size), stride, name="pooling")


def region_heads(shape, num_classes, hidden, dropout, rank=None):
    """Two fully connected layers, and what they say of each region.

    Args:
        shape: of what is pooled of one region.
        num_classes: C.
        hidden: units of each layer.
        dropout: rate after each layer.
        rank: of the two layers' matrices, which are then two factors each.

    Returns:
        A model from (B, R, *shape) to the logits (B, R, C + 1), the background last, and the
        deltas (B, R, C, 4), of each class.
    """
    pooled = keras.Input((None, *shape), name="pooled")
    x = hidden_layers(pooled, hidden, dropout, rank)
    logits, deltas = class_logits(x, num_classes), class_deltas(x, num_classes)
    return keras.Model(pooled, [logits, deltas], name="heads")


def hidden_layers(pooled, hidden, dropout, rank=None, prefix=""):
    """Two fully connected layers over what is pooled of each region, (B, R, ...) to (B, R, U)."""
    x = layers.Reshape((-1, math.prod(pooled.shape[2:])))(pooled)
    for i, name in enumerate((f"{prefix}fc1", f"{prefix}fc2")):
        if rank:
            x = layers.Dense(rank[i], use_bias=False, name=f"{name}_reduced")(x)
        x = layers.Dense(hidden, activation="relu", name=name)(x)
        x = layers.Dropout(dropout)(x)
    return x


def class_logits(x, num_classes, name="logits"):
    """Logits (B, R, C + 1) of the classes and, last, the background; at first all are alike."""
    logits = layers.Dense(num_classes + 1, kernel_initializer=normal(0.01), name=name)(x)
    return layers.Activation("linear", dtype="float32")(logits)


def class_deltas(x, num_classes):
    """How each class would move a region (B, R, C, 4); at first it stays (Fast R-CNN, 2.3)."""
    deltas = layers.Dense(4 * num_classes, kernel_initializer=normal(0.001), name="deltas")(x)
    return layers.Reshape((-1, num_classes, 4), dtype="float32")(deltas)


def normal(stddev):
    return keras.initializers.RandomNormal(stddev=stddev)


def inside(proposals, size):
    """The proposals clipped to images of `size`; without area where they are not finite."""
    finite = ops.all(ops.isfinite(proposals), axis=-1, keepdims=True)
    return box_ops.clip(ops.where(finite, proposals, 0.0), *size)


def detect(proposals, scores, deltas, size, nms):
    """Detections in images of `size`, by `nms`, of what the head says of the proposals.

    Args:
        proposals: (B, R, 4), inside the images.
        scores: (B, R, C) in 0..1.
        deltas: (B, R, C, 4), or None if the boxes stay as proposed.
        size: (height, width).
        nms: `NonMaxSuppression`.
    """
    boxes = proposals[:, :, None]
    if deltas is not None:
        boxes = box_ops.clip(box_ops.decode(deltas, boxes), *size)
    # Proposals that are padding, or not finite, stay without area.
    scores = ops.where(box_ops.area(boxes) > 0, scores, -1.0)
    found = nms(proposals if deltas is None else boxes, scores)
    return {key: found[key] for key in System.detections}
