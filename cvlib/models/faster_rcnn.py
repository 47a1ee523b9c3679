"""A detector that proposes regions itself, from the map that it classifies them on."""

import keras
from keras import layers, ops

from cvlib import boxes as box_ops
from cvlib.layers import AnchorGrid, NonMaxSuppression, RPNHead
from cvlib.losses import mean_where, smooth_l1
from cvlib.models.backbone import map_stride, trunk_up_to
from cvlib.models.region_detector import (
    RegionDetector,
    detect,
    region_heads,
    region_pooling,
)
from cvlib.models.system import System
from cvlib.sizes import height_and_width
from cvlib.targets import forgiven, match

NUM_ANCHORS = 256  # of each image, that the region proposal network learns from
UNSCALED = (1, 1, 1, 1)  # its deltas are those of the paper's equation 2


class ProposingDetector(RegionDetector):
    """A region detector whose regions are proposed by an RPN of its own, from the same map.

    A subclass takes its proposals from `propose`, keeps them by `_keep`, names in `steps` the parts
    that each way of training trains, and implements `_region_losses`, of what follows the RPN.
    """

    # For joint training the authors' configuration, experiments/cfgs/faster_rcnn_end2end.yml of
    # py-faster-rcnn, sets BG_THRESH_LO to 0, which is 0.1 in Fast R-CNN: what the RPN proposes far
    # from all objects is background too.
    background_iou = (0.0, 0.5)

    def compile(self, optimizer="adam", train=None, trunk=True, **kwargs):
        """Chooses what is trained: one of `steps`, and the trunk or not."""
        if train not in self.steps:
            raise ValueError(f"`train` is one of {', '.join(self.steps)}, not {train!r}.")
        self._trains_trunk = trunk
        super().compile(optimizer, **kwargs)
        self._train = self.steps[train]
        for part in {part for parts in self.steps.values() for part in parts}:
            getattr(self, part).trainable = part in self._train

    def compute_losses(self, y, outputs):
        losses = dict.fromkeys(self.loss_names, 0.0)
        if "rpn" in self._train:
            losses |= self._rpn_losses(y, outputs)
        if self._train != ("rpn",):
            losses |= self._region_losses(y, outputs)
        return losses

    def _rpn_losses(self, y, outputs):
        objects = ops.cast(y["boxes"], "float32")
        found = match(
            self.anchors, objects, y["labels"] >= 0, valid=self._inside, ignored=forgiven(y)
        )
        drawn = self._draw(found, NUM_ANCHORS, 0.5)
        positive, place = drawn["positive"], drawn["place"][..., None]
        objectness = keras.losses.sparse_categorical_crossentropy(
            ops.cast(positive, "int32"),
            ops.take_along_axis(outputs["objectness"], place, axis=1),
            from_logits=True,
        )
        anchors = ops.take(self.anchors, drawn["place"], axis=0)
        objects = ops.take_along_axis(objects, drawn["object"][..., None], axis=1)
        deltas = ops.take_along_axis(outputs["anchor_deltas"], place, axis=1)
        # The authors' sigma is 3.
        errors = 4 * smooth_l1(box_ops.encode(objects, anchors, UNSCALED), deltas, beta=1 / 9)
        return {
            "rpn_objectness": mean_where(drawn["valid"], objectness),
            "rpn_box": mean_where(drawn["valid"], ops.where(positive, errors, 0.0)),
        }

    def proposer(self):
        """The RPN alone, with the weights of this system, as a `Proposer`."""
        return Proposer(self)

    def _keep(self, rpn, features, proposals):
        """Takes over what `propose` made of `features`; returns its parts, for timing."""
        self.rpn, self.anchors, self._inside = rpn["head"], rpn["anchors"], rpn["inside"]
        self._proposals = {key: rpn["detections"][key] for key in System.detections}
        said = [rpn["objectness"], rpn["deltas"]]
        return {"rpn": (features, said), "proposals": ([features, *said], proposals)}


