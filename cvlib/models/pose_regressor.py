"""Pose as regression (DeepPose): all joints from one look, then a closer look at each of them."""

import keras
import numpy as np
from keras import layers, ops

from cvlib import losses
from cvlib.boxes import enlarge
from cvlib.layers import CropAndResize
from cvlib.models.backbone import freeze
from cvlib.models.system import System, as_images

_LOSSES = {
    "l2": losses.l2,
    # Offsets relative to the crop, where 0.1 is a tenth of its side.
    "smooth_l1": lambda y_true, y_pred: losses.smooth_l1(y_true, y_pred, beta=0.1),
}


@keras.saving.register_keras_serializable(package="cvlib")
class PoseRegressor(System):
    """K joints of one person, by a cascade of regressors.

    Stage 1 sees the person's box, a little enlarged, and regresses all joints relative to it. Each
    later stage cuts a square around every joint where the stage before put it, and regresses how
    far the joint is from the middle of that square. A stage is a trunk and a head of its own. The
    stages are trained in turn:

        pose.compile("adam", train="stage1")
        pose.fit(batches)
        pose.compile("adam", train="stage2")  # stage 1 is frozen
        pose.fit(batches)
        pose.networks[2].set_weights(pose.networks[1].get_weights())
        pose.compile("adam", train="stage3")
        pose.fit(batches)

    A third stage has the task of the second on smaller mistakes, and learns it sooner from the
    weights of the second. The joints of a stage share one network and have an output each.

    Args:
        backbone: a model from `cvlib.models.backbone`; stage 1 uses, and trains, it in place, the
            later stages begin as copies of it as it is given.
        num_joints: K.
        stages: S, the number of stages, at least 1.
        crop_size: side of the square to which stage 1 resizes its crop.
        box_scale: side of that crop as a multiple of the box's.
        joint_crop_size: side of the square to which the later stages resize theirs.
        joint_scale: side of those crops as a multiple of the box's diagonal. The paper measures
            it in torsos, which faces have not.
        joint_map: name of the backbone's map from which the later stages regress.
        hidden: units of the fully connected layer of each stage.
        dropout: rate before and after this layer.
        frozen_to: name of the backbone's map up to which its layers are never trained, in any
            stage.

    Raises:
        ValueError: there is no stage, or the backbone has no such map.

    Source: DeepPose (Toshev & Szegedy 2014), section 3.
    """

    detections = ("keypoints", "keypoints_by_stage")
    loss_names = ("joints",)

    def __init__(
        self,
        backbone,
        num_joints,
        stages=3,
        crop_size=128,
        box_scale=1.25,
        joint_crop_size=64,
        joint_scale=0.5,
        joint_map="stride16",
        hidden=512,
        dropout=0.5,
        frozen_to=None,
        **kwargs,
    ):
        if stages < 1:
            raise ValueError(f"`stages` is at least 1, not {stages}.")
        if joint_map not in backbone.output:
            maps = ", ".join(backbone.output)
            raise ValueError(f"`joint_map` is one of {maps}, not {joint_map!r}.")
        trunks = [backbone]
        for _ in range(stages - 1):
            trunks.append(keras.models.clone_model(backbone))
            trunks[-1].set_weights(backbone.get_weights())
        for trunk in trunks:
            freeze(trunk, frozen_to)
        networks = [
            _network(trunk, num_joints, side, features, hidden, dropout, f"stage{s}")
            for s, (trunk, side, features) in enumerate(
                zip(
                    trunks,
                    [crop_size] + [joint_crop_size] * (stages - 1),
                    ["stride32"] + [joint_map] * (stages - 1),
                    strict=True,
                ),
                start=1,
            )
        ]

        images = keras.Input((None, None, 3), name="images")
        boxes = keras.Input((4,), name="boxes")
        person = enlarge(boxes, box_scale)[:, None]
        joints = _points(person, _look(networks[0], images, person)[:, 0])
        by_stage = [joints]
        own = np.eye(num_joints, dtype="float32")[..., None]
        for network in networks[1:]:
            around = _squares(joints, boxes, joint_scale)
            # Of all outputs of a crop, the one of the joint that the crop is around.
            offsets = ops.sum(_look(network, images, around) * own, axis=2)
            joints = _points(around, offsets)
            by_stage.append(joints)
        labelled = [_labelled(points) for points in by_stage]
        outputs = {
            "keypoints": labelled[-1],
            "keypoints_by_stage": ops.stack(labelled, axis=1),
        }
        super().__init__({"images": images, "boxes": boxes}, outputs, **kwargs)
        self.backbone, self.networks = backbone, networks
        # A stage sees what the stages before it found; the last one gives it all.
        self._parts = {
            network.name: ([images, boxes, *by_stage[:s]], by_stage[s])
            for s, network in enumerate(networks)
        }
        self._parts[networks[-1].name] = ([images, boxes, *by_stage[:-1]], outputs)
        self._config = {
            "num_joints": num_joints,
            "stages": stages,
            "crop_size": crop_size,
            "box_scale": box_scale,
            "joint_crop_size": joint_crop_size,
            "joint_scale": joint_scale,
            "joint_map": joint_map,
            "hidden": hidden,
            "dropout": dropout,
            "frozen_to": frozen_to,
        }
        self._stage, self._loss_name = 1, "l2"

    def compile(self, optimizer="adam", train="stage1", loss="l2", **kwargs):
        """Chooses the stage that is trained; the others are frozen.

        Args:
            optimizer: as in `keras.Model.compile`, like `**kwargs`.
            train: `"stage1"`, `"stage2"`, ... up to the number of stages.
            loss: `"l2"` or `"smooth_l1"`, on offsets relative to the crop.

        Raises:
            ValueError: `train` or `loss` is none of the above.
        """
        names = [network.name for network in self.networks]
        if train not in names:
            raise ValueError(f"`train` is one of {', '.join(names)}, not {train!r}.")
        if loss not in _LOSSES:
            raise ValueError(f"`loss` is one of {', '.join(_LOSSES)}, not {loss!r}.")
        super().compile(optimizer, **kwargs)
        self._stage, self._loss_name = 1 + names.index(train), loss

    def compute_losses(self, y, outputs):
        """The loss of the stage that `compile` chose, on crops as the stages before it give."""
        boxes, joints = _persons(y)
        sides = boxes[:, None, 2:] - boxes[:, None, :2]
        if self._stage == 1:
            sides = sides * self._config["box_scale"]
        else:
            sides = ops.sqrt(ops.sum(ops.square(sides), axis=-1, keepdims=True))
            sides = sides * self._config["joint_scale"]
        sides = ops.where(sides > 0, sides, 1)
        found = outputs["keypoints_by_stage"][:, self._stage - 1, :, :2]
        errors = _LOSSES[self._loss_name](joints[..., :2] / sides, found / sides)
        return {"joints": losses.mean_where(joints[..., 2] > 0, errors)}

    def evaluate(self, x, y=None, **kwargs):
        """The loss of the stage that `compile` chose, of `x` and `y` as `fit` takes them."""
        if y is not None:
            return super().evaluate({"images": x, "boxes": _persons(y)[0]}, y, **kwargs)
        kwargs = {"steps": _number(x)} | kwargs
        persons = (({"images": images, "boxes": _persons(y)[0]}, y) for images, y in x)
        return super().evaluate(persons, **kwargs)

    def fit(self, x, y=None, jitter=0.1, joints_per_image=4, seed=0, **kwargs):
        """Trains the stage that `compile` chose on crops that it would be given.

        Stage 1 learns from boxes that miss the person's by a little. A later stage learns from
        crops that miss the joint as the stage before does: their displacements are drawn from the
        normal distribution, of each joint and coordinate, of that stage's errors on 512 of the
        images (section 3.2 of the paper; all of its training images there).

        Args:
            x: what `cvlib.data.batches(..., targets="keypoints", max_objects=1)` gives, or other
                batches of that kind, or an array of images. Joints that are not labelled are not
                learnt.
            y: the targets of that array, a dict.
            jitter: standard deviation of the boxes' relative shift and of the logarithm of their
                sides; of the sides alone for crops around joints.
            joints_per_image: how many joints of an image a later stage learns in a step, K at most.
            seed: of these random crops.
            **kwargs: as in `keras.Model.fit`, without `validation_data`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: the images have more than one person, or there is `validation_data`.
        """
        if kwargs.get("validation_data") is not None:
            raise ValueError("A pose regressor takes no `validation_data`: call `evaluate` on it.")
        self._freeze()
        rng = np.random.default_rng(seed)
        if y is not None:
            x = _Arrays(x, y, kwargs.pop("batch_size", None) or 32, rng)
        network = self.networks[self._stage - 1]
        if self._stage == 1:
            count = 1

            def crops(person, joints):
                return _jittered_boxes(person, joints, self._config["box_scale"], jitter, rng)
        else:
            count = min(joints_per_image, self._config["num_joints"])
            errors = self._errors(x)

            def crops(person, joints):
                scale = self._config["joint_scale"]
                return _displaced_crops(person, joints, errors, scale, count, jitter, rng)

        def simulated():
            while True:
                for images, y in x:
                    boxes, targets = crops(*map(np.asarray, _persons(y)))
                    yield {"images": images, "boxes": boxes}, targets

        images = keras.Input((None, None, 3), name="images")
        boxes = keras.Input((count, 4), name="boxes")
        learner = keras.Model(
            {"images": images, "boxes": boxes}, _look(network, images, boxes), name=network.name
        )
        learner.compile(
            self.optimizer,
            lambda y_true, y_pred: losses.mean_where(
                y_true[..., 2] > 0, _LOSSES[self._loss_name](y_true[..., :2], y_pred)
            ),
            jit_compile=self.jit_compile,
            run_eagerly=self.run_eagerly,
        )
        # Keras warns that it cannot shuffle what is shuffled already.
        kwargs = {"steps_per_epoch": _number(x), "shuffle": False} | kwargs
        return learner.fit(simulated(), **kwargs)

    def _errors(self, dataset, images=512):
        """Mean and deviation (2, K, 2) of the errors of the stage before, in boxes' diagonals."""
        before = keras.Model(self.input, self.output["keypoints_by_stage"][:, self._stage - 2])
        errors, known = [], []
        for x, y in dataset:
            boxes, joints = _persons(y)
            found = before.predict({"images": x, "boxes": boxes}, verbose=0)
            errors.append((found - joints)[..., :2] / _diagonals(boxes))
            known.append(joints[..., 2:] > 0)
            if sum(map(len, known)) >= images:
                break
        errors, known = np.concatenate(errors), np.concatenate(known)
        # A joint that is labelled nowhere has no errors, and none are simulated for it.
        number = np.maximum(known.sum(axis=0), 1)
        mean = np.sum(errors, axis=0, where=known) / number
        variance = np.sum((errors - mean) ** 2, axis=0, where=known) / number
        return np.stack([mean, np.sqrt(variance)])

    def predict(self, images, boxes=None, batch_size=32, verbose=0):
        """The joints of one person in each image.

        Args:
            images: as `System.predict`.
            boxes: (B, 4), `xyxy` in pixels, the person's box as a detector gives it; the whole
                image by default, as in the paper on LSP. Of an image with several persons give a
                copy for each.

        Returns:
            A dict of NumPy arrays: `keypoints` (B, K, 3), x and y in pixels of the given images
            and 2, as samples have for visible joints; `keypoints_by_stage` (B, S, K, 3), the same
            after each stage.
        """
        images = as_images(images)
        if boxes is None:
            sizes = [image.shape[1::-1] for image in images]
            boxes = np.float32([(0, 0, width, height) for width, height in sizes])
        return super().predict(images, batch_size=batch_size, verbose=verbose, boxes=boxes)


