"""What detectors share that learn in stages, from features of cut-out regions on disk."""

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
from cvlib.models.region_detector import ProposalDetector
from cvlib.models.system import one_pass, whole_file
from cvlib.records import keep_settings, write_atomically

VERSION = 1  # Raised whenever the files in a folder change: those made before are then refused.

# Of R-CNN's code (rcnn_im_crop.m, rcnn_train.m), which SDS's keeps to.
CROP = 227  # side of the crops for which the pixels of context are given
MEAN_NORM = 20  # of the features that SVMs and regressors see
NEGATIVE = 0.3  # IoU with an object of the class under which a proposal is no such object
HARD, EASY = -1.0001, -1.2  # scores from which a negative is learnt from, and under which no more
ROUND = 2000  # hard negatives after which a SVM is trained again

MOST = 10_000  # positives, and negatives, of a class in memory
NEVER = -20.0  # score of a class that has never been seen
TOGETHER = 64  # regions of an image that are looked at in one go, for their features


class StagedDetector(ProposalDetector):
    """A detector whose network looks at each region by itself, and whose heads learn afterwards.

    First the network is fine-tuned; then it looks at all regions, and what it sees is written to
    disk; then heads, among them a SVM for each class, learn from these files.

    A subclass sets `network` and `_crop`, and implements `_regions`, `_look`, `_columns` and
    `_heads`; the names of the arguments that its features depend on are in `_seen_by`.

    After `fit` or `fit_heads` with a folder, `cost` says what they took: `seconds`, a dict of what
    each stage took in this call, the number of `regions`, and the `bytes` of their features.
    """

    background_iou = (0.0, 0.5)
    cost, _checkpoint = {}, None

    def variant(self, **changes):
        """The same network, with the same weights, under other heads, which `fit_heads` trains.

        Args:
            **changes: of the arguments that its features do not depend on.
        """
        options = {"network": self.network, "classes": self.classes}
        return type(self)(self.backbone, **options, **{**self._config, **changes})

    def call(self, inputs, training=None, mask=None):
        # What it detects is not what it learns from: in training all proposals would move the
        # statistics of the network's layers, and take their time.
        return super().call(inputs, training=False, mask=mask)

    def fit(self, x, y=None, folder=None, **kwargs):
        """Trains, with a `folder` in all its stages, and without one in the first alone.

        What a stage has finished is kept in the folder: each epoch, each batch of features, each
        class. A run that was killed goes on there if it is started again in the same way.

        The statistics of batch normalisation, which all later stages see, follow slowly: those of
        Keras's networks have a momentum of 0.99, and a third of them is still what it was after 100
        steps. In a short training set the `momentum` of the backbone's layers to 0.9.

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
        how = {
            "num_regions": self._num_regions,
            "background_iou": self.background_iou,
            "epochs": epochs,
        }
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

        self._freeze()
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
        """The stages after the fine-tuning: features, and the heads that learn from them.

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
            heads = self._heads()
            for learn in heads.values():
                learn(folder)
                clock.append(time.monotonic())
        stages = ("features", *heads)
        self.cost = {**counts, "seconds": dict(zip(stages, np.diff(clock).tolist(), strict=True))}

    def _settings(self, x, y, **more):
        """What the network is, what it is given, and what else there is."""
        given = _digest(tree.flatten(next(one_pass(x, y))))
        known = {"version": VERSION, **{key: self._config[key] for key in self._seen_by}}
        return {**known, "first batch": given, **more}

    def _write_features(self, x, y, folder):
        """Features of all regions in a pass over `x`: files for each batch.

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
                    found, shown, more = self._regions(given, targets, first)
                    features = [
                        _features(look, image, *each)
                        for image, each in zip(given["images"], shown, strict=True)
                    ]
                    save_array(folder / f"regions-{i:05}.npy", np.concatenate(found))
                    for name, array in more.items():
                        save_array(folder / f"{name}-{i:05}.npy", array)
                    save_array(path, np.concatenate(features))
                first += len(given["images"])
                features = np.load(path, mmap_mode="r")
                counts["regions"] += len(features)
                counts["bytes"] += features.nbytes
            write_atomically(whole, json.dumps(counts))
        return json.loads(whole.read_text("utf-8"))

    def _regions(self, x, y, first):
        """What is known of the regions of a batch, whose first image is number `first`.

        Returns:
            `found`, for each image a structured array of its regions; `shown`, for each image the
            arrays that `_look` takes of them; and a dict of what else is kept, by the name of its
            file.
        """
        raise NotImplementedError

    def _describe(self, first, labels, taught, proposals, overlap, threshold, more):
        """What is known of proposals, and then of the objects themselves, in every system.

        Args:
            first: number of the batch's first image.
            labels: (B, N), of the objects, -1 where there is none.
            taught: (B, N), which of them are learnt from.
            proposals: (B, R, 4); those without area are none.
            overlap: (B, R + N, N), with the objects.
            threshold: overlap above which a proposal is paired with an object.
            more: fields of the array beside these, as NumPy takes them.

        Returns:
            Structured array (B, R + N) of `image`; `own`, the class of the object that it is, or
            -1; `overlap`, the highest with an object of each class; `pair`, the class of the object
            that a proposal is paired with, or -1; and `more`, of zeros. Then which of them there
            are; the index (B, R + N) of the object that each overlaps most, and by how much.
        """
        classes, room = self._config["num_classes"], labels.shape[1]
        known = [("image", "i4"), ("own", "i4"), ("overlap", "f4", classes), ("pair", "i4"), *more]
        found = np.zeros(overlap.shape[:2], known)
        found["image"] = first + np.arange(len(labels))[:, None]
        found["own"] = -1
        found["own"][:, -room:] = np.where(taught, labels, -1)
        for label in range(classes):
            found["overlap"][..., label] = np.max(overlap * (labels == label)[:, None], axis=-1)
        of_taught = overlap * taught[:, None]
        nearest, share = of_taught.argmax(axis=-1), of_taught.max(axis=-1)
        pairs = (share > threshold) & (found["own"] < 0)
        found["pair"] = np.where(pairs, np.take_along_axis(labels, nearest, axis=1), -1)
        real = found["own"] >= 0
        real[:, :-room] = ops.convert_to_numpy(box_ops.area(proposals)) > 0
        return found, real, nearest, share

    def _look(self):
        """A model from one image, and what there is of `TOGETHER` regions, to features (64, D)."""
        raise NotImplementedError

    def _columns(self, kind):
        """Which of the features are those of a kind."""
        raise NotImplementedError

    def _heads(self):
        """What learns from the features: functions of the folder, by name."""
        raise NotImplementedError

    def _fit_svms(self, folder, train):
        kind = self._config["features"]
        weights = self._each_class(folder, kind, f"svm-{kind}", train)
        unseen = np.flatnonzero(weights[:, -1] == NEVER)
        if len(unseen):
            names = ", ".join(self.classes[i] if self.classes else str(i) for i in unseen)
            warnings.warn(
                f"There are no objects, or no others, to learn from for the classes {names}: "
                "they are never found.",
                stacklevel=3,
            )
        self.get_layer("svm").set_weights([weights[:, :-1].T, weights[:, -1]])

    def _each_class(self, folder, kind, name, train):
        """What `train` makes of the features of each class, (C, D + 1, ...), for raw features."""
        columns, weights = self._columns(kind), []
        for label in range(self._config["num_classes"]):
            path = folder / f"{name}-{label:03}.npy"
            if not path.exists():
                examples = Examples(folder, columns)
                trained = train(examples, label)
                trained[:-1] *= examples.scale
                save_array(path, trained.astype("float32"))
            weights.append(np.load(path))
        return np.array(weights)


def region_network(backbone, feature_map, side, num_classes, hidden, dropout, name="network"):
    """Squares (N, side, side, 3) to what is seen in them: `pool`, `fc`, and `logits` (N, C + 1)."""
    crops = keras.Input((side, side, 3), name="crops")
    pool = layers.Flatten()(backbone(crops)[feature_map])
    x = pool
    for layer in ("fc6", "fc7"):
        x = layers.Dense(hidden, activation="relu", name=layer)(x)
        x = layers.Dropout(dropout)(x)
    small = keras.initializers.RandomNormal(stddev=0.01)
    logits = layers.Dense(num_classes + 1, kernel_initializer=small, name="logits")(x)
    logits = layers.Activation("linear", dtype="float32")(logits)
    return keras.Model(crops, {"pool": pool, "fc": x, "logits": logits}, name=name)


def look_at(network, crops, training=False):
    """What the network sees in its inputs, crops (B, R, side, side, 3), each (B, R, ...)."""
    count = tree.flatten(crops)[0].shape[1]
    flat = tree.map_structure(lambda x: ops.reshape(x, (-1, *x.shape[2:])), crops)
    seen = network(flat, training=training)
    return {key: ops.reshape(x, (-1, count, x.shape[-1])) for key, x in seen.items()}


def with_context(boxes, side, context):
    """What squares of a side show of an image, with `context`, of boxes."""
    return box_ops.enlarge(boxes, side / (side - 2 * context * side / CROP))


def warped(crop, images, boxes, context):
    """Boxes (B, R, 4) of images with `context` around them, the mean colour outside the images."""
    shown = with_context(boxes, crop.size[0], context)
    mean = np.float32(MEAN_COLOR)
    # The layer sees 0 outside. Not `+ mean`: of three regions Keras would take it for their bias.
    return ops.subtract(crop(ops.subtract(ops.cast(images, "float32"), mean), shown), -mean)


# What follows is the work on the host, batch by batch and class by class.


class Examples:
    """What `StagedDetector` has written of all regions: an iterable that can be read again.

    Batch by batch it gives (regions, features (n, D)), where the features of the first batch have a
    mean norm of 20. `scale` is what they were multiplied by.

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


