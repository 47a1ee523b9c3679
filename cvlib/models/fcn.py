"""Semantic segmentation by convolution alone: scores of all pixels at once, sharpened by skips."""

import keras
from keras import layers, ops

from cvlib import losses
from cvlib.layers import BilinearUpsampling, SkipFusion
from cvlib.models.backbone import freeze
from cvlib.models.system import System
from cvlib.sizes import height_and_width

CELL = 32  # of the coarsest map, in pixels


@keras.saving.register_keras_serializable(package="cvlib")
class FCN(System):
    """A fully convolutional network: FCN-32s, 16s or 8s.

    A classifier for windows, its fully connected layers as convolutions, scores every cell of the
    backbone's map at stride 32. FCN-32s upsamples these scores to pixels. FCN-16s first upsamples
    them twice and adds the scores of the map at stride 16, FCN-8s does so again with stride 8.

    Skips can be trained at once, or in stages, each of which begins as the one before it:

        fcn32 = FCN(backbone("tiny"), num_classes)
        fcn32.compile("adam")
        fcn32.fit(batches)
        fcn16 = fcn32.copy(stride=16)

    Args:
        backbone: a model from `cvlib.models.backbone`; it is used, and trained, in place.
        num_classes: number of classes C, the background among them, at most 255.
        size: (height, width) of the images, or None for any: images of several sizes then make a
            batch each. With a size, `predict` resizes others to it and the classes back.
        stride: of the scores, 32, 16 or 8.
        window: side in pixels of what the first of the head's layers sees, an odd multiple of 32.
        hidden: channels of that layer.
        dropout: rate after it.
        scales: factors of the maps at stride 16 and 8. With VGG, trained at once, the authors'
            are 0.01 and 0.0001; maps behind batch normalisation are of one size.
        learned: whether the upsampling is learned, or stays bilinear, as in the authors' release.
        frozen_to: name of the backbone's map up to which its layers are never trained.

    The outputs are the detections, `segmentation` (B, H, W) uint8, and `scores`
    (B, h, w, C) before the last upsampling.

    Raises:
        ValueError: `stride`, `window` or `frozen_to` is none of the above.

    Source: Fully Convolutional Networks for Semantic Segmentation (Long et al. 2015), section 4;
    the scales are those of its release, `voc-fcn8s-atonce`. Unlike there, the loss is a mean.
    """

    detections = ("segmentation",)
    loss_names = ("segmentation",)

    def __init__(
        self,
        backbone,
        num_classes,
        size=None,
        stride=32,
        window=96,
        hidden=256,
        dropout=0.5,
        scales=(1.0, 1.0),
        learned=True,
        frozen_to=None,
        **kwargs,
    ):
        size = None if size is None else height_and_width(size)
        if stride not in (32, 16, 8):
            raise ValueError(f"`stride` is 32, 16 or 8, not {stride!r}.")
        check_window(window)
        images = keras.Input((*(size or (None, None)), 3), name="images")
        maps = backbone(images)
        coarse, *finer = (maps[f"stride{s}"] for s in (32, 16, 8) if s >= stride)
        head = _head(coarse.shape[-1], num_classes, window, hidden, dropout)
        skips = [
            SkipFusion(2, scale, learned, dtype="float32", name=f"skip{s}")
            for s, scale, _ in zip((16, 8), scales, finer, strict=False)
        ]
        upsampling = BilinearUpsampling(stride, learned, dtype="float32", name="upsampling")

        scores = head(coarse)
        for skip, features in zip(skips, finer, strict=True):
            scores = skip(scores, features)
        found = {"segmentation": classes_of(upsampling(scores, images))}
        super().__init__(images, {"scores": scores, **found}, **kwargs)
        self.backbone, self.head, self.skips, self.upsampling = backbone, head, skips, upsampling
        self._parts = {
            "backbone": (images, [coarse, *finer]),
            "scores": ([coarse, *finer], scores),
            "upsampling": ([scores, images], found),
        }
        self._config = {
            "num_classes": num_classes,
            "size": size,
            "stride": stride,
            "window": window,
            "hidden": hidden,
            "dropout": dropout,
            "scales": tuple(scales),
            "learned": learned,
            "frozen_to": frozen_to,
        }
        freeze(backbone, frozen_to)

    def copy(self, **changes):
        """A network with other arguments that begins with all the weights that both have.

        Args:
            **changes: of the arguments `size`, `stride`, `dropout`, `scales`, `learned` and
                `frozen_to`.
        """
        trunk = keras.models.clone_model(self.backbone)
        other = type(self)(trunk, classes=self.classes, **{**self._config, **changes})
        pairs = [(other.backbone, self.backbone), (other.head, self.head)]
        pairs += zip(other.skips, self.skips, strict=False)
        if other.upsampling.factor == self.upsampling.factor:
            pairs.append((other.upsampling, self.upsampling))
        for new, old in pairs:
            new.set_weights(old.get_weights())
        return other

    def compute_losses(self, y, outputs):
        truth = ops.convert_to_tensor(y["segmentation"])
        check_sizes(truth, outputs["segmentation"])
        # Upsampled here once more, so that no scores of every pixel are among the outputs; what
        # `segmentation` took to make is read by nothing then.
        logits = self.upsampling(outputs["scores"], truth[..., None])
        return {"segmentation": losses.pixel_cross_entropy(truth, logits)}


def _head(channels, num_classes, window, hidden, dropout):
    """The map at stride 32 to scores: a classifier's two fully connected layers."""
    x = features = keras.Input((None, None, channels), name="features")
    x = layers.Conv2D(hidden, window // CELL, padding="same", activation="relu", name="fc")(x)
    x = layers.Dropout(dropout)(x)
    return keras.Model(features, layers.Conv2D(num_classes, 1, name="score")(x), name="head")


def check_window(window):
    """Refuses a window that has no cell in its middle."""
    if window <= 0 or window % (2 * CELL) != CELL:
        raise ValueError(f"`window` is an odd multiple of {CELL}, not {window}.")


def classes_of(scores):
    """The class of each pixel, uint8, from scores (B, H, W, C).

    Raises:
        ValueError: there are more than 255 classes; 255 is void.
    """
    if scores.shape[-1] > 255:
        raise ValueError(f"There are at most 255 classes, not {scores.shape[-1]}.")
    # Not argmax, which ONNX lacks for floats.
    return ops.cast(ops.top_k(scores, 1)[1][..., 0], "uint8")


def check_sizes(truth, found):
    """Refuses classes of pixels (B, H, W) of another size than those found, where it is known."""
    given, wanted = tuple(truth.shape[1:]), tuple(found.shape[1:])
    if None not in given + wanted and given != wanted:
        raise ValueError(f"The segmentation is {given}, but the images are {wanted}.")
