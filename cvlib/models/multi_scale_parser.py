"""Scene parsing: one network at several scales says what is around each pixel."""

import keras
from keras import layers, ops

from cvlib import losses
from cvlib.layers import BilinearUpsampling, ImagePyramid
from cvlib.models.backbone import fix_normalisation, map_stride, trunk_up_to
from cvlib.models.fcn import check_sizes, classes_of
from cvlib.models.system import System
from cvlib.sizes import height_and_width


@keras.saving.register_keras_serializable(package="cvlib")
class MultiScaleParser(System):
    """A classifier of pixels that sees each of them in pictures of several scales.

    The same trunk, with the same weights, looks at the image, at half of it, at a quarter. Its maps
    are enlarged to the first one's size, so that what describes a place is what the trunk says
    about it at each scale, one after the other. Two layers classify that description.

    The borders that it draws are coarse. The paper lets regions agree on one class each: those of
    `cvlib.proposals.segmentation_tree`, with what `describe` and `classify` say about them.

    Args:
        backbone: a model from `cvlib.models.backbone`; it is used, and trained, in place.
        num_classes: number of classes C, the background among them, at most 255.
        size: (height, width) of the images, or None for any: images of several sizes then make a
            batch each. With a size, `predict` resizes others to it and the classes back.
        levels: how many scales there are, each half of the one before.
        feature_map: name of the backbone's map that describes places.
        hidden: units of the classifier's first layer.
        dropout: rate after it.
        frozen_to: name of the backbone's map up to which its layers are never trained.

    The outputs are the detections, `segmentation` (B, H, W) uint8, and, at the stride of the
    feature map, `features` (B, h, w, levels * D) and `scores` (B, h, w, C).

    Raises:
        ValueError: `levels`, `feature_map` or `frozen_to` is none of the above.

    Source: Learning Hierarchical Features for Scene Labeling (Farabet et al. 2013), sections 3.1
    and 3.2. The paper's trunk has a linear classifier while it is trained, and the two layers come
    after; here all is trained at once. The trunk's batch normalisation stays as it is.
    """

    detections = ("segmentation",)
    loss_names = ("segmentation",)

    def __init__(
        self,
        backbone,
        num_classes,
        size=None,
        levels=3,
        feature_map="stride8",
        hidden=128,
        dropout=0.0,
        frozen_to=None,
        **kwargs,
    ):
        size = None if size is None else height_and_width(size)
        trunk = trunk_up_to(backbone, feature_map, frozen_to)
        fix_normalisation(trunk)
        images = keras.Input((*(size or (None, None)), 3), name="images")
        maps = [trunk(x)[feature_map] for x in ImagePyramid(levels)(images)]
        first, *coarser = maps
        enlarged = [
            BilinearUpsampling(2**level, learned=False, dtype="float32")(x, first)
            for level, x in enumerate(coarser, 1)
        ]
        features = layers.Concatenate(dtype="float32")([first, *enlarged])
        head = _head(features.shape[-1], num_classes, hidden, dropout)
        scores = head(features)
        upsampling = BilinearUpsampling(map_stride(feature_map), learned=False, dtype="float32")
        found = {"segmentation": classes_of(upsampling(scores, images))}
        super().__init__(images, {"features": features, "scores": scores, **found}, **kwargs)
        self.backbone, self.head, self.upsampling = trunk, head, upsampling
        self._parts = {
            "trunk": (images, maps),
            "features": (maps, features),
            "classifier": (features, scores),
            "upsampling": ([scores, images], found),
        }
        self._config = {
            "num_classes": num_classes,
            "size": size,
            "levels": levels,
            "feature_map": feature_map,
            "hidden": hidden,
            "dropout": dropout,
            "frozen_to": frozen_to,
        }

    def _freeze(self):
        super()._freeze()
        fix_normalisation(self.backbone)

    def compute_losses(self, y, outputs):
        truth = ops.convert_to_tensor(y["segmentation"])
        check_sizes(truth, outputs["segmentation"])
        logits = self.upsampling(outputs["scores"], truth[..., None])
        return {"segmentation": losses.pixel_cross_entropy(truth, logits)}

    def describe(self, image):
        """What the network says about every pixel of an image, on the host.

        Args:
            image: (H, W, 3) in 0..255, RGB.

        Returns:
            `{"features": (H, W, levels * D), "probabilities": (H, W, C)}`, float32, interpolated
            between the cells; the probabilities are the softmax of the scores.
        """
        images = ops.convert_to_tensor(image[None], "float32")
        found = self(images, training=False)
        enlarge = BilinearUpsampling(self.upsampling.factor)
        pixels = {
            "features": enlarge(found["features"], images),
            "probabilities": ops.softmax(self.upsampling(found["scores"], images)),
        }
        return {key: ops.convert_to_numpy(value)[0] for key, value in pixels.items()}

    def classify(self, features):
        """Class probabilities (N, C) of N places, or of regions: of means of their features (N, F).

        Source: section 4.4 of the paper, where a region has a classifier of its own, which reads a
        grid of its features.
        """
        places = ops.convert_to_tensor(features[None, :, None], "float32")
        probabilities = ops.softmax(self.head(places, training=False))
        return ops.convert_to_numpy(probabilities)[0, :, 0]


def _head(channels, num_classes, hidden, dropout):
    """The two layers that make scores of features."""
    x = features = keras.Input((None, None, channels), name="features")
    x = layers.Conv2D(hidden, 1, activation="relu", name="hidden")(x)
    x = layers.Dropout(dropout)(x)
    return keras.Model(features, layers.Conv2D(num_classes, 1, name="score")(x), name="head")