def _network(trunk, num_joints, side, features, hidden, dropout, name):
    """Crops (N, side, side, 3) to offsets (N, K, 2) from their middle, in units of their sides."""
    crops = keras.Input((side, side, 3))
    x = layers.Flatten()(keras.Model(trunk.input, trunk.output[features])(crops))
    x = layers.Dropout(dropout)(x)
    x = layers.Dense(hidden, activation="relu")(x)
    x = layers.Dropout(dropout)(x)
    # The first answer is the middle: larger first errors would drown the gradient.
    small = keras.initializers.RandomNormal(stddev=0.001)
    x = layers.Dense(2 * num_joints, kernel_initializer=small)(x)
    return keras.Model(crops, layers.Reshape((num_joints, 2), dtype="float32")(x), name=name)


def _look(network, images, boxes):
    """Offsets (B, R, K, 2) of all joints relative to the crops of boxes (B, R, 4)."""
    side, (_, joints, _) = network.input_shape[1], network.output_shape
    crops = CropAndResize((side, side))(images, boxes)
    offsets = network(ops.reshape(crops, (-1, side, side, 3)))
    return ops.reshape(offsets, (-1, boxes.shape[1], joints, 2))


def _points(boxes, offsets):
    """Pixels (..., 2) of offsets from the boxes' (..., 4) middle, in units of their sides."""
    start, end = boxes[..., :2], boxes[..., 2:]
    return (start + end) / 2 + offsets * (end - start)


