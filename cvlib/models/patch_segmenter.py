"""Semantic segmentation by a classifier of windows: what is the pixel in the middle of each?"""

import keras
import numpy as np
from keras import layers, ops

from cvlib import losses
from cvlib.models.backbone import freeze
from cvlib.models.fcn import FCN, check_sizes, check_window, classes_of
from cvlib.models.system import System
from cvlib.sizes import height_and_width

VOID = 255


@keras.saving.register_keras_serializable(package="cvlib")
class PatchSegmenter(System):
    """A classifier of windows, slid over an image: one pass of the network for every window.

    Windows are `stride` pixels apart, and each says the class of the `stride` x `stride` pixels in
    its middle; with a stride of 1 every pixel has a window of its own. Where a window reaches over
    the border it sees black. It learns the class of the pixel in the middle of each window.

    Args:
        backbone: a model from `cvlib.models.backbone`; it is used, and trained, in place.
        num_classes: number of classes C, the background among them, at most 255.
        size: (height, width) of the images.
        stride: pixels from one window to the next, at most `window`.
        window: side of a window in pixels, an odd multiple of 32.
        hidden: units of the first fully connected layer.
        dropout: rate after it.
        frozen_to: name of the backbone's map up to which its layers are never trained.
        classifier: that of another `PatchSegmenter`, to share its weights; a new one by default.

    The outputs are the detections, `segmentation` (B, H, W) uint8, and `scores` (B, h, w, C) of the
    windows.

    Raises:
        ValueError: `stride`, `window` or `frozen_to` is none of the above.

    Source: the pixel classifiers that FCN (Long et al. 2015, section 2) sets out from, such as
    Ciresan et al. 2012 and Farabet et al. 2013.
    """

    detections = ("segmentation",)
    loss_names = ("segmentation",)

    def __init__(
        self,
        backbone,
        num_classes,
        size=(128, 128),
        stride=32,
        window=96,
        hidden=256,
        dropout=0.5,
        frozen_to=None,
        classifier=None,
        **kwargs,
    ):
        size = height_and_width(size)
        check_window(window)
        if not 1 <= stride <= window:
            raise ValueError(f"`stride` is between 1 and the window's {window}, not {stride}.")
        if classifier is None:
            classifier = _classifier(backbone, num_classes, window, hidden, dropout)

        images = keras.Input((*size, 3), name="images")
        windows = _windows(images, window, stride)
        rows, columns = windows.shape[1:3]
        scores = classifier(ops.reshape(windows, (-1, window, window, 3)))
        scores = layers.Reshape((rows, columns, num_classes), dtype="float32")(
            ops.reshape(scores, (-1, rows * columns, num_classes))
        )
        blocks = ops.repeat(ops.repeat(classes_of(scores), stride, axis=1), stride, axis=2)
        found = {"segmentation": blocks[:, : size[0], : size[1]]}
        super().__init__(images, {"scores": scores, **found}, **kwargs)
        self.backbone, self.classifier = backbone, classifier
        self._parts = {
            "windows": (images, windows),
            "classifier": (windows, scores),
            "classes": (scores, found),
        }
        self._config = {
            "num_classes": num_classes,
            "size": size,
            "stride": stride,
            "window": window,
            "hidden": hidden,
            "dropout": dropout,
            "frozen_to": frozen_to,
        }
        freeze(backbone, frozen_to)

    def slide(self, **changes):
        """The same classifier, with the same weights, over other images.

        Args:
            **changes: of the arguments `size` and `stride`.
        """
        options = {"classifier": self.classifier, "classes": self.classes}
        return type(self)(self.backbone, **options, **{**self._config, **changes})

    def to_fcn(self, **changes):
        """An FCN-32s with copies of the weights: the fully connected layers are convolutions.

        Its scores are those of the windows 32 pixels apart, but for what padding changes: where the
        backbone pads, a cell of its map knows what a window cuts off.

        Args:
            **changes: of the arguments of `FCN`.
        """
        shared = ("num_classes", "window", "hidden", "dropout", "frozen_to")
        options = {"classes": self.classes, **{key: self._config[key] for key in shared}}
        fcn = FCN(keras.models.clone_model(self.backbone), **{**options, **changes})
        fcn.backbone.set_weights(self.backbone.get_weights())
        for name in ("fc", "score"):
            kernel, bias = self.classifier.get_layer(name).get_weights()
            convolution = fcn.head.get_layer(name)
            convolution.set_weights([kernel.reshape(convolution.kernel.shape), bias])
        return fcn

    def compute_losses(self, y, outputs):
        truth = ops.convert_to_tensor(y["segmentation"])
        check_sizes(truth, outputs["segmentation"])
        stride = self._config["stride"]
        # The last windows' middle pixels may lie outside of the image.
        missing = [(0, -length % stride) for length in self._config["size"]]
        truth = ops.pad(truth, [(0, 0), *missing], constant_values=VOID)
        middle = truth[:, stride // 2 :: stride, stride // 2 :: stride]
        return {"segmentation": losses.pixel_cross_entropy(middle, outputs["scores"])}


def _classifier(backbone, num_classes, window, hidden, dropout):
    """Windows (N, window, window, 3) to the scores of the pixel in the middle, (N, C)."""
    pixels = keras.Input((window, window, 3), name="window")
    x = layers.Flatten()(backbone(pixels)["stride32"])
    x = layers.Dense(hidden, activation="relu", name="fc")(x)
    x = layers.Dropout(dropout)(x)
    return keras.Model(pixels, layers.Dense(num_classes, name="score")(x), name="classifier")


def _windows(images, window, stride):
    """Images (B, H, W, 3) to windows (B, h, w, window, window, 3), `stride` pixels apart.

    Pixel `window // 2` of the first is pixel `stride // 2` of the image, in both directions.
    """
    before, margins, indices = window // 2 - stride // 2, [], []
    for length in images.shape[1:3]:
        start = np.arange(0, length, stride)
        margins.append((before, max(0, start[-1] + window - before - length)))
        indices.append(start[:, None] + np.arange(window))
    rows, columns = indices
    padded = layers.ZeroPadding2D(margins)(images)
    windows = ops.take(ops.take(padded, rows, axis=1), columns, axis=3)
    return ops.transpose(windows, (0, 1, 3, 2, 4, 5))
