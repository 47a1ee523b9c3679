"""Pose: how many limbs and joints are right, and how far off the points are.

The metrics run inside the graph. `y_true` are joints (B, K, 3): x, y in pixels, and 0 where the
joint is not labelled; such a joint does not count. Labelled joints that are occluded do, as in
COCO's evaluation. `y_pred` are joints (B, K, 2 or 3) in the same pixels.
"""

import keras
from keras import ops


class _PartMean(keras.metrics.Metric):
    """The mean over parts of the body of the mean over images in which the part is labelled.

    Subclasses give `num_parts` and `score(y_true, y_pred)`: values and what counts, both
    (B, parts) float32.
    """

    def __init__(self, num_parts, name, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_weight(shape=(num_parts,), initializer="zeros", name="total")
        self.count = self.add_weight(shape=(num_parts,), initializer="zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            raise ValueError(f"{type(self).__name__} takes no sample weights.")
        values, counted = self.score(y_true, y_pred)
        self.total.assign_add(ops.cast(ops.sum(values * counted, axis=0), self.dtype))
        self.count.assign_add(ops.cast(ops.sum(counted, axis=0), self.dtype))

    def per_part(self):
        """(parts,) in 0..1; 0 for a part that no image had."""
        return self.total / ops.maximum(self.count, 1)

    def result(self):
        seen = ops.cast(self.count > 0, self.dtype)
        return ops.sum(self.per_part()) / ops.maximum(ops.sum(seen), 1)


@keras.saving.register_keras_serializable(package="cvlib")
class PCP(_PartMean):
    """Percentage of correct parts, in 0..1: the mean over limbs; `per_part()` is each limb's.

    A limb is right if both its ends lie within `threshold` of the true limb's length of the true
    ends (the strict reading; the loose one averages both distances). Limbs of which an end is not
    labelled do not count.

    Args:
        limbs: pairs of joint indices, such as `Dataset.limbs`.
        threshold: fraction of the limb's length.

    Source: Ferrari et al. 2008, as DeepPose (Toshev & Szegedy 2014), section 4.1, states it.
    """

    def __init__(self, limbs, threshold=0.5, name="pcp", dtype=None):
        super().__init__(len(limbs), name, dtype)
        self.limbs = [list(limb) for limb in limbs]
        self.threshold = threshold

    def score(self, y_true, y_pred):
        """Which limbs are right, and which are labelled: twice (B, limbs) float32."""
        a, b = (ops.array([limb[end] for limb in self.limbs], "int32") for end in (0, 1))
        labelled, distances = _labelled(y_true), _distances(y_true, y_pred)
        worst = ops.maximum(ops.take(distances, a, axis=1), ops.take(distances, b, axis=1))
        counted = ops.take(labelled, a, axis=1) * ops.take(labelled, b, axis=1)
        return _within(worst, self.threshold * _between(y_true, a, b)), counted

    def get_config(self):
        return {**super().get_config(), "limbs": self.limbs, "threshold": self.threshold}


@keras.saving.register_keras_serializable(package="cvlib")
class PCK(_PartMean):
    """Percentage of correct keypoints, in 0..1: the mean over joints; `per_part()` is each joint's.

    A joint is right if it lies within `threshold` of the torso's diameter of the true one. Images
    of which an end of the torso is not labelled do not count.

    Args:
        num_joints: K.
        torso: two joint indices whose distance is the torso's diameter: a shoulder and the hip of
            the other side.
        threshold: fraction of that distance.

    Source: Sapp & Taskar 2013 (MODEC), section 5; Yang & Ramanan 2013 for the name.
    """

    def __init__(self, num_joints, torso, threshold=0.2, name=None, dtype=None):
        super().__init__(num_joints, name or f"pck@{threshold}", dtype)
        self.num_joints = num_joints
        self.torso = list(torso)
        self.threshold = threshold

    def score(self, y_true, y_pred):
        """Which joints are right, and which are labelled: twice (B, K) float32."""
        a, b = (ops.array([end], "int32") for end in self.torso)
        labelled = _labelled(y_true)
        counted = labelled * ops.take(labelled, a, axis=1) * ops.take(labelled, b, axis=1)
        diameter = _between(y_true, a, b)
        return _within(_distances(y_true, y_pred), self.threshold * diameter), counted

    def get_config(self):
        arguments = ("num_joints", "torso", "threshold")
        return {**super().get_config(), **{name: getattr(self, name) for name in arguments}}


@keras.saving.register_keras_serializable(package="cvlib")
class NME(keras.metrics.Mean):
    """Normalised mean error: of an image's labelled joints, in distances of two of them.

    The mean over images; those in which one of the two is not labelled do not count.

    Args:
        reference: indices of the two joints: of 68 points on a face the outer corners of the eyes.

    Source: the 300-W challenge (Sagonas et al. 2013), section 3.
    """

    def __init__(self, reference=(36, 45), name="nme", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.reference = list(reference)

    def score(self, y_true, y_pred):
        """Each image's error, and whether it counts: twice (B,) float32."""
        a, b = (ops.array([end], "int32") for end in self.reference)
        labelled, distance = _labelled(y_true), _between(y_true, a, b)[:, 0]
        joints = ops.maximum(ops.sum(labelled, axis=1), 1)
        error = ops.sum(labelled * _distances(y_true, y_pred), axis=1) / joints
        counted = (ops.take(labelled, a, axis=1) * ops.take(labelled, b, axis=1))[:, 0]
        counted = counted * ops.cast(distance > 0, "float32")
        return error / ops.where(distance > 0, distance, 1), counted

    def update_state(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            raise ValueError("NME takes no sample weights.")
        super().update_state(*self.score(y_true, y_pred))

    def get_config(self):
        return {**super().get_config(), "reference": self.reference}


def _labelled(y_true):
    """(B, K) float32: 1 where the joint is labelled."""
    return ops.cast(ops.convert_to_tensor(y_true)[..., 2] > 0, "float32")


def _distances(y_true, y_pred):
    """(B, K) distances of predicted from true joints."""
    y_true, y_pred = (ops.cast(ops.convert_to_tensor(y), "float32") for y in (y_true, y_pred))
    return _length(y_true[..., :2] - y_pred[..., :2])


def _between(joints, a, b):
    """(B, n) distances between the joints `a` and the joints `b`, (n,) indices."""
    joints = ops.cast(ops.convert_to_tensor(joints), "float32")[..., :2]
    return _length(ops.take(joints, a, axis=1) - ops.take(joints, b, axis=1))


def _length(vectors):
    return ops.sqrt(ops.sum(ops.square(vectors), axis=-1))


def _within(distances, limits):
    return ops.cast(distances <= limits, "float32")
