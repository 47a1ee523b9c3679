"""R-CNN: every proposal is cut out, warped, and looked at by itself."""

import keras
import numpy as np
from keras import layers, ops

from cvlib import boxes as box_ops
from cvlib.layers import CropAndResize, NonMaxSuppression
from cvlib.losses import mean_where
from cvlib.models.backbone import folded, trunk_up_to
from cvlib.models.region_detector import detect, inside
from cvlib.models.staged_detector import (
    TOGETHER,
    Examples,
    StagedDetector,
    look_at,
    region_network,
    train_svm,
    warped,
)
from cvlib.sizes import height_and_width
from cvlib.targets import forgiven, has_area

__all__ = ["RCNN", "Examples", "train_regressor", "train_svm"]

# Of the authors' code (rcnn_train_bbox_regressor.m).
PAIR = 0.6  # IoU of a proposal with its object, above which its box is learnt
RIDGE = 1000
WHITENING = 1e-3  # added to the variances of the targets
UNSCALED = (1.0, 1.0, 1.0, 1.0)  # of the targets, which are whitened instead


@keras.saving.register_keras_serializable(package="cvlib")
class RCNN(StagedDetector):
    """A detector that is given where to look, and looks at each place by itself.

    Each proposed box is cut out with some context and warped to a square, whatever its shape. The
    square goes through the trunk and two fully connected layers. A linear SVM for each class sees
    what comes out, and a linear regressor for each class moves and resizes the box.
    `NonMaxSuppression` keeps the best of what overlaps.

    Nothing of this is trained together, but in stages, of which each needs the one before:

    1. the network is fine-tuned, with a new layer of C + 1 classes: proposals with an IoU of at
       least 0.5 with an object are of its class, the others background;
    2. the features of all proposals, and of the objects' own boxes, are written to disk;
    3. one SVM for each class learns to tell the objects from proposals with an IoU under 0.3, of
       which it is shown the hard ones, in rounds;
    4. one ridge regression for each class learns, from proposals with an IoU of more than 0.6,
       where the object is.

        batches = cvlib.data.batches(dataset, 16, size, proposals=proposals, max_proposals=200)
        rcnn = RCNN(backbone("tiny"), num_classes, size, max_proposals=200)
        rcnn.compile("adam", num_regions=8)  # 32 objects and 96 of background in a batch
        rcnn.fit(batches, folder="features", epochs=4)
        rcnn.predict(images, proposals)

    Objects that are difficult, and crowds, are neither right nor wrong.

    Args:
        backbone: a model from `cvlib.models.backbone`; it is used, and trained, in place, up to the
            map.
        num_classes: number of classes C.
        size: (height, width) of the images.
        max_proposals: R, how many proposals of an image are looked at.
        crop_size: side of the squares in pixels.
        context: pixels of the image around the box, if squares had 227 a side. Outside of the image
            all is of the mean colour.
        feature_map: name of the backbone's last map.
        hidden: units of each of the two fully connected layers.
        dropout: rate after these layers.
        features: what the SVMs see: the last map (`"pool"`) or what the fully connected layers make
            of it (`"fc"`). The regressors see the map.
        scores: `"svm"`, or `"softmax"` for those of the fine-tuned layer.
        box_regression: whether boxes are moved and resized.
        nms: arguments of `NonMaxSuppression`; its threshold is 0.3 if they do not say another.
        frozen_to: name of the backbone's map up to which its layers are never trained.
        network: that of another `RCNN`, to share its weights; see `variant`.

    The inputs are `{"images": (B, H, W, 3), "proposals": (B, R, 4)}`, xyxy in pixels; those without
    area, of NaN or infinite, are padding. The outputs are detections and, for the losses, `images`
    and `proposals`, inside the image. The confidence of a SVM is the logistic function of its
    score: 0.5 on the plane between objects and others.

    After `fit` or `fit_heads` with a folder, `cost` says what they took: `seconds`, a dict of what
    each stage took in this call, the number of `regions`, and the `bytes` of their features.

    Raises:
        ValueError: `features`, `scores`, `feature_map` or `frozen_to` is none of the above.

    Source: R-CNN (Girshick et al. 2014), sections 2 and 3.5, appendices A to C, and the authors'
    code. The paper warps to 227 x 227, fine-tunes on regions of any images, where a batch here has
    as many of each of its images, and caches hard negatives without a limit, here of 10,000. Its
    features are those of images that were not augmented; here they are those of what `fit` is
    given. The code's regressors also learn from the objects' own boxes, whose target is 0, and it
    suppresses the proposals, too, before they are moved; here boxes are suppressed once, when
    moved.
    """

    loss_names = ("classification",)
    _seen_by = (
        *("num_classes", "size", "max_proposals", "crop_size", "context", "feature_map"),
        *("hidden", "dropout", "frozen_to"),
    )

    def __init__(
        self,
        backbone,
        num_classes,
        size,
        max_proposals=2000,
        crop_size=128,
        context=16,
        feature_map="stride32",
        hidden=512,
        dropout=0.5,
        features="fc",
        scores="svm",
        box_regression=True,
        nms=None,
        frozen_to=None,
        network=None,
        **kwargs,
    ):
        size = height_and_width(size)
        if features not in ("pool", "fc"):
            raise ValueError(f"`features` is one of pool, fc, not {features!r}.")
        if scores not in ("svm", "softmax"):
            raise ValueError(f"`scores` is one of svm, softmax, not {scores!r}.")
        backbone = trunk_up_to(backbone, feature_map, frozen_to)
        if network is None:
            network = region_network(backbone, feature_map, crop_size, num_classes, hidden, dropout)
        images = keras.Input((*size, 3), name="images")
        given = keras.Input((max_proposals, 4), name="proposals")
        proposals = inside(given, size)
        crop = CropAndResize((crop_size, crop_size), name="warp")
        crops = warped(crop, images, proposals, context)
        seen = look_at(network, crops)
        given_to_heads = {"pool": seen["pool"]} if box_regression else {}
        if scores == "svm":
            given_to_heads[features] = seen[features]
            svm = layers.Dense(
                num_classes,
                kernel_initializer="zeros",
                trainable=False,
                dtype="float32",
                name="svm",
            )
            probabilities = ops.sigmoid(svm(seen[features]))
        else:
            given_to_heads["logits"] = seen["logits"]
            probabilities = ops.softmax(seen["logits"])[..., :-1]
        said = {"scores": probabilities}
        if box_regression:
            regressors = layers.Dense(
                4 * num_classes,
                kernel_initializer="zeros",
                trainable=False,
                dtype="float32",
                name="regressors",
            )
            said["deltas"] = layers.Reshape((-1, num_classes, 4))(regressors(seen["pool"]))
        nms = nms or {}
        suppress = NonMaxSuppression(**{"iou_threshold": 0.3, **nms})
        found = detect(proposals, probabilities, said.get("deltas"), size, suppress)
        super().__init__(
            {"images": images, "proposals": given},
            {"images": layers.Identity()(images), "proposals": proposals, **found},
            **kwargs,
        )
        self.backbone, self.network, self._crop = backbone, network, crop
        self._parts = {
            "warp": ([images, given], [proposals, crops]),
            "network": (crops, given_to_heads),
            "heads": ([given_to_heads[key] for key in sorted(given_to_heads)], said),
            "detections": ([proposals, *said.values()], found),
        }
        self._config = {
            "num_classes": num_classes,
            "size": size,
            "max_proposals": max_proposals,
            "crop_size": crop_size,
            "context": context,
            "feature_map": feature_map,
            "hidden": hidden,
            "dropout": dropout,
            "features": features,
            "scores": scores,
            "box_regression": box_regression,
            "nms": nms,
            "frozen_to": frozen_to,
        }

    def compute_losses(self, y, outputs):
        drawn = self._draw_regions(y, outputs["proposals"])
        crops = warped(self._crop, outputs["images"], drawn["regions"], self._config["context"])
        logits = look_at(self.network, crops, training=self._training)["logits"]
        each = keras.losses.sparse_categorical_crossentropy(
            drawn["labels"], logits, from_logits=True
        )
        return {"classification": mean_where(drawn["valid"], each)}

    def predict(self, images, proposals, batch_size=1, verbose=0):
        """As `FastRCNN.predict`. The squares of an image take memory: 400 MB for 2,000 of 128."""
        return super().predict(images, proposals, batch_size, verbose)

    def _look(self):
        """The network on `TOGETHER` boxes of one image: (1, H, W, 3), (1, 64, 4) to (64, D)."""
        images, boxes = keras.Input((*self._config["size"], 3)), keras.Input((TOGETHER, 4))
        crops = warped(self._crop, images, boxes, self._config["context"])
        seen = look_at(folded(self.network), crops)
        features = ops.concatenate([seen["pool"], seen["fc"]], axis=-1)[0]
        look = keras.Model([images, boxes], features)
        look.jit_compile = self.jit_compile
        return look

    def _columns(self, kind):
        split = self.network.output["pool"].shape[-1]
        return slice(split) if kind == "pool" else slice(split, None)

    def _heads(self):
        heads = {}
        if self._config["scores"] == "svm":
            heads["SVMs"] = lambda folder: self._fit_svms(folder, train_svm)
        if self._config["box_regression"]:
            heads["box regression"] = self._fit_regressors
        return heads

    def _regions(self, x, y, first):
        """As `StagedDetector._regions`; the network looks at boxes.

        Returns:
            Of each image a structured array of its proposals that are boxes, and of its objects:
            `image`; `box`; `own`, the class of the object whose box it is, or -1; `overlap`, the
            highest IoU with an object of each class, or the share that a forgiven one covers;
            `pair`, the class of the object that its box should become, or -1, and the `target` of
            it.
        """
        labels = ops.convert_to_numpy(y["labels"])
        objects = ops.cast(y["boxes"], "float32")
        proposals = inside(ops.cast(x["proposals"], "float32"), self._config["size"])
        boxes = ops.concatenate([proposals, objects], axis=1)
        ignored = ops.convert_to_numpy(forgiven(y))
        # A crowd is larger than those in it: what counts is how much of a region it covers.
        overlap = ops.where(
            ignored[:, None], box_ops.covered(boxes, objects), box_ops.iou(boxes, objects)
        )
        overlap = np.nan_to_num(ops.convert_to_numpy(overlap)) * (labels >= 0)[:, None]
        taught = (labels >= 0) & ~ignored & ops.convert_to_numpy(has_area(objects))
        more = [("box", "f4", 4), ("target", "f4", 4)]
        found, real, nearest, _ = self._describe(
            first, labels, taught, proposals, overlap, PAIR, more
        )
        targets = box_ops.encode(
            ops.take_along_axis(objects, ops.convert_to_tensor(nearest)[..., None], axis=1),
            boxes,
            UNSCALED,
        )
        found["box"], found["target"] = ops.convert_to_numpy(boxes), ops.convert_to_numpy(targets)
        found = [one[which] for one, which in zip(found, real, strict=True)]
        return found, [(one["box"],) for one in found], {}

    def _fit_regressors(self, folder):
        weights = self._each_class(folder, "pool", "regressor", train_regressor)
        # Class by class, in units of what `decode` multiplies by.
        weights = np.moveaxis(weights, 1, 0) / np.float32([0.1, 0.1, 0.2, 0.2])
        *kernel, bias = weights.reshape(len(weights), -1)
        self.get_layer("regressors").set_weights([np.array(kernel), bias])


