"""Classification with localization: a class and a box, or K of each, from one image."""

import keras
import numpy as np
from keras import layers, ops

from cvlib import losses
from cvlib.boxes import CENTRAL_HALF, convert
from cvlib.metrics.localization import BoxIoU, LabelAccuracy, LocalizationAccuracy
from cvlib.models.backbone import freeze
from cvlib.models.system import System, epoch_steps, jit_compile
from cvlib.sizes import height_and_width
from cvlib.targets import left_to_right

# Box losses on coordinates relative to the image, where 0.1 is a tenth of it.
_BOX_LOSSES = {
    "l2": losses.l2,
    "smooth_l1": lambda y_true, y_pred: losses.smooth_l1(y_true, y_pred, beta=0.1),
    "iou": losses.iou_loss,
}


@keras.saving.register_keras_serializable(package="cvlib")
class Localizer(System):
    """A classifier with a box regression head, for a fixed number of objects.

    The backbone's last map feeds a fully connected layer and a softmax over classes. A second head
    regresses the box, either from that last map ("after the last convolution") or from the fully
    connected layer. Train in two steps, as OverFeat does, or at once with `train="both"`:

        localizer.compile("adam", train="classifier")  # softmax cross-entropy; the box head rests
        localizer.fit(batches)
        localizer.compile("adam", train="boxes")  # L2; all but the box head is frozen
        localizer.fit(batches)

    With `num_objects=K` every image holds exactly K objects and output k answers for the k-th from
    the left: some rule must say which output is responsible for which object. The metrics pair
    objects and predictions in their order from the left. Where images hold K objects at most, an
    output without an object learns nothing, or, with `background=True`, that there is none.

    Args:
        backbone: a model from `cvlib.models.backbone`; it is used, and trained, in place.
        num_classes: number of classes C.
        size: (height, width) of the images.
        attach: `"conv"`: the box head sees the last map through a hidden layer of its own
            (OverFeat, VGG); `"fc"`: it is one linear layer after the fully connected layer
            (DeepPose, Fast R-CNN).
        boxes: `"agnostic"`: one box whatever the class; `"per_class"`: one box per class, of which
            the predicted class's is given.
        num_objects: K, the number of objects in every image.
        background: whether the softmax has one class more, for outputs without an object. It is
            never among the labels given; a confidence is the probability of the label beside it.
        hidden: units of the fully connected layer of each head.
        dropout: rate after these layers.
        frozen_to: name of the backbone's map up to which its layers are never trained.

    Raises:
        ValueError: `attach`, `boxes` or `frozen_to` is none of the above.

    Source: OverFeat (Sermanet et al. 2013), section 4; VGG (Simonyan & Zisserman 2015),
    appendix A; R-CNN (Girshick et al. 2014), appendix C; Fast R-CNN (Girshick 2015), section 2.1.
    """

    loss_names = ("classification", "box")

    def __init__(
        self,
        backbone,
        num_classes,
        size=(128, 128),
        attach="conv",
        boxes="agnostic",
        num_objects=1,
        background=False,
        hidden=256,
        dropout=0.5,
        frozen_to=None,
        **kwargs,
    ):
        size = height_and_width(size)
        _check("attach", attach, ("conv", "fc"))
        _check("boxes", boxes, ("agnostic", "per_class"))
        K, C = num_objects, num_classes

        images = keras.Input((*size, 3), name="images")
        last_map = backbone(images)["stride32"]

        head_input = keras.Input(last_map.shape[1:], name="last_map")
        # What an object is depends little on where it lies, so the classifier pools 2 x 2 cells.
        pooled = layers.AveragePooling2D(2, padding="same")(head_input)
        fc = _fully_connected(pooled, hidden, dropout, "fc")
        logits = layers.Dense(K * (C + background), name="logits")(fc)
        seen = fc
        if attach == "conv":
            seen = _fully_connected(head_input, hidden, dropout, "box_fc")
        per_object = C if boxes == "per_class" else 1
        # Boxes begin where `_decode` puts them: larger first errors would drown the gradient
        # (Fast R-CNN, section 2.3).
        small = keras.initializers.RandomNormal(stddev=0.001)
        offsets = layers.Dense(K * per_object * 4, kernel_initializer=small, name="offsets")(seen)
        heads = keras.Model(
            head_input,
            _decode(
                layers.Reshape((K, C + background), dtype="float32")(logits),
                layers.Reshape((K, per_object, 4), dtype="float32")(offsets),
                num_classes,
                size,
            ),
            name="heads",
        )
        found = heads(last_map)
        super().__init__(images, found, **kwargs)
        self.backbone, self.heads = backbone, heads
        self._parts = {"backbone": (images, last_map), "heads": (last_map, found)}
        self._config = {
            "num_classes": num_classes,
            "size": size,
            "attach": attach,
            "boxes": boxes,
            "num_objects": num_objects,
            "background": background,
            "hidden": hidden,
            "dropout": dropout,
            "frozen_to": frozen_to,
        }
        freeze(backbone, frozen_to)
        self._box_head = [heads.get_layer("offsets")]
        if attach == "conv":
            self._box_head.append(heads.get_layer("box_fc"))
        self._metrics_of_boxes = [LabelAccuracy(), BoxIoU(), LocalizationAccuracy()]

    def with_box_head(self, **changes):
        """A copy with the same trunk and classifier and a new box head.

        Args:
            **changes: of the arguments `attach`, `boxes`, `dropout` and `frozen_to`.
        """
        how = {**self._config, **changes, "classes": self.classes}
        other = type(self)(keras.models.clone_model(self.backbone), **how)
        other.backbone.set_weights(self.backbone.get_weights())
        for name in ("fc", "logits"):
            other.heads.get_layer(name).set_weights(self.heads.get_layer(name).get_weights())
        return other

    def compile(self, optimizer="adam", train="both", box_loss="l2", box_weight=50.0, **kwargs):
        """Chooses what is trained, and by which losses.

        Args:
            optimizer: as in `keras.Model.compile`, like `**kwargs`.
            train: `"classifier"`: trunk and softmax, by cross-entropy; `"boxes"`: the box head
                alone, by the box loss; `"both"`: everything, by their sum.
            box_loss: `"l2"`, `"smooth_l1"` or `"iou"`, on coordinates relative to the image.
            box_weight: factor of the box loss in that sum.

        Raises:
            ValueError: `train` or `box_loss` is none of the above.
        """
        _check("train", train, ("classifier", "boxes", "both"))
        _check("box_loss", box_loss, _BOX_LOSSES)
        self._trains_trunk = train != "boxes"
        super().compile(optimizer, **kwargs)
        self._class_weight = 0.0 if train == "boxes" else 1.0
        self._box_weight = {"classifier": 0.0, "boxes": 1.0, "both": box_weight}[train]
        self._box_loss = _BOX_LOSSES[box_loss]
        for layer in self.heads.layers:
            layer.trainable = train != "boxes"
        for layer in self._box_head:
            layer.trainable = train != "classifier"

    def compute_losses(self, y, outputs):
        truth = self._responsible(y)
        present = truth["labels"] >= 0
        labels = ops.maximum(truth["labels"], 0)
        background = self._config["background"]
        classification = keras.losses.sparse_categorical_crossentropy(
            ops.where(present, labels, self._config["num_classes"]) if background else labels,
            outputs["logits"],
            from_logits=True,
        )
        target = convert(truth["boxes"], "xyxy", "rel_xyxy", *self._config["size"])
        offsets = outputs["class_boxes"]
        if self._config["boxes"] == "per_class":
            offsets = ops.take_along_axis(offsets, labels[..., None, None], axis=2)
        regression = self._box_loss(target, offsets[:, :, 0])
        classified = ops.ones_like(present) if background else present
        return {
            "classification": self._class_weight * losses.mean_where(classified, classification),
            "box": self._box_weight * losses.mean_where(present, regression),
        }

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        truth, found = self._responsible(y), self._responsible(y_pred)
        for metric in self._metrics_of_boxes:
            metric.update_state(truth, found)
        return self.get_metrics_result()

    def _responsible(self, objects):
        return left_to_right(objects["boxes"], objects["labels"], self._config["num_objects"])


