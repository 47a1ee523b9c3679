"""Regions of one feature map, classified and refined: a detector for proposals made elsewhere."""

import keras
import numpy as np
from keras import ops

from cvlib.layers import NonMaxSuppression
from cvlib.models.backbone import map_stride, trunk_up_to
from cvlib.models.region_detector import (
    ProposalDetector,
    detect,
    inside,
    region_heads,
    region_pooling,
)
from cvlib.sizes import height_and_width


@keras.saving.register_keras_serializable(package="cvlib")
class FastRCNN(ProposalDetector):
    """A detector that is given where to look, and looks at all of it in one pass.

    The trunk runs once for an image. Each proposed box becomes a region of its map, pooled to
    a fixed size; two fully connected layers see it, a softmax over classes and "background", and,
    for each class, four numbers that move and resize the box. `NonMaxSuppression` keeps the best of
    what overlaps. Trunk and head learn together, from one loss:

        batches = cvlib.data.batches(dataset, 2, size, proposals=proposals, max_proposals=1000)
        fast_rcnn = FastRCNN(backbone("tiny"), num_classes, size, max_proposals=1000)
        fast_rcnn.compile("adam")
        fast_rcnn.fit(batches)
        fast_rcnn.predict(images, proposals)

    In training a region is an object if its IoU with one is at least 0.5, and background if its
    highest is in [0.1, 0.5), unless `compile` is told other bounds. The objects' own boxes are
    among the regions that are drawn. Objects that are difficult, and crowds, are neither right nor
    wrong.

    Args:
        backbone: a model from `cvlib.models.backbone`; it is used, and trained, in place, up to the
            map.
        num_classes: number of classes C.
        size: (height, width) of the images.
        max_proposals: R, how many proposals of an image are looked at.
        pooling: `"pool"` (`RoIPooling`), `"align"` (`RoIAlign`) or `"spp"`
            (`SpatialPyramidPooling`).
        pool_size: cells on a side of a pooled region; a pyramid has its own.
        feature_map: name of the backbone's map; small objects need a smaller stride.
        hidden: units of each of the two fully connected layers.
        dropout: rate after these layers.
        rank: ranks of these two layers, see `compressed`; None for full matrices.
        nms: arguments of `NonMaxSuppression`.
        frozen_to: name of the backbone's map up to which its layers are never trained.

    The inputs are `{"images": (B, H, W, 3), "proposals": (B, R, 4)}`, xyxy in pixels; those without
    area, of NaN or infinite, are padding. The outputs are detections and, for the losses,
    `features`, the map, and `proposals`, inside the image.

    Raises:
        ValueError: `pooling`, `feature_map` or `frozen_to` is none of the above.

    Source: Fast R-CNN (Girshick 2015), sections 2 and 3; with "spp", SPP-net (He et al. 2014)
    trained end to end.
    """

    loss_names = ("classification", "box")

    def __init__(
        self,
        backbone,
        num_classes,
        size,
        max_proposals=1000,
        pooling="pool",
        pool_size=7,
        feature_map="stride16",
        hidden=512,
        dropout=0.5,
        rank=None,
        nms=None,
        frozen_to=None,
        **kwargs,
    ):
        size = height_and_width(size)
        backbone = trunk_up_to(backbone, feature_map, frozen_to)
        images = keras.Input((*size, 3), name="images")
        given = keras.Input((max_proposals, 4), name="proposals")
        features = backbone(images)[feature_map]

        proposals = inside(given, size)
        pool = region_pooling(pooling, pool_size, map_stride(feature_map))
        pooled = pool(features, proposals)
        heads = region_heads(pooled.shape[2:], num_classes, hidden, dropout, rank)
        logits, deltas = heads(pooled)
        nms = nms or {}
        scores = ops.softmax(logits)[..., :-1]
        found = detect(proposals, scores, deltas, size, NonMaxSuppression(**nms))
        super().__init__(
            {"images": images, "proposals": given},
            {"features": features, "proposals": proposals, **found},
            **kwargs,
        )
        self.backbone, self.pooling, self.heads = backbone, pool, heads
        self._parts = {
            "backbone": (images, features),
            "pooling": ([features, given], [proposals, pooled]),
            "heads": (pooled, [logits, deltas]),
            "detections": ([proposals, logits, deltas], found),
        }
        self._config = {
            "num_classes": num_classes,
            "size": size,
            "max_proposals": max_proposals,
            "pooling": pooling,
            "pool_size": pool_size,
            "feature_map": feature_map,
            "hidden": hidden,
            "dropout": dropout,
            "rank": rank,
            "nms": nms,
            "frozen_to": frozen_to,
        }

    def compute_losses(self, y, outputs):
        return self._region_losses(y, outputs)

    def compressed(self, rank):
        """A copy whose fully connected layers are products of two smaller matrices.

        Of each matrix the singular values after the first `rank` are dropped: u x v weights become
        rank (u + v).

        Args:
            rank: of the first and of the second layer.

        Raises:
            ValueError: this system is compressed already, or a rank is larger than the matrix's.

        Source: Fast R-CNN (Girshick 2015), section 3.1.
        """
        if self._config["rank"]:
            raise ValueError("The system is compressed already.")
        trunk = keras.models.clone_model(self.backbone)
        trunk.set_weights(self.backbone.get_weights())
        other = type(self)(trunk, classes=self.classes, **{**self._config, "rank": tuple(rank)})
        for name, kept in zip(("fc1", "fc2"), rank, strict=True):
            kernel, bias = self.heads.get_layer(name).get_weights()
            u, s, v = np.linalg.svd(kernel, full_matrices=False)
            if kept > len(s):
                raise ValueError(f"{name} has rank {len(s)} at most, not {kept}.")
            other.heads.get_layer(f"{name}_reduced").set_weights([u[:, :kept] * s[:kept]])
            other.heads.get_layer(name).set_weights([v[:kept], bias])
        for name in ("logits", "deltas"):
            other.heads.get_layer(name).set_weights(self.heads.get_layer(name).get_weights())
        return other