@keras.saving.register_keras_serializable(package="cvlib")
class Proposer(System):
    """The RPN of a detector alone: its detections are the proposals, all of one class.

    Args:
        detector: a `ProposingDetector`, whose weights it shares, and with which it is trained.
    """

    def __init__(self, detector, name="proposer", **kwargs):
        found, parts = detector._proposals, detector._parts
        super().__init__(detector.input, dict(found), name=name, **kwargs)
        said, _ = parts["proposals"]
        self._parts = {
            **{key: parts[key] for key in ("backbone", "rpn")},
            "proposals": (said, found),
        }
        self._config = {"detector": keras.saving.serialize_keras_object(detector)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        detector = keras.saving.deserialize_keras_object(config["detector"], custom_objects)
        return cls(**{**config, "detector": detector})

    def compute_losses(self, y, outputs):
        raise ValueError('A Proposer learns with its detector: compile that with train="rpn".')


def propose(features, size, sizes, ratios, stride, channels, pre_nms, post_nms):
    """A region proposal network over a map, and its proposals.

    Args:
        features: (B, H, W, C) symbolic.
        size: (height, width) of the images.
        sizes, ratios, channels, pre_nms, post_nms: as in `FasterRCNN`.
        stride: of the map.

    Returns:
        A dict: `head`, the layer; `anchors` (A, 4); `inside` (A,), which of them lie in the image;
        and symbolic `objectness` (B, A, 2), `deltas` (B, A, 4), `detections`, those of
        `NonMaxSuppression`, and `proposals` (B, `post_nms`, 4), their boxes, whose gradient goes
        on to `deltas`.

    Raises:
        ValueError: no anchor lies inside the image.
    """
    grid = AnchorGrid(sizes, ratios, stride)
    head = RPNHead(channels, len(sizes) * len(ratios), name="rpn")
    anchors = ops.convert_to_numpy(grid(ops.zeros((1, *features.shape[1:]))))
    inside = (anchors >= 0).all(axis=-1) & (anchors <= (*size[::-1], *size[::-1])).all(axis=-1)
    if not inside.any():
        raise ValueError(
            f"No anchor of {tuple(sizes)} lies inside an image of {size[0]}x{size[1]}: "
            "choose `sizes` like those of the objects."
        )
    said = head(features)
    objectness = layers.Reshape((-1, 2), dtype="float32")(said["objectness"])
    deltas = layers.Reshape((-1, 4), dtype="float32")(said["deltas"])
    boxes = box_ops.clip(box_ops.decode(deltas, grid(features), UNSCALED), *size)
    scores = ops.softmax(objectness)[..., 1:]
    scores = ops.where(box_ops.area(boxes)[..., None] > 0, scores, -1.0)
    # No threshold: the head must see the background that the RPN is right about.
    best = NonMaxSuppression(0.7, 0.0, post_nms, pre_nms, name="proposals")(boxes, scores)
    # What is kept is no function of the boxes that has a slope; where it lies is.
    kept = ops.take_along_axis(boxes, ops.maximum(best["indices"], 0)[..., None], axis=1)
    return {
        "head": head,
        "anchors": anchors,
        "inside": inside,
        "objectness": objectness,
        "deltas": deltas,
        "detections": best,
        "proposals": ops.where(best["indices"][..., None] >= 0, kept, 0.0),
    }


@keras.saving.register_keras_serializable(package="cvlib")
class FasterRCNN(ProposingDetector):
    """A detector of two stages in one network: regions are proposed, then classified.

    At every cell of the trunk's map lie anchors of several sizes and shapes. A small network, the
    RPN, says of each whether it has an object, and how to move and resize it to fit. The best that
    do not overlap each other are proposals; what happens to them is Fast R-CNN. One compiled graph
    goes from image to detections, and all of it learns together, from four losses:

        faster_rcnn = FasterRCNN(backbone("tiny"), num_classes, size, sizes=(16, 32, 64))
        faster_rcnn.compile("adam")
        faster_rcnn.fit(batches)
        faster_rcnn.predict(images)

    No gradient passes from the head to the coordinates of the proposals: "approximate joint
    training". The four steps of the paper's section 3.2 are `compile`'s `train` and `trunk`.

    An anchor is an object if its IoU with one is at least 0.7, or the highest that any anchor has
    with this object, and background if its IoU with all is under 0.3; 256 of each image are learned
    from, half of them objects where there are so many. Anchors across the border learn nothing.
    Objects that are difficult, and crowds, are neither right nor wrong.

    Args:
        backbone: a model from `cvlib.models.backbone`; it is used, and trained, in place, up to the
            map.
        num_classes: number of classes C.
        size: (height, width) of the images.
        sizes, ratios: of the anchors, as in `AnchorGrid`; they should resemble the objects.
        feature_map: name of the backbone's map; small objects need a smaller stride.
        rpn_channels: of the RPN's convolution.
        pre_nms, post_nms: how many anchors of an image may become proposals, the surest first, and
            how many proposals remain when of two that overlap by more than 0.7 one is dropped.
        pooling: `"pool"` (`RoIPooling`), `"align"` (`RoIAlign`) or `"spp"`
            (`SpatialPyramidPooling`).
        pool_size: cells on a side of a pooled region; a pyramid has its own.
        hidden: units of each of the two fully connected layers.
        dropout: rate after these layers.
        nms: arguments of the `NonMaxSuppression` of the detections.
        frozen_to: name of the backbone's map up to which its layers are never trained.

    Attributes:
        anchors: (A, 4) float32 xyxy, row by row, column by column.

    The outputs are detections and, for the losses, `features`, the map, `objectness` (B, A, 2),
    logits of background and object, `anchor_deltas` (B, A, 4), and `proposals` (B, `post_nms`, 4),
    those that are not real without area.

    Raises:
        ValueError: no anchor lies inside the image; `pooling`, `feature_map` or `frozen_to` is none
            of the above.

    Source: Faster R-CNN (Ren et al. 2015), section 3.
    """

    loss_names = ("rpn_objectness", "rpn_box", "classification", "box")
    steps = {"both": ("rpn", "heads"), "rpn": ("rpn",), "heads": ("heads",)}

    def __init__(
        self,
        backbone,
        num_classes,
        size,
        sizes=(128, 256, 512),
        ratios=(0.5, 1, 2),
        feature_map="stride16",
        rpn_channels=512,
        pre_nms=6000,
        post_nms=300,
        pooling="pool",
        pool_size=7,
        hidden=512,
        dropout=0.5,
        nms=None,
        frozen_to=None,
        **kwargs,
    ):
        size = height_and_width(size)
        backbone = trunk_up_to(backbone, feature_map, frozen_to)
        stride = map_stride(feature_map)
        images = keras.Input((*size, 3), name="images")
        features = backbone(images)[feature_map]

        rpn = propose(features, size, sizes, ratios, stride, rpn_channels, pre_nms, post_nms)
        proposals = rpn["detections"]["boxes"]  # no gradient passes

        pool = region_pooling(pooling, pool_size, stride)
        pooled = pool(features, proposals)
        heads = region_heads(pooled.shape[2:], num_classes, hidden, dropout)
        logits, deltas = heads(pooled)
        nms = nms or {}
        scores = ops.softmax(logits)[..., :-1]
        found = detect(proposals, scores, deltas, size, NonMaxSuppression(**nms))
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
        self.backbone, self.pooling, self.heads = backbone, pool, heads
        self._parts = {
            "backbone": (images, features),
            **self._keep(rpn, features, proposals),
            "pooling": ([features, proposals], pooled),
            "heads": (pooled, [logits, deltas]),
            "detections": ([proposals, logits, deltas], found),
        }
        self._config = {
            "num_classes": num_classes,
            "size": size,
            "sizes": tuple(sizes),
            "ratios": tuple(ratios),
            "feature_map": feature_map,
            "rpn_channels": rpn_channels,
            "pre_nms": pre_nms,
            "post_nms": post_nms,
            "pooling": pooling,
            "pool_size": pool_size,
            "hidden": hidden,
            "dropout": dropout,
            "nms": nms,
            "frozen_to": frozen_to,
        }

    def compile(self, optimizer="adam", train="both", trunk=True, **kwargs):
        """Chooses what is trained.

        The paper's four steps are: "rpn" of one system; its proposals for a `FastRCNN` with another
        trunk; "rpn" without the trunk of a system with that trunk and head; and "heads" of it
        without the trunk.

        Args:
            optimizer: as in `keras.Model.compile`, like `**kwargs`, and `num_regions` and
                `background_iou`, as in `RegionDetector.compile`.
            train: `"both"`: everything, by the sum of the four losses; `"rpn"`: the RPN by the
                first two; `"heads"`: the head by the last two.
            trunk: whether the trunk is trained too.

        Raises:
            ValueError: `train` is none of these.
        """
        super().compile(optimizer, train, trunk, **kwargs)