def _squares(middles, boxes, scale):
    """Squares (B, K, 4) around points (B, K, 2), of `scale` diagonals of boxes (B, 4)."""
    diagonal = ops.sqrt(ops.sum(ops.square(boxes[:, 2:] - boxes[:, :2]), axis=-1))
    half = (diagonal * scale / 2)[:, None, None]
    # In this order: of `middles + half` Keras on TensorFlow makes a bias of the coordinates where
    # there are as many images as coordinates.
    return ops.concatenate([middles - half, half + middles], axis=-1)


def _labelled(points):
    return ops.concatenate([points, 2 * ops.ones_like(points[..., :1])], axis=-1)


# What follows prepares batches for training, in NumPy, as all augmentation.


def _persons(y):
    """Boxes (B, 4) and joints (B, K, 3) of the one person of each image."""
    if y["boxes"].shape[1] != 1:
        raise ValueError("PoseRegressor learns from one person an image: give max_objects=1.")
    return y["boxes"][:, 0], y["keypoints"][:, 0]


def _number(batches):
    """How many batches an epoch has."""
    steps = getattr(batches, "steps_per_epoch", None)
    return len(batches) if steps is None else steps


class _Arrays:
    """Batches of arrays, in a new order each epoch."""

    def __init__(self, images, y, batch_size, rng):
        self._images, self._y, self._size, self._rng = images, y, batch_size, rng

    def __len__(self):
        return -(-len(self._images) // self._size)

    def __iter__(self):
        order = self._rng.permutation(len(self._images))
        for start in range(0, len(order), self._size):
            chosen = order[start : start + self._size]
            yield self._images[chosen], {key: values[chosen] for key, values in self._y.items()}


def _diagonals(boxes):
    length = np.hypot(*(boxes[:, 2:] - boxes[:, :2]).T)[:, None, None]
    return np.where(length > 0, length, 1)  # Of an image without a person there is none.


def _targets(crops, joints, known):
    """(B, R, K, 3): offsets of joints (B, K, 2) relative to crops (B, R, 4), and which count."""
    start, end = crops[:, :, None, :2], crops[:, :, None, 2:]
    sides = np.where(end > start, end - start, 1)
    offsets = (joints[:, None, :, :2] - (start + end) / 2) / sides
    offsets = np.where(known[..., None], offsets, 0)
    return np.concatenate([offsets, known[..., None]], axis=-1).astype("float32")


def _jittered_boxes(boxes, joints, scale, jitter, rng):
    """Crops (B, 1, 4) around boxes that miss these a little, and the targets of all joints."""
    shift, stretch = jitter * rng.standard_normal((2, len(boxes), 1, 2))
    start, end = boxes[:, None, :2], boxes[:, None, 2:]
    middle = (start + end) / 2 + shift * (end - start)
    half = scale * np.exp(stretch) * (end - start) / 2
    crops = np.concatenate([middle - half, middle + half], axis=-1).astype("float32")
    return crops, _targets(crops, joints, joints[:, None, :, 2] > 0)


def _displaced_crops(boxes, joints, errors, scale, count, jitter, rng):
    """Crops (B, R, 4) that miss `count` joints by simulated errors, and these joints' targets."""
    batch, num_joints = joints.shape[:2]
    # Labelled joints in random order, then the others.
    chosen = np.argsort(rng.random((batch, num_joints)) + (joints[..., 2] == 0), axis=1)[:, :count]
    mean, deviation = errors[:, chosen]
    diagonal = _diagonals(boxes)
    middle = np.take_along_axis(joints, chosen[..., None], axis=1)[..., :2]
    middle = middle + diagonal * (mean + deviation * rng.standard_normal(mean.shape))
    half = diagonal * scale / 2 * np.exp(jitter * rng.standard_normal((batch, count, 1)))
    crops = np.concatenate([middle - half, middle + half], axis=-1).astype("float32")
    known = (np.arange(num_joints) == chosen[..., None]) & (joints[:, None, :, 2] > 0)
    return crops, _targets(crops, joints, known)
