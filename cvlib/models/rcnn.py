"""R-CNN: every proposal is cut out, warped, and looked at by itself."""

import contextlib
import hashlib
import io
import json
import time
import warnings
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops, tree

from cvlib import boxes as box_ops
from cvlib.data.augment import MEAN_COLOR
from cvlib.layers import CropAndResize, NonMaxSuppression
from cvlib.losses import mean_where
from cvlib.models.backbone import trunk_up_to
from cvlib.models.region_detector import ProposalDetector, detect, inside
from cvlib.models.system import one_pass, whole_file
from cvlib.records import keep_settings, write_atomically
from cvlib.targets import forgiven

VERSION = 1  # Raised whenever the files in a folder change: those made before are then refused.

# Of the authors' code (rcnn_im_crop.m, rcnn_train.m, rcnn_train_bbox_regressor.m).
CROP = 227  # side of the crops for which the pixels of context are given
MEAN_NORM = 20  # of the features that SVMs and regressors see
NEGATIVE = 0.3  # IoU with an object of the class under which a proposal is no such object
HARD, EASY = -1.0001, -1.2  # scores from which a negative is learnt from, and under which no more
ROUND = 2000  # hard negatives after which a SVM is trained again
PAIR = 0.6  # IoU of a proposal with its object, above which its box is learnt
RIDGE = 1000
WHITENING = 1e-3  # added to the variances of the targets
UNSCALED = (1.0, 1.0, 1.0, 1.0)  # of the targets, which are whitened instead

MOST = 10_000  # positives, and negatives, of a class in memory
NEVER = -20.0  # score of a class that has never been seen
TOGETHER = 64  # regions of an image that are looked at in one go, for their features


