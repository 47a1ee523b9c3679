"""YOLO: detection as one regression from the whole image to the boxes and classes of a grid."""

import keras
from keras import layers, ops

from cvlib.boxes import convert, paired_iou
from cvlib.layers import NonMaxSuppression, YOLOHead
from cvlib.models.backbone import trunk_up_to
from cvlib.models.system import System
from cvlib.sizes import height_and_width
from cvlib.targets import forgiven, in_cells

COORDINATES = 5.0  # weight of the errors of boxes
NO_OBJECT = 0.5  # weight of the confidence of boxes that answer for no object


@keras.saving.register_keras_serializable(package="cvlib")
class YOLO(System):
    """A detector without proposals: each cell of a grid answers for the object centred in it.

    A cell says B boxes, each with a confidence, and once for all of them which class an object
    would be of (`YOLOHead`). It has one object at most: of several that are centred in it, the
    largest. Of its boxes, one is responsible for the object: the one with the highest IoU, or, if
    none overlaps it, the one nearest to it. Its confidence is to be that IoU, and that of every
    other box 0. So a grid of S x S finds S S objects at most, and loses one of two neighbours.

        yolo = YOLO(backbone("mobilenet"), num_classes, size=(224, 224), grid=7)
        yolo.compile(keras.optimizers.Adam(schedule))
        yolo.fit(batches)

    Large errors at the start throw a network away that has been pretrained: let the learning rate
    rise at first, as `keras.optimizers.schedules.CosineDecay` does with `warmup_steps`.

    Args:
        backbone: a model from `cvlib.models.backbone`; it is used, and trained, in place, up to the
            map.
        num_classes: number of classes C.
        size: (height, width) of the images.
        grid, boxes, hidden, dropout: of `YOLOHead`.
        feature_map: name of the backbone's map; small objects need a smaller stride.
        convolutions: channels of the 3x3 convolutions between backbone and head.
        nms: arguments of `NonMaxSuppression`.
        frozen_to: name of the backbone's map up to which its layers are never trained.

    The outputs are detections and `cells` (B, S, S, 5 B + C), of `YOLOHead`; `indices` (B, N) say
    which box of `YOLOHead.decode` each detection is. Fewer channels and units make it faster.

    Source: YOLO (Redmon et al. 2016), section 2, where the convolutions are (1024,) * 4, the second
    one of stride 2, after 20 of its own. That a cell answers for the largest object is ours: the
    paper is silent, and the released code takes one at random each time. So is that objects that
    are `difficult` or `crowd` are asked for nothing, and the cells that they touch neither.
    """

    loss_names = ("center", "size", "object", "no_object", "classification")

    def __init__(
        self,
        backbone,
        num_classes,
        size=(224, 224),
        grid=7,
        boxes=2,
        feature_map="stride32",
        convolutions=(256, 256),
        hidden=1024,
        dropout=0.5,
        nms=None,
        frozen_to=None,
        **kwargs,
    ):
        size = height_and_width(size)
        backbone = trunk_up_to(backbone, feature_map, frozen_to)
        images = keras.Input((*size, 3), name="images")
        x = features = backbone(images)[feature_map]
        for channels in convolutions:
            x = layers.LeakyReLU(0.1)(layers.Conv2D(channels, 3, padding="same")(x))
        head = YOLOHead(grid, boxes, num_classes, hidden, dropout, name="head")
        cells = head(x)
        nms = nms or {}
        found = NonMaxSuppression(**nms)(*head.decode(cells, *size))
        super().__init__(images, {"cells": cells, **found}, **kwargs)
        self.backbone, self.head = backbone, head
        self._parts = {
            "backbone": (images, features),
            "head": (features, cells),
            "detections": (cells, found),
        }
        self._config = {
            "num_classes": num_classes,
            "size": size,
            "grid": grid,
            "boxes": boxes,
            "feature_map": feature_map,
            "convolutions": tuple(convolutions),
            "hidden": hidden,
            "dropout": dropout,
            "nms": nms,
            "frozen_to": frozen_to,
        }

    def compute_losses(self, y, outputs):
        """Sums of squared errors over the cells of an image, the mean over images.

        `center` and `size` are of the responsible boxes, the sizes as square roots; `object` is of
        their confidence, `no_object` of that of all others; `classification` is of the
        probabilities of cells with an object.

        Source: YOLO (Redmon et al. 2016), equation 3.
        """
        size = self._config["size"]
        said = self.head.split(outputs["cells"])
        cells = in_cells(y["boxes"], y["labels"], self.head.grid, *size, forgiven(y))
        has_object = ops.cast(cells["labels"] >= 0, "float32")
        truth = convert(cells["boxes"], "xyxy", "rel_center_xywh", *size)[:, :, None]
        responsible, overlap = _responsible(truth, said["boxes"])
        responsible = has_object[..., None] * responsible
        others = ops.cast(~cells["ignored"], "float32")[..., None] - responsible

        center = ops.subtract(truth[..., :2] * self.head.grid, self.head.corners())
        classes = ops.one_hot(cells["labels"], self.head.classes)
        batch = ops.cast(ops.shape(has_object)[0], "float32")

        def error(counted, y_true, y_pred):
            errors = ops.square(y_true - y_pred)
            if len(errors.shape) > len(counted.shape):
                errors = ops.sum(errors, axis=-1)
            return ops.sum(counted * errors) / batch

        return {
            "center": COORDINATES * error(responsible, center, said["center"]),
            "size": COORDINATES * error(responsible, ops.sqrt(truth[..., 2:]), said["root"]),
            "object": error(responsible, overlap, said["confidence"]),
            "no_object": NO_OBJECT * error(others, 0.0, said["confidence"]),
            "classification": error(has_object, classes, said["classes"]),
        }


def _responsible(truth, boxes):
    """Which box of each cell answers for its object, and how well each fits it.

    Args:
        truth: (B, S S, 1, 4), the object of each cell, `rel_center_xywh`.
        boxes: (B, S S, b, 4), what the cells say.

    Returns:
        (B, S S, b): 1 for the box of the highest IoU, or, where all are 0, of the smallest distance
        (the root of the mean squared error of the four numbers), the first of equals; 0 for others.
        (B, S S, b): their IoUs. No gradient passes.
    """
    boxes = ops.stop_gradient(boxes)
    corners = [convert(x, "center_xywh", "xyxy") for x in (truth, boxes)]
    overlap = paired_iou(*corners)
    distance = ops.sum(ops.square(truth - boxes), axis=-1)
    touched = ops.any(overlap > 0, axis=-1, keepdims=True)
    best = ops.argmax(ops.where(touched, overlap, -distance), axis=-1)
    return ops.one_hot(best, boxes.shape[2]), overlap