def train_regressor(examples, label):
    """How the features of a proposal of a class say where its object is: a ridge regression.

    The four targets are whitened together, so that the penalty means the same for each. All that is
    kept of the examples are sums of products.

    Args:
        examples: as `Examples`.
        label: of the class.

    Returns:
        (D + 1, 4), the bias last, for `cvlib.boxes.decode` without a scale; zeros, for which boxes
        stay, where there is nothing to learn from.

    Source: R-CNN (Girshick et al. 2014), appendix C; rcnn_train_bbox_regressor.m.
    """
    xx = xy = yy = 0
    for regions, x in examples:
        pairs = regions["pair"] == label
        x = np.pad(x[pairs].astype("float64"), ((0, 0), (0, 1)), constant_values=1)
        y = regions["target"][pairs].astype("float64")
        xx, xy, yy = xx + x.T @ x, xy + x.T @ y, yy + y.T @ y
    if not (count := xx[-1, -1]):
        return xy
    mean = xy[-1] / count
    variances, axes = np.linalg.eigh(yy / count - np.outer(mean, mean))
    deviations = np.sqrt(np.maximum(variances, 0) + WHITENING)
    whitened = (xy - np.outer(xx[:, -1], mean)) @ (axes / deviations) @ axes.T
    weights = np.linalg.solve(xx + RIDGE * np.eye(len(xx)), whitened)
    weights = weights @ (axes * deviations) @ axes.T
    weights[-1] += mean
    return weights
