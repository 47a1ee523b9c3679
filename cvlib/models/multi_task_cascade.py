"""Instances in a cascade of tasks: boxes, their masks, the classes of what the masks show."""

import functools
import math

import keras
from keras import layers, ops

from cvlib import boxes as box_ops
from cvlib.layers import MaskPooling, NonMaxSuppression, RoIWarping
from cvlib.losses import mean_where
from cvlib.models.backbone import map_stride, trunk_up_to
from cvlib.models.faster_rcnn import ProposingDetector, propose
from cvlib.models.region_detector import class_deltas, class_logits, hidden_layers
from cvlib.models.system import System
from cvlib.sizes import height_and_width
from cvlib.targets import forgiven, masks_in, masks_iou

# Of an image's losses at each side of a box, about what the RPN's own loss has at an anchor.
PULL = 1 / 512  # `clip_base` in mnc_5stage/train.prototxt


@keras.saving.register_keras_serializable(package="cvlib")
class MultiTaskCascade(ProposingDetector):
    """Segments every object, each task on what the one before it found, all in one graph.

    Stage 1 is Faster R-CNN's RPN: boxes. Stage 2 warps each box out of the map and says of every
    cell of a fixed grid over it whether it is the object: a mask, whatever the class. Stage 3
    classifies the box by two pathways, one that sees all of the warped features and one that sees
    them where the mask is, and says how the box would fit better. Stages 4 and 5 are stages 2 and 3
    again, with the same weights, on these better boxes.

        cascade = MultiTaskCascade(backbone("tiny"), num_classes, size, sizes=(16, 32, 64))
        cascade.compile("adam")
        cascade.fit(cvlib.data.batches(dataset, 8, size, targets="masks"))
        cascade.predict(images)["masks"]

    All losses train all that comes before them. The warp is differentiable in the box, so that the
    losses of masks and classes move boxes too: those of the RPN, and those of stage 3. This holds
    for the boxes of objects alone, and is bounded by 1 / 512 for each side, in units of the box:
    without bounds boxes move to where they are told apart most easily, and miss the objects. (The
    authors' release bounds the four deltas instead, by the same number, of all boxes.)

    A region is an object if its IoU with one is at least 0.5, and learns its mask, its box and one
    of two classifications. The other, whose scores are those of the detections, takes it for
    background unless the IoU of the predicted mask, too, is at least 0.5. Objects that are
    difficult, crowds, and those whose mask is empty (but to the RPN, which sees boxes alone), are
    neither right nor wrong; what lies of a mask outside its box is cut off. A predicted mask is
    what has a probability over 0.5. With five stages the detections are those of the last;
    the authors add those of stage 3, and suppress at an IoU of 0.3 (`nms`).

    Args:
        backbone: a model from `cvlib.models.backbone`; it is used, and trained, in place, up to the
            map.
        num_classes: number of classes C.
        size: (height, width) of the images.
        stages: 3 or 5.
        sizes, ratios: of the anchors, as in `AnchorGrid`; they should resemble the objects.
        feature_map: name of the backbone's map; small objects need a smaller stride.
        rpn_channels, pre_nms, post_nms: as in `FasterRCNN`. An image has no more detections than
            `post_nms` proposals.
        crop_size: cells on a side of a warped box; classified are half as many.
        mask_size: M, cells on a side of a mask.
        mask_hidden: units of the mask's fully connected layer.
        hidden: units of each of the two fully connected layers of both pathways.
        dropout: rate after these layers.
        nms: arguments of the `NonMaxSuppression` of the detections; `max_detections` is 100 by
            default, too few for crowds.
        frozen_to: name of the backbone's map up to which its layers are never trained.

    The outputs are detections and, for the losses, as `FasterRCNN`'s. Detections have `masks`
    (B, N, M, M), probabilities in the frames of the boxes.

    Memory: an image's `post_nms` boxes take `post_nms` x `crop_size` x W x channels floats while
    they are warped, where W is the map's width: 0.3 GB for 600 boxes on 45 columns of 192 channels.
    In training only `num_regions` boxes are warped.

    Raises:
        ValueError: `stages` is neither 3 nor 5; no anchor lies inside the image; `feature_map` or
            `frozen_to` is none of the above.

    Source: Dai et al. 2016 (Multi-task Network Cascades). As in the authors' release the warp has
    14 x 14 cells and is pooled to 7 x 7 after the mask; the averaging of masks of overlapping boxes
    ("mask voting") is left out. There the loss of masks counts twice, and the classification of a
    box trains its mask only where that is right.
    """

    detections = (*System.detections, "masks")
    loss_names = ("rpn_objectness", "rpn_box", "mask", "instance", "classification", "box")
    steps = {
        "all": ("rpn", "mask_head", "heads"),
        "rpn": ("rpn",),
        "masks": ("mask_head",),
        "classes": ("heads",),
    }

    def __init__(
        self,
        backbone,
        num_classes,
        size,
        stages=5,
        sizes=(128, 256, 512),
        ratios=(0.5, 1, 2),
        feature_map="stride16",
        rpn_channels=512,
        pre_nms=6000,
        post_nms=300,
        crop_size=14,
        mask_size=28,
        mask_hidden=256,
        hidden=512,
        dropout=0.5,
        nms=None,
        frozen_to=None,
        **kwargs,
    ):
        size = height_and_width(size)
        if stages not in (3, 5):
            raise ValueError(f"`stages` is 3 or 5, not {stages!r}.")
        backbone = trunk_up_to(backbone, feature_map, frozen_to)
        stride = map_stride(feature_map)
        images = keras.Input((*size, 3), name="images")
        features = backbone(images)[feature_map]
        rpn = propose(features, size, sizes, ratios, stride, rpn_channels, pre_nms, post_nms)
        proposals = rpn["proposals"]

        warp = RoIWarping((crop_size, crop_size), stride, name="warp")
        pool = MaskPooling((crop_size // 2, crop_size // 2), name="mask_pooling")
        channels = features.shape[-1]
        mask_head = _mask_head((crop_size, crop_size, channels), mask_hidden, mask_size)
        heads = _heads((*pool.size, channels), num_classes, hidden, dropout)

        look = functools.partial(_look, warp, mask_head, pool, heads)
        boxes = proposals
        crops, masks, (instance, _, deltas) = look(features, boxes)
        parts = {
            "masks": ([features, boxes], [crops, masks]),
            "classes": ([crops, masks], [instance, deltas]),
        }
        if stages == 5:
            boxes = _moved(proposals, instance, deltas, size)
            parts["moved boxes"] = ([proposals, instance, deltas], boxes)
            crops, masks, (instance, *_) = look(features, boxes)
            parts["masks again"] = ([features, boxes], [crops, masks])
            parts["classes again"] = ([crops, masks], instance)
        nms = nms or {}
        scores = ops.softmax(instance)[..., :-1]
        scores = ops.where(box_ops.area(boxes)[..., None] > 0, scores, -1.0)
        best = NonMaxSuppression(**nms)(boxes, scores)
        found = {key: best[key] for key in System.detections}
        kept = ops.take_along_axis(masks, ops.maximum(best["indices"], 0)[..., None, None], axis=1)
        real = best["labels"][..., None, None] >= 0
        found["masks"] = ops.where(real, ops.sigmoid(kept), 0.0)
        super().__init__(
            images,
            {
                "features": features,
                "objectness": rpn["objectness"],
                "anchor_deltas": rpn["deltas"],
                "proposals": proposals,
                **found,
            },
            **kwargs,
        )
        self.backbone, self.mask_head, self.heads = backbone, mask_head, heads
        self._look = look
        self._parts = {
            "backbone": (images, features),
            **self._keep(rpn, features, proposals),
            **parts,
            "detections": ([boxes, masks, instance], found),
        }
        self._config = {
            "num_classes": num_classes,
            "size": size,
            "stages": stages,
            "sizes": tuple(sizes),
            "ratios": tuple(ratios),
            "feature_map": feature_map,
            "rpn_channels": rpn_channels,
            "pre_nms": pre_nms,
            "post_nms": post_nms,
            "crop_size": crop_size,
            "mask_size": mask_size,
            "mask_hidden": mask_hidden,
            "hidden": hidden,
            "dropout": dropout,
            "nms": nms,
            "frozen_to": frozen_to,
        }

    def compile(self, optimizer="adam", train="all", trunk=True, box_gradient=True, **kwargs):
        """Chooses what is trained.

        Args:
            optimizer: as in `keras.Model.compile`, like `**kwargs`, and `num_regions` and
                `background_iou`, as in `RegionDetector.compile`.
            train: `"all"`: everything, by the sum of all losses. Step by step: `"rpn"`, `"masks"`,
                `"classes"`: that stage alone, by its losses.
            trunk: whether the trunk is trained too.
            box_gradient: whether the losses of masks and classes reach the boxes that they looked
                at; otherwise boxes are taken as they come, as in Faster R-CNN.

        Raises:
            ValueError: `train` is none of these.
        """
        super().compile(optimizer, train, trunk, **kwargs)
        self._box_gradient = box_gradient

    def predict(self, images, batch_size=2, **kwargs):
        """As `System.predict`; few at a time, since warped boxes take much memory."""
        return super().predict(images, batch_size, **kwargs)

    def _region_losses(self, y, outputs):
        if "masks" not in y:
            raise ValueError('There are no masks to learn from: give batches of targets="masks".')
        y = {**y, "masks": ops.cast(y["masks"], "float32") >= 0.5}
        ignored = forgiven(y) | ~ops.any(y["masks"], axis=(2, 3))
        seen = self._given(self._draw_regions(y, outputs["proposals"], ignored))
        _, masks, said = self._look(outputs["features"], seen["regions"], training=self._training)
        losses = self._losses_of(y, seen, masks, *said)
        if self._config["stages"] == 5:
            instance, _, deltas = said
            regions = _moved(seen["regions"], instance, deltas, self._config["size"])
            found = self._match(y, regions, ignored)
            valid = seen["valid"] & (found["state"] >= 0)
            positive = valid & (found["state"] == 1)
            drawn = {"valid": valid, "positive": positive, "object": found["index"]}
            seen = self._given(self._answers(y, regions, drawn))
            _, masks, said = self._look(
                outputs["features"], seen["regions"], training=self._training
            )
            again = self._losses_of(y, seen, masks, *said)
            losses = {name: value + again[name] for name, value in losses.items()}
        parts = {"mask": "mask_head"}
        return {k: v for k, v in losses.items() if parts.get(k, "heads") in self._train}

    def _losses_of(self, y, seen, masks, instance, logits, deltas):
        """The losses of one look at the regions of `seen`, what should have been said of them."""
        regions, valid = seen["regions"], seen["valid"]
        objects = ops.take_along_axis(y["masks"], seen["object"][..., None, None], axis=1)
        cells = self._config["mask_size"]
        targets = masks_in(regions, seen["objects"], objects, cells)
        of_cells = keras.losses.binary_crossentropy(
            ops.cast(targets, "float32"), masks, from_logits=True
        )
        share = ops.mean(ops.cast(objects, "float32"), axis=(2, 3))
        overlap = masks_iou(masks > 0, targets, regions, share * box_ops.area(seen["objects"]))
        background = self._config["num_classes"]
        labels = {
            "instance": ops.where(overlap >= 0.5, seen["labels"], background),
            "classification": seen["labels"],
        }
        return {
            "mask": mean_where(seen["positive"], ops.mean(of_cells, axis=-1)),
            **{
                name: mean_where(
                    valid,
                    keras.losses.sparse_categorical_crossentropy(label, said, from_logits=True),
                )
                for (name, label), said in zip(labels.items(), (instance, logits), strict=True)
            },
            "box": self._box_loss(deltas, seen),
        }

    def _given(self, seen):
        """`seen`, with regions through which, if they are objects, a small gradient may pass."""
        regions = ops.stop_gradient(seen["regions"])
        if self._box_gradient:
            # What is background would learn to flee from the objects.
            of_objects = seen["positive"][..., None]
            regions = ops.where(of_objects, _held(seen["regions"]), regions)
        return {**seen, "regions": regions}


@ops.custom_gradient
def _held(boxes):
    """Boxes (B, R, 4) whose gradient, in units of their sides, is clipped to `PULL` / B."""
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 1.0)
    images = ops.cast(ops.shape(boxes)[0], "float32")
    most = ops.divide(PULL, images * ops.concatenate([sides, sides], axis=-1))

    def gradient(*args, upstream=None):
        if upstream is None:  # PyTorch alone names it.
            (upstream,) = args
        return ops.minimum(ops.maximum(upstream, -most), most)

    return 1.0 * boxes, gradient


def _look(warp, mask_head, pool, heads, features, boxes, **how):
    """Stages 2 and 3: warped boxes, the logits of their masks, and what `_heads` says of them."""
    crops = warp(features, boxes)
    masks = mask_head(crops, **how)
    return crops, masks, heads([pool(crops, ops.sigmoid(masks)), pool(crops)], **how)


def _mask_head(shape, hidden, size):
    """From warped boxes (B, R, *shape) to the logits (B, R, size, size) of their masks."""
    crops = keras.Input((None, *shape), name="crops")
    x = layers.Reshape((-1, math.prod(shape)))(crops)
    x = layers.Dense(hidden, activation="relu", name="reduce")(x)
    x = layers.Dense(size * size, name="cells")(x)
    return keras.Model(crops, layers.Reshape((-1, size, size), dtype="float32")(x), name="masks")


def _heads(shape, num_classes, hidden, dropout):
    """From what both pathways see, each (B, R, *shape), to two classifications, and deltas."""
    names = ("masked", "whole")
    seen = [keras.Input((None, *shape), name=name) for name in names]
    x = [
        hidden_layers(s, hidden, dropout, prefix=f"{n}_") for s, n in zip(seen, names, strict=True)
    ]
    x = layers.Concatenate()(x)
    instance, logits = (class_logits(x, num_classes, name) for name in ("instance", "logits"))
    return keras.Model(seen, [instance, logits, class_deltas(x, num_classes)], name="heads")


def _moved(boxes, logits, deltas, size):
    """Regions (B, R, 4) moved as the likeliest of their classes says."""
    # ONNX knows no argmax of floats.
    likeliest = ops.top_k(logits[..., :-1], 1)[1][..., None]
    deltas = ops.take_along_axis(deltas, likeliest, axis=2)[:, :, 0]
    return box_ops.clip(box_ops.decode(deltas, boxes), *size)