def fit_box_heads(localizers, batches, optimizer="adam", **kwargs):
    """Trains the box heads of several localizers in one pass, which look at one frozen trunk.

    Each learns as it would alone, but the trunk runs once for all of them.

    Args:
        localizers: dict from a name to a `Localizer`, copies by `with_box_head` of one, each
            compiled with `train="boxes"` and a loss of its own.
        batches: as `Localizer.fit` takes them.
        optimizer: of all heads.
        **kwargs: as in `keras.Model.fit`.

    Returns:
        A `keras.callbacks.History`, with the mean IoU of each localizer under its name.
    """
    model = _SideBySide(localizers)
    model.compile(optimizer, jit_compile=jit_compile())
    kwargs = {"steps_per_epoch": epoch_steps(batches, kwargs), "shuffle": False} | kwargs
    for localizer in localizers.values():
        localizer.classes = localizer.classes or tuple(getattr(batches, "classes", ()))
    return model.fit(batches, **kwargs)


class _SideBySide(keras.Model):
    """Localizers whose frozen trunks are the same."""

    def __init__(self, localizers):
        super().__init__(name="side_by_side")
        self.localizers = localizers
        self.overlaps = {name: BoxIoU(name=name) for name in localizers}

    zero_grad = System.zero_grad

    def call(self, images, training=False):
        trunk = next(iter(self.localizers.values())).backbone
        last_map = trunk(images, training=False)["stride32"]
        return {
            name: localizer.heads(last_map, training=training)
            for name, localizer in self.localizers.items()
        }

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        return sum(
            localizer.compute_loss(x, y, y_pred[name])
            for name, localizer in self.localizers.items()
        )

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        for name, metric in self.overlaps.items():
            metric.update_state(y, y_pred[name])
        return self.get_metrics_result()


def _check(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"`{name}` is one of {', '.join(allowed)}, not {value!r}.")


def _fully_connected(maps, units, dropout, name):
    x = layers.Flatten()(maps)
    x = layers.Dense(units, activation="relu", name=name)(x)
    return layers.Dropout(dropout)(x)


def _decode(logits, offsets, num_classes, size):
    """Logits (B, K, C or C + 1) and offsets (B, K, 1 or C, 4) to detections, beside what the
    losses need."""
    # Boxes start as the central half of the image, so that they overlap the objects at once.
    # (A tensor in place of the array would become an input of an ONNX file.)
    class_boxes = offsets + np.float32(CENTRAL_HALF)
    probabilities = ops.softmax(logits)[..., :num_classes]
    # An argmax of floats cannot be exported to ONNX.
    labels = ops.top_k(probabilities, 1)[1][..., 0]
    boxes = class_boxes
    if boxes.shape[2] > 1:
        boxes = ops.take_along_axis(boxes, labels[..., None, None], axis=2)
    boxes = convert(ops.clip(boxes[:, :, 0], 0, 1), "rel_xyxy", "xyxy", *size)
    return {
        "logits": logits,
        "class_boxes": class_boxes,
        "boxes": boxes,
        "confidence": ops.max(probabilities, axis=-1),
        "labels": labels,
        "num_detections": ops.sum(ops.ones_like(labels), axis=-1),
    }
