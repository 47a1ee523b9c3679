"""Masks for the boxes of a detector, from what maps of several depths say of each pixel."""

import functools

import keras
import numpy as np
from keras import layers, ops

from cvlib import boxes as box_ops
from cvlib.layers import Hypercolumn, HypercolumnMasks, MaskPooling, RoIAlign
from cvlib.losses import mean_where
from cvlib.models.backbone import map_stride, trunk_up_to
from cvlib.models.region_detector import RegionDetector, class_logits, hidden_layers, inside
from cvlib.models.system import System, as_images
from cvlib.sizes import height_and_width
from cvlib.targets import forgiven, masks_in, masks_iou

MASK_IOU = 0.7  # of a box with an object, from which on it learns the object's mask


@keras.saving.register_keras_serializable(package="cvlib")
class HypercolumnSegmenter(RegionDetector):
    """Segments what a detector has found: which pixels of a box are the object of its class.

    Over each box lies a grid of pixels. The hypercolumn of a pixel is what the maps of several
    depths hold there, and what two fully connected layers make of the whole box: early maps know
    where, late ones what. A grid of K x K classifiers for each class, each for its part of the box,
    says of every hypercolumn whether it is the object, and their probabilities are interpolated.

    The detector's boxes and labels stay. Its confidence does not: two more fully connected layers
    look at the box where the mask is, and with what the first two made of it say what it shows.
    A detection whose mask is bad is then believed less.

        proposals = cvlib.data.batches(..., targets="masks", proposals=proposals)
        segmenter = HypercolumnSegmenter(backbone("tiny"), num_classes, size)
        segmenter.compile("adam")
        segmenter.fit(proposals)
        segmenter.predict(images, **detector.predict(images))["masks"]

    It learns from a sample of the proposals and from the objects' own boxes. From an IoU of 0.7
    with an object on a box learns its mask: what lies of it in the box. A small box weighs less, by
    its area. A box is rescored as its object's class if its IoU with the object is at least 0.5,
    and that of the predicted mask too, and else as background. Objects that are difficult, crowds,
    and those whose mask is empty, are neither right nor wrong.

    Args:
        backbone: a model from `cvlib.models.backbone`; it is used, and trained, in place, up to the
            deepest map. The means and variances of its batch normalisation stay as they come: it
            should have learned before.
        num_classes: number of classes C.
        size: (height, width) of the images.
        max_detections: R, how many boxes of an image are segmented.
        depths: what a hypercolumn holds: names of the backbone's maps, and "fc", the fully
            connected layers.
        grid: K, classifiers along each side of a box; 1 for one that is the same everywhere.
        mask_size: M, pixels along each side of a box.
        kernel_size, scales: of the `depths`, as in `Hypercolumn`.
        full_side: pixels; a box of this side or more has its full weight. The authors' 224 are
            pixels of PASCAL's photographs, about 500 x 375.
        feature_map: name of the map that the fully connected layers see.
        pool_size: cells on a side of a box pooled for them.
        hidden: units of each of these layers.
        dropout: rate after them.
        frozen_to: name of the backbone's map up to which its layers are never trained.

    The inputs are `{"images": (B, H, W, 3), "boxes": (B, R, 4), "labels": (B, R)}`, -1 where
    padded; those of `fit` are `{"images", "proposals"}`, of `cvlib.data.batches`. The outputs are
    detections, in the order of the boxes, and, for the losses, `features`, the maps by their names.
    Detections have `masks` (B, R, M, M), probabilities in the frames of the boxes.

    Memory: an image takes 4 R M M floats, 4 MB for 100 boxes, and 2 R M K for each column of its
    finest map, 13 MB for 64 of them; with several classes also R K K for each of the map's cells.

    Raises:
        ValueError: `depths`, `feature_map` or `frozen_to` are none of the above.

    Source: Hariharan et al. 2015 (Hypercolumns), sections 3 and 4, and `bharath272/sds`, their
    release on Fast R-CNN. There the masks are those of superpixels, boxes are rescored by support
    vector machines, and nothing is trained but what scores the maps. Here a box of background
    shows the rescorer the mask for the class of the object that it overlaps most; at the test it is
    that of the class for which the detector takes the box.
    """

    detections = (*System.detections, "masks")
    loss_names = ("mask", "rescoring")
    background_iou = (0.0, 0.5)  # a detector's false boxes lie anywhere

    def __init__(
        self,
        backbone,
        num_classes,
        size,
        max_detections=100,
        depths=("stride8", "stride16", "fc"),
        grid=5,
        mask_size=50,
        kernel_size=3,
        scales=None,
        full_side=224,
        feature_map="stride16",
        pool_size=7,
        hidden=512,
        dropout=0.5,
        frozen_to=None,
        **kwargs,
    ):
        size = height_and_width(size)
        if not depths or not {*depths} <= {*backbone.output, "fc"}:
            known = ", ".join(backbone.output)
            raise ValueError(f"`depths` are some of {known} and fc, not {tuple(depths)}.")
        maps = [name for name in dict.fromkeys([*depths, feature_map]) if name != "fc"]
        backbone = trunk_up_to(backbone, max(maps, key=map_stride), frozen_to)
        images = keras.Input((*size, 3), name="images")
        given = keras.Input((max_detections, 4), name="boxes")
        labels = keras.Input((max_detections,), dtype="int32", name="labels")
        output = backbone(images)
        features = {name: output[name] for name in maps}

        stride = map_stride(feature_map)
        pool = RoIAlign((pool_size, pool_size), stride, name="pooling")
        strides = [None if depth == "fc" else map_stride(depth) for depth in depths]
        hypercolumn = Hypercolumn(
            grid**2, strides, (mask_size, mask_size), num_classes, kernel_size, scales
        )
        classifiers = HypercolumnMasks(hypercolumn, dtype="float32", name="masks")
        draw = functools.partial(_masks_of, depths, classifiers)

        boxes = inside(given, size)
        pooled = pool(features[feature_map], boxes)
        shape = pooled.shape[2:]
        whole_head = _whole_head(shape, hidden, dropout)
        whole = whole_head(pooled)
        masks = draw(features, whole, boxes, labels)
        rescorer = _rescorer(shape, num_classes, hidden, dropout)
        logits = rescorer([pooled, masks, whole])
        real = labels >= 0
        of_class = ops.maximum(labels, 0)[..., None]
        score = ops.take_along_axis(ops.softmax(logits), of_class, axis=-1)[..., 0]
        found = {
            "boxes": ops.where(real[..., None], boxes, 0.0),
            "confidence": ops.where(real, score, 0.0),
            "labels": ops.where(real, labels, -1),
            "num_detections": ops.sum(ops.cast(real, "int32"), axis=1),
            "masks": ops.where(real[..., None, None], masks, 0.0),
        }
        super().__init__(
            {"images": images, "boxes": given, "labels": labels},
            {"features": features, **found},
            **kwargs,
        )
        self.backbone, self.pooling = backbone, pool
        self.hypercolumn = hypercolumn
        self.whole_head, self.rescorer, self._draw_masks = whole_head, rescorer, draw
        self._parts = {
            "backbone": (images, list(features.values())),
            "boxes": ([features[feature_map], given], [boxes, pooled, whole]),
            "masks": ([*features.values(), whole, boxes, labels], masks),
            "rescoring": ([pooled, masks, whole, boxes, labels], found),
        }
        self._config = {
            "num_classes": num_classes,
            "size": size,
            "max_detections": max_detections,
            "depths": tuple(depths),
            "grid": grid,
            "mask_size": mask_size,
            "kernel_size": kernel_size,
            "scales": scales,
            "full_side": full_side,
            "feature_map": feature_map,
            "pool_size": pool_size,
            "hidden": hidden,
            "dropout": dropout,
            "frozen_to": frozen_to,
        }

    def __call__(self, inputs, *args, **kwargs):
        return super().__call__(self._with_boxes(inputs), *args, **kwargs)

    def call(self, inputs, training=None, mask=None):
        # What JAX trains through. Trained with the statistics of each batch, it rescored worse.
        return super().call(self._with_boxes(inputs), training=False, mask=mask)

    def _with_boxes(self, inputs):
        """The network's inputs, of padding where there are none: the losses have other boxes."""
        if isinstance(inputs, dict) and "boxes" in inputs:
            return inputs
        images = ops.convert_to_tensor(inputs["images"] if isinstance(inputs, dict) else inputs)
        shape = (ops.shape(images)[0], self._config["max_detections"])
        boxes, labels = ops.zeros((*shape, 4)), ops.full(shape, -1, "int32")
        return {"images": images, "boxes": boxes, "labels": labels}

    def predict(
        self,
        images,
        boxes,
        labels,
        confidence=None,
        num_detections=None,
        batch_size=8,
        verbose=0,
    ):
        """Masks, and new confidences, of what a detector has found in images.

        Args:
            images: as in `System.predict`.
            boxes: for each image (N, 4) xyxy, in its pixels, the best first; those after
                `max_detections` are left out.
            labels: for each image (N,), -1 where padded.
            confidence, num_detections: what else a detector says; it is not looked at.
            batch_size, verbose: as in `System.predict`.

        Returns:
            `Detections`, as `System.predict` does, in the order in which they were given.

        Raises:
            ValueError: there are not as many boxes or labels as images, or as boxes; or a label is
                none of the classes.
        """
        images = as_images(images)
        padded = {
            "boxes": np.zeros((len(images), self._config["max_detections"], 4), np.float32),
            "labels": np.full((len(images), self._config["max_detections"]), -1, np.int32),
        }
        if not len(boxes) == len(labels) == len(images):
            raise ValueError(
                f"There are boxes of {len(boxes)} and labels of {len(labels)} images, "
                f"not of {len(images)}."
            )
        for i, found in enumerate(zip(boxes, labels, strict=True)):
            b, c = map(np.asarray, found)
            if len(b) != len(c):
                raise ValueError(f"Image {i} has {len(b)} boxes, but {len(c)} labels.")
            if len(c) and c.max() >= self._config["num_classes"]:
                raise ValueError(f"Image {i} has a label {c.max()}, which is no class.")
            n = min(len(b), self._config["max_detections"])
            padded["boxes"][i, :n], padded["labels"][i, :n] = b[:n].reshape(-1, 4), c[:n]
        return super().predict(images, batch_size, verbose=verbose, **padded)

    def compute_loss(self, x=None, y=None, *args, training=True, **kwargs):
        if isinstance(x, dict) and "proposals" in x:
            y = {**y, "proposals": x["proposals"]}
        return super().compute_loss(x, y, *args, training=training, **kwargs)

    def compute_losses(self, y, outputs):
        """As `System.compute_losses`, of `y` with `masks` and the `proposals`."""
        if not {"masks", "proposals"} <= y.keys():
            raise ValueError(
                'There is nothing to learn from: give batches of targets="masks" with proposals.'
            )
        y = {**y, "masks": ops.cast(y["masks"], "float32") >= 0.5}
        ignored = forgiven(y) | ~ops.any(y["masks"], axis=(2, 3))
        proposals = inside(ops.cast(y["proposals"], "float32"), self._config["size"])
        seen = self._draw_regions(y, proposals, ignored)
        regions, how = seen["regions"], {"training": self._training}
        objects = ops.take_along_axis(y["masks"], seen["object"][..., None, None], axis=1)
        labels = ops.take_along_axis(y["labels"], seen["object"], axis=1)

        features = outputs["features"]
        pooled = self.pooling(features[self._config["feature_map"]], regions)
        whole = self.whole_head(pooled, **how)
        masks = self._draw_masks(features, whole, regions, labels)
        # A mask is not drawn to be classified well.
        masks_seen = ops.stop_gradient(masks)
        logits = self.rescorer([pooled, masks_seen, whole], **how)

        targets = masks_in(regions, seen["objects"], objects, self._config["mask_size"])
        of_pixels = keras.losses.binary_crossentropy(ops.cast(targets, "float32"), masks)
        near = seen["positive"] & (box_ops.paired_iou(regions, seen["objects"]) >= MASK_IOU)
        weight = ops.minimum(box_ops.area(regions) / self._config["full_side"] ** 2, 1.0)
        share = ops.mean(ops.cast(objects, "float32"), axis=(2, 3))
        overlap = masks_iou(
            masks_seen >= 0.5, targets, regions, share * box_ops.area(seen["objects"])
        )
        classes = ops.where(overlap >= 0.5, seen["labels"], self._config["num_classes"])
        of_boxes = keras.losses.sparse_categorical_crossentropy(classes, logits, from_logits=True)
        return {
            "mask": mean_where(near, weight * ops.mean(of_pixels, axis=-1)),
            "rescoring": mean_where(seen["valid"], of_boxes),
        }


def _masks_of(depths, classifiers, features, whole, boxes, labels):
    """Masks (B, R, M, M) of boxes, by the classifiers of the boxes' labels."""
    columns = [whole if depth == "fc" else features[depth] for depth in depths]
    return classifiers(columns, boxes, labels)


def _whole_head(shape, hidden, dropout):
    """From pooled boxes (B, R, *shape) to what two fully connected layers make of them."""
    pooled = keras.Input((None, *shape), name="pooled")
    return keras.Model(pooled, hidden_layers(pooled, hidden, dropout), name="whole_head")


def _rescorer(shape, num_classes, hidden, dropout):
    """From pooled boxes (B, R, *shape), their masks, and what `_whole_head` makes of the boxes, to
    the logits (B, R, C + 1) of what they show, the background last."""
    pooled = keras.Input((None, *shape), name="pooled")
    masks = keras.Input((None, None, None), name="masks")
    whole = keras.Input((None, hidden), name="whole")
    x = hidden_layers(MaskPooling(shape[:2])(pooled, masks), hidden, dropout, prefix="masked_")
    logits = class_logits(layers.Concatenate()([x, whole]), num_classes)
    return keras.Model([pooled, masks, whole], logits, name="rescorer")
