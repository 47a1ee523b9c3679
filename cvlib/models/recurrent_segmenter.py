"""Segmentation that corrects itself: a network that sees what it said before."""

import keras
from keras import layers, ops

from cvlib import losses
from cvlib.layers import BilinearUpsampling, ImagePyramid
from cvlib.models.backbone import fix_normalisation, map_stride, trunk_up_to
from cvlib.models.fcn import check_sizes, classes_of
from cvlib.models.system import System
from cvlib.sizes import height_and_width, positive_integer


@keras.saving.register_keras_serializable(package="cvlib")
class RecurrentSegmenter(System):
    """One network, applied again and again to the image and to its own last answer.

    First the network sees the image, and zeros for an answer. Then it sees half of the image, and
    the scores that it has just given; then a quarter, and so on. Each time it sees further around a
    place than before, and knows what it thought of that place and those beside it. It has the same
    weights every time, and learns from every answer.

        segmenter = RecurrentSegmenter(backbone("tiny"), num_classes, iterations=3)
        segmenter.compile("adam")
        segmenter.fit(batches)
        first = segmenter.repeat(1).predict(images)

    Args:
        backbone: a model from `cvlib.models.backbone`; it is used, and trained, in place.
        num_classes: number of classes C, the background among them, at most 255.
        size: (height, width) of the images, or None for any: images of several sizes then make a
            batch each. With a size, `predict` resizes others to it and the classes back.
        iterations: how many times the network is applied.
        feature_map: name of the backbone's map that the answer stands beside.
        kernel: side of the network's first convolution over both, in cells.
        hidden: its channels.
        frozen_to: name of the backbone's map up to which its layers are never trained.
        network: that of another `RecurrentSegmenter`, to share its weights; a new one by default.

    The outputs are the detections, `segmentation` (B, H, W) uint8, of the last iteration, and
    `scores`, a list of those of each, (B, h, w, C) at the stride of the feature map.

    Raises:
        ValueError: `iterations`, `feature_map` or `frozen_to` is none of the above.

    Source: Recurrent Convolutional Neural Networks for Scene Labeling (Pinheiro & Collobert 2014),
    sections 3.2 and 3.3. The paper's network has no trunk and takes image and answer in its first
    layer, and it is shifted over the smaller images so that no place is without an answer; here
    their maps are enlarged. The trunk's batch normalisation stays as it is.
    """

    detections = ("segmentation",)
    loss_names = ("segmentation",)

    def __init__(
        self,
        backbone,
        num_classes,
        size=None,
        iterations=3,
        feature_map="stride4",
        kernel=5,
        hidden=64,
        frozen_to=None,
        network=None,
        **kwargs,
    ):
        size = None if size is None else height_and_width(size)
        iterations = positive_integer("iterations", iterations)
        trunk = trunk_up_to(backbone, feature_map, frozen_to)
        fix_normalisation(trunk)
        if network is None:
            channels = trunk.output[feature_map].shape[-1]
            network = _network(channels, num_classes, kernel, hidden)
        upsampling = BilinearUpsampling(map_stride(feature_map), learned=False, dtype="float32")

        images = keras.Input((*(size or (None, None)), 3), name="images")
        maps = [trunk(x)[feature_map] for x in ImagePyramid(iterations)(images)]
        scores = []
        for i, features in enumerate(maps):
            if i > 0:
                enlarge = BilinearUpsampling(2**i, learned=False, dtype="float32")
                features = enlarge(features, maps[0])
            answer = scores[-1] if scores else _zeros(features, num_classes)
            scores.append(network([features, answer]))
        found = {"segmentation": classes_of(upsampling(scores[-1], images))}
        super().__init__(images, {"scores": scores, **found}, **kwargs)
        self.backbone, self.network, self.upsampling = trunk, network, upsampling
        self._parts = {
            "trunk": (images, maps),
            "iterations": (maps, scores),
            "upsampling": ([scores[-1], images], found),
        }
        self._config = {
            "num_classes": num_classes,
            "size": size,
            "iterations": iterations,
            "feature_map": feature_map,
            "kernel": kernel,
            "hidden": hidden,
            "frozen_to": frozen_to,
        }

    def repeat(self, iterations):
        """The same network, with the same weights, applied another number of times."""
        options = {"network": self.network, "classes": self.classes}
        return type(self)(self.backbone, **options, **{**self._config, "iterations": iterations})

    def _freeze(self):
        super()._freeze()
        fix_normalisation(self.backbone)

    def compute_losses(self, y, outputs):
        truth = ops.convert_to_tensor(y["segmentation"])
        check_sizes(truth, outputs["segmentation"])
        each = [
            losses.pixel_cross_entropy(truth, self.upsampling(scores, truth[..., None]))
            for scores in outputs["scores"]
        ]
        return {"segmentation": sum(each)}


def _network(channels, num_classes, kernel, hidden):
    """Features (B, h, w, channels) and the last scores (B, h, w, C) to the next scores."""
    features = keras.Input((None, None, channels), name="features")
    answer = keras.Input((None, None, num_classes), name="answer")
    x = layers.Concatenate()([features, answer])
    x = layers.Conv2D(hidden, kernel, padding="same", activation="relu", name="hidden")(x)
    scores = layers.Conv2D(num_classes, 1, dtype="float32", name="score")(x)
    return keras.Model([features, answer], scores, name="network")


def _zeros(features, channels):
    """No answer yet: zeros (B, h, w, channels) for features (B, h, w, D)."""
    return ops.repeat(ops.zeros_like(features[..., :1]), channels, axis=-1)