def objects_of(examples, label):
    """The features (n, D) of the objects of a class themselves, at most `MOST`."""
    found = []
    for regions, x in examples:
        found.append(x[regions["own"] == label])
        if sum(map(len, found)) >= MOST:
            break
    return np.concatenate(found)[:MOST]


def train_svm(examples, label, negative=NEGATIVE, positives=None):
    """The linear SVM of a class: its objects against all that hardly overlaps one.

    The negatives of the first batch are learnt from; of the others those that are hard for the SVM
    so far, which learns anew after every 2,000 of them and then drops those that have become easy.

    Args:
        examples: as `Examples`.
        label: of the class.
        negative: overlap with an object of the class under which a region is no such object.
        positives: (n, D), the features of what else than the objects themselves is learnt.

    Returns:
        (D + 1,), the bias last; where there is nothing to learn from, it never finds anything.

    Source: R-CNN (Girshick et al. 2014), section 2.3 and appendix B; rcnn_train.m.
    """
    if positives is None:
        positives = objects_of(examples, label)
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
        x = x[regions["overlap"][:, label] < negative]
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


def _features(look, image, *regions):
    """(n, D) float16 of an image's regions, of which each of `regions` (n, ...) says something."""
    count = len(regions[0])
    image, found = np.asarray(image)[None], [np.zeros((0, look.output.shape[-1]), "float16")]
    for start in range(0, count, TOGETHER):
        given = [part[None, start : start + TOGETHER] for part in regions]
        room = TOGETHER - given[0].shape[1]
        given = [np.pad(x, [(0, 0), (0, room)] + [(0, 0)] * (x.ndim - 2)) for x in given]
        seen = look.predict_on_batch([image, *given])
        found.append(np.clip(seen, -65504, 65504).astype("float16"))
    return np.concatenate(found)[:count]


def _epochs(folder):
    """The files of the weights after so many epochs, in their order."""
    return sorted(folder.glob("[0-9]*.weights.h5"))


def save_array(path, array):
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