@keras.saving.register_keras_serializable(package="cvlib")
class RCNN(ProposalDetector):
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
    as many of each of its images, and caches hard negatives without a limit, here of 10,000.
    """

    loss_names = ("classification",)
    background_iou = (0.0, 0.5)

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
        if features not in ("pool", "fc"):
            raise ValueError(f"`features` is one of pool, fc, not {features!r}.")
        if scores not in ("svm", "softmax"):
            raise ValueError(f"`scores` is one of svm, softmax, not {scores!r}.")
        backbone, trunk = trunk_up_to(backbone, feature_map, frozen_to)
        if network is None:
            network = _network(backbone, feature_map, crop_size, num_classes, hidden, dropout)
        images = keras.Input((*size, 3), name="images")
        given = keras.Input((max_proposals, 4), name="proposals")
        proposals = inside(given, size)
        crop = CropAndResize((crop_size, crop_size), name="warp")
        crops = _warp(crop, images, proposals, context)
        seen = _look(network, crops)
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
        self.backbone, self.network, self._crop, self._trunk = backbone, network, crop, trunk
        self._parts = {
            "warp": ([images, given], [proposals, crops]),
            "network": (crops, given_to_heads),
            "heads": ([given_to_heads[key] for key in sorted(given_to_heads)], said),
            "detections": ([proposals, *said.values()], found),
        }
        self._config = {
            "num_classes": num_classes,
            "size": tuple(size),
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
        self.cost, self._checkpoint = {}, None

    def variant(self, **changes):
        """The same network, with the same weights, under other heads, which `fit_heads` trains.

        Args:
            **changes: of the arguments `features`, `scores`, `box_regression` and `nms`.
        """
        options = {"network": self.network, "classes": self.classes}
        return type(self)(self.backbone, **options, **{**self._config, **changes})

    def call(self, inputs, training=None, mask=None):
        # What it detects is not what it learns from: in training all proposals would move the
        # statistics of the network's layers, and take their time.
        return super().call(inputs, training=False, mask=mask)

    def compute_losses(self, y, outputs):
        drawn = self._draw_regions(y, outputs["proposals"])
        crops = _warp(self._crop, outputs["images"], drawn["regions"], self._config["context"])
        logits = _look(self.network, crops, training=self._training)["logits"]
        each = keras.losses.sparse_categorical_crossentropy(
            drawn["labels"], logits, from_logits=True
        )
        return {"classification": mean_where(drawn["valid"], each)}

    def predict(self, images, proposals, batch_size=1, verbose=0):
        """As `FastRCNN.predict`. The squares of an image take memory: 400 MB for 2,000 of 128."""
        return super().predict(images, proposals, batch_size, verbose)

    def fit(self, x, y=None, folder=None, **kwargs):
        """Trains, with a `folder` in all its stages, and without one in the first alone.

        What a stage has finished is kept in the folder: each epoch, each batch of features, each
        class. A run that was killed goes on there if it is started again in the same way.

        Args:
            x: what `cvlib.data.batches(..., proposals=...)` gives, or arrays of `images` and
                `proposals`. Its first pass is that of the features.
            y: the targets of these arrays, a dict.
            folder: where it all is kept; made if it does not exist.
            **kwargs: as in `keras.Model.fit`; with no `epochs` (0) the network stays as it is.

        Returns:
            A `keras.callbacks.History` of the fine-tuning that this call did.

        Raises:
            ValueError: the folder holds what other settings, data or weights made.
            OSError: the disk is full; what was finished is kept.
        """
        if folder is None:
            return super().fit(x, y, **kwargs)
        if not self.compiled:
            raise ValueError("Call `compile` before `fit`.")
        folder, start = Path(folder), time.monotonic()
        # What it was before the first call: a call that was interrupted has changed it.
        self._checkpoint = self._checkpoint or _digest(self.backbone.get_weights())
        with _on_disk(folder):
            history = self._fine_tune(x, y, folder / "network", **kwargs)
        seconds = time.monotonic() - start
        self.fit_heads(x, y, folder)
        self.cost["seconds"] = {"fine-tuning": seconds, **self.cost["seconds"]}
        return history

    def _fine_tune(self, x, y, folder, epochs=1, callbacks=(), **kwargs):
        how = {"num_regions": self._num_regions, "epochs": epochs}
        # Without its name, which counts the optimizers of a process.
        optimizer = {k: v for k, v in self.optimizer.get_config().items() if k != "name"}
        settings = self._settings(x, y, checkpoint=self._checkpoint, optimizer=optimizer, **how)
        keep_settings(folder, settings, "weights")

        def keep(done):
            before = _epochs(folder)
            with whole_file(folder / f"{done:04}.weights.h5") as path:
                self.save_weights(path)
            for path in before:
                path.unlink()

        self.optimizer.build(self.trainable_variables)
        if saved := _epochs(folder):
            self.load_weights(saved[-1])
        else:
            keep(0)  # The new layers begin at random.
        after_epoch = keras.callbacks.LambdaCallback(on_epoch_end=lambda n, _: keep(n + 1))
        return super().fit(
            x,
            y,
            epochs=epochs,
            initial_epoch=int(_epochs(folder)[-1].name[:4]),
            callbacks=[*callbacks, after_epoch],
            **kwargs,
        )

    def fit_heads(self, x, y=None, folder=None):
        """The stages after the fine-tuning: features, and of these the SVMs and the regressors.

        Variants of a system share the features in a folder.

        Args:
            x, y, folder: as in `fit`.

        Raises:
            ValueError, OSError: as `fit` does.
        """
        folder, clock = Path(folder) / "regions", [time.monotonic()]
        with _on_disk(folder):
            counts = self._write_features(x, y, folder)
            clock.append(time.monotonic())
            if self._config["scores"] == "svm":
                self._fit_svms(folder)
            clock.append(time.monotonic())
            if self._config["box_regression"]:
                self._fit_regressors(folder)
            clock.append(time.monotonic())
        stages = ("features", "SVMs", "box regression")
        self.cost = {**counts, "seconds": dict(zip(stages, np.diff(clock).tolist(), strict=True))}

    def _settings(self, x, y, **more):
        """What the network is, what it is given, and what else there is."""
        keys = ("num_classes", "size", "max_proposals", "crop_size", "context", "feature_map")
        keys += ("hidden", "dropout", "frozen_to")
        given = _digest(tree.flatten(next(one_pass(x, y))))
        known = {"version": VERSION, **{key: self._config[key] for key in keys}}
        return {**known, "first batch": given, **more}

    def _write_features(self, x, y, folder):
        """Features of all regions in a pass over `x`: two files for each batch.

        Returns:
            Number of `regions`, and `bytes` of their features.
        """
        weights = _digest(self.network.get_weights())
        keep_settings(folder, self._settings(x, y, weights=weights), "features")
        whole = folder / "whole.json"
        if not whole.exists():
            look, first, counts = self._look(), 0, {"regions": 0, "bytes": 0}
            for i, (given, targets) in enumerate(
                one_pass(x, y, steps=getattr(x, "steps_per_epoch", None))
            ):
                path = folder / f"features-{i:05}.npy"
                if not path.exists():
                    found = self._regions(given["proposals"], targets, first)
                    features = [
                        _features(look, image, regions["box"])
                        for image, regions in zip(given["images"], found, strict=True)
                    ]
                    _save(folder / f"regions-{i:05}.npy", np.concatenate(found))
                    _save(path, np.concatenate(features))
                first += len(given["images"])
                features = np.load(path, mmap_mode="r")
                counts["regions"] += len(features)
                counts["bytes"] += features.nbytes
            write_atomically(whole, json.dumps(counts))
        return json.loads(whole.read_text("utf-8"))

    def _look(self):
        """The network on `TOGETHER` boxes of one image: (1, H, W, 3), (1, 64, 4) to (64, D)."""
        images, boxes = keras.Input((*self._config["size"], 3)), keras.Input((TOGETHER, 4))
        crops = _warp(self._crop, images, boxes, self._config["context"])
        seen = _look(self.network, crops)
        features = ops.concatenate([seen["pool"], seen["fc"]], axis=-1)[0]
        look = keras.Model([images, boxes], features)
        look.jit_compile = self.jit_compile
        return look

    def _regions(self, proposals, y, first):
        """What is known of the regions of each image, the first of which is number `first`.

        Returns:
            For each image a structured array of its proposals that are boxes, and of its objects:
            `image`; `box`; `own`, the class of the object whose box it is, or -1; `overlap`, the
            highest IoU with an object of each class, or the share that a forgiven one covers;
            `pair`, the class of the object that its box should become, or -1, and the `target` of
            it.
        """
        labels = ops.convert_to_numpy(y["labels"])
        objects = ops.cast(y["boxes"], "float32")
        proposals = inside(ops.cast(proposals, "float32"), self._config["size"])
        boxes = ops.concatenate([proposals, objects], axis=1)
        ignored = ops.convert_to_numpy(forgiven(y))
        # A crowd is larger than those in it: what counts is how much of a region it covers.
        overlap = ops.where(
            ignored[:, None], box_ops.covered(boxes, objects), box_ops.iou(boxes, objects)
        )
        overlap = np.nan_to_num(ops.convert_to_numpy(overlap)) * (labels >= 0)[:, None]
        taught = (labels >= 0) & ~ignored
        taught &= np.nan_to_num(ops.convert_to_numpy(box_ops.area(objects))) > 0
        of_taught = overlap * taught[:, None]
        nearest = of_taught.argmax(axis=-1)
        targets = box_ops.encode(
            ops.take_along_axis(objects, ops.convert_to_tensor(nearest)[..., None], axis=1),
            boxes,
            UNSCALED,
        )
        number, classes = boxes.shape[1], self._config["num_classes"]
        known = [("image", "i4"), ("box", "f4", 4), ("own", "i4"), ("overlap", "f4", classes)]
        found = np.zeros((len(labels), number), [*known, ("pair", "i4"), ("target", "f4", 4)])
        found["image"] = first + np.arange(len(labels))[:, None]
        found["box"] = ops.convert_to_numpy(boxes)
        found["own"] = -1
        found["own"][:, -labels.shape[1] :] = np.where(taught, labels, -1)
        for label in range(classes):
            found["overlap"][..., label] = np.max(overlap * (labels == label)[:, None], axis=-1)
        found["pair"] = np.where(
            (of_taught.max(axis=-1) > PAIR) & (found["own"] < 0),
            np.take_along_axis(labels, nearest, axis=1),
            -1,
        )
        found["target"] = ops.convert_to_numpy(targets)
        real = found["own"] >= 0
        real[:, : -labels.shape[1]] = ops.convert_to_numpy(box_ops.area(proposals)) > 0
        return [one[which] for one, which in zip(found, real, strict=True)]

    def _fit_svms(self, folder):
        kind = self._config["features"]
        weights = self._each_class(folder, kind, f"svm-{kind}", train_svm)
        unseen = np.flatnonzero(weights[:, -1] == NEVER)
        if len(unseen):
            names = ", ".join(self.classes[i] if self.classes else str(i) for i in unseen)
            warnings.warn(
                f"There are no objects, or no others, to learn from for the classes {names}: "
                "they are never found.",
                stacklevel=3,
            )
        self.get_layer("svm").set_weights([weights[:, :-1].T, weights[:, -1]])

    def _fit_regressors(self, folder):
        weights = self._each_class(folder, "pool", "regressor", train_regressor)
        # Class by class, in units of what `decode` multiplies by.
        weights = np.moveaxis(weights, 1, 0) / np.float32([0.1, 0.1, 0.2, 0.2])
        *kernel, bias = weights.reshape(len(weights), -1)
        self.get_layer("regressors").set_weights([np.array(kernel), bias])

    def _each_class(self, folder, kind, name, train):
        """What `train` makes of the features of each class, (C, D + 1, ...), for raw features."""
        split, weights = self.network.output["pool"].shape[-1], []
        columns = slice(split) if kind == "pool" else slice(split, None)
        for label in range(self._config["num_classes"]):
            path = folder / f"{name}-{label:03}.npy"
            if not path.exists():
                examples = Examples(folder, columns)
                trained = train(examples, label)
                trained[:-1] *= examples.scale
                _save(path, trained.astype("float32"))
            weights.append(np.load(path))
        return np.array(weights)


def _network(backbone, feature_map, side, num_classes, hidden, dropout):
    """Squares (N, side, side, 3) to what is seen in them: `pool`, `fc`, and `logits` (N, C + 1)."""
    crops = keras.Input((side, side, 3), name="crops")
    pool = layers.Flatten()(backbone(crops)[feature_map])
    x = pool
    for name in ("fc6", "fc7"):
        x = layers.Dense(hidden, activation="relu", name=name)(x)
        x = layers.Dropout(dropout)(x)
    small = keras.initializers.RandomNormal(stddev=0.01)
    logits = layers.Dense(num_classes + 1, kernel_initializer=small, name="logits")(x)
    logits = layers.Activation("linear", dtype="float32")(logits)
    return keras.Model(crops, {"pool": pool, "fc": x, "logits": logits}, name="network")


def _warp(crop, images, boxes, context):
    """Boxes (B, R, 4) of images with `context` around them, the mean colour outside the images."""
    side = crop.size[0]
    shown = box_ops.enlarge(boxes, side / (side - 2 * context * side / CROP))
    mean = np.float32(MEAN_COLOR)
    # The layer sees 0 outside. Not `+ mean`: of three regions Keras would take it for their bias.
    return ops.subtract(crop(ops.subtract(ops.cast(images, "float32"), mean), shown), -mean)


def _look(network, crops, training=False):
    """What the network sees in crops (B, R, side, side, 3), each (B, R, ...)."""
    count, *shape = crops.shape[1:]
    seen = network(ops.reshape(crops, (-1, *shape)), training=training)
    return {key: ops.reshape(x, (-1, count, x.shape[-1])) for key, x in seen.items()}


# What follows is the work on the host, batch by batch and class by class.


class Examples:
    """What `RCNN` has written of all regions, batch by batch: an iterable that can be read again.

    It gives (regions, features (n, D)), where the features of the first batch have a mean norm of
    20. `scale` is what they were multiplied by.

    Args:
        folder: where the files are.
        columns: a slice of the features.
    """

    def __init__(self, folder, columns):
        self._folder, self._columns, self.scale = folder, columns, 1.0
        norms = (np.linalg.norm(x, axis=1).mean() for _, x in self if len(x))
        self.scale = MEAN_NORM / (next(norms, 0) or MEAN_NORM)

    def __iter__(self):
        for path in sorted(self._folder.glob("features-*.npy")):
            regions = np.load(path.with_name(path.name.replace("features", "regions")))
            # A memory map: only these columns are read.
            features = np.load(path, mmap_mode="r")[:, self._columns]
            yield regions, self.scale * features.astype("float32")


def train_svm(examples, label):
    """The linear SVM of a class: its objects against all that hardly overlaps one.

    The negatives of the first batch are learnt from; of the others those that are hard for the SVM
    so far, which learns anew after every 2,000 of them and then drops those that have become easy.

    Args:
        examples: as `Examples`.
        label: of the class.

    Returns:
        (D + 1,), the bias last; where there is nothing to learn from, it never finds anything.

    Source: R-CNN (Girshick et al. 2014), section 2.3 and appendix B; rcnn_train.m.
    """
    positives = []
    for regions, x in examples:
        positives.append(x[regions["own"] == label])
        if sum(map(len, positives)) >= MOST:
            break
    positives = np.concatenate(positives)[:MOST]
    if not len(positives):
        return np.append(np.zeros(positives.shape[1]), NEVER)
    weights, negatives, fresh = None, positives[:0], [positives[:0]]

    def learn():
        x = np.concatenate([negatives, *fresh])
        if not len(x):
            return weights, x
        weights_now = _svm(positives, x)
        scores = x @ weights_now[:-1] + weights_now[-1]
        stay = np.argsort(-scores)[: min(MOST, np.sum(scores >= EASY))]
        return weights_now, x[stay]

    for regions, x in examples:
        x = x[regions["overlap"][:, label] < NEGATIVE]
        if weights is not None:
            x = x[x @ weights[:-1] + weights[-1] > HARD]
        fresh.append(x)
        if weights is None or sum(map(len, fresh)) >= ROUND:
            weights, negatives = learn()
            fresh = [positives[:0]]
    if weights is None or any(map(len, fresh)):
        weights, _ = learn()
    if weights is None:
        weights = np.append(np.zeros(positives.shape[1]), NEVER)
    return weights


def _svm(positives, negatives):
    # It takes a second to import, which only training needs.
    from sklearn.svm import LinearSVC

    svm = LinearSVC(
        loss="hinge",
        dual=True,
        C=1e-3,
        intercept_scaling=10,
        class_weight={1: 2},
        tol=0.1,  # liblinear's own; with scikit-learn's it does not always end
        random_state=0,
    )
    is_object = np.repeat([1, 0], [len(positives), len(negatives)])
    svm.fit(np.concatenate([positives, negatives]), is_object)
    return np.append(svm.coef_, svm.intercept_)


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


def _features(look, image, boxes):
    """(n, D) float16 of the boxes (n, 4) of an image."""
    padded = np.zeros((-(-len(boxes) // TOGETHER) * TOGETHER, 4), "float32")
    padded[: len(boxes)] = boxes
    image, found = np.asarray(image)[None], [np.zeros((0, look.output.shape[-1]), "float16")]
    for start in range(0, len(padded), TOGETHER):
        seen = look.predict_on_batch([image, padded[None, start : start + TOGETHER]])
        found.append(np.clip(seen, -65504, 65504).astype("float16"))
    return np.concatenate(found)[: len(boxes)]


def _epochs(folder):
    """The files of the weights after so many epochs, in their order."""
    return sorted(folder.glob("[0-9]*.weights.h5"))


def _save(path, array):
    file = io.BytesIO()
    np.save(file, array)
    write_atomically(path, file.getvalue())


def _digest(arrays):
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.ascontiguousarray(ops.convert_to_numpy(array)).tobytes())
    return content.hexdigest()[:16]


@contextlib.contextmanager
def _on_disk(folder):
    """Says in one sentence that the disk is full."""
    try:
        yield
    except OSError as error:
        if "No space left" not in str(error):
            raise
        raise OSError(
            f"{folder}: the disk is full; what was finished is kept there: make room, and start "
            "again in the same way."
        ) from error
