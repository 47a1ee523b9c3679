"""Greedy non-maximum suppression of each class, a tile of boxes at a time."""

import keras
from keras import ops

from cvlib.boxes import iou
from cvlib.layers.detections import DetectionLayer, by_falling_score

_TILE = 128  # boxes looked at together; 64 to 256 are as fast


@keras.saving.register_keras_serializable(package="cvlib")
class NonMaxSuppression(DetectionLayer):
    """Keeps the boxes of each class that overlap no surer box that is kept.

    A candidate is a box and a class whose score is at least `confidence_threshold`. They are looked
    at by falling score, of equal scores the first box first, then the first class; a candidate is
    suppressed if its IoU with one of its class that was kept is greater than `iou_threshold` (in
    float32; a box whose IoU equals it stays). Coordinates may be any, negative too; boxes without
    area overlap nothing, and boxes that are not finite are no candidates.

    The result is that of one box after the other; the work is done in tiles of candidates. What
    survives the boxes kept so far is settled inside a tile by repetition: a candidate goes if a
    surer one of the tile that stays overlaps it, until nothing changes. As many repetitions are
    needed as the longest chain of such boxes, which is short. It ends when enough boxes are kept.

    Args:
        iou_threshold: see above.
        confidence_threshold: see above.
        max_detections: K, how many boxes of an image are kept.
        pre_nms_top_k: how many candidates of an image are looked at, those of the highest scores;
            None for all.
        class_agnostic: whether boxes of other classes suppress too.

    Call arguments:
        boxes: (B, N, 4) xyxy in float32, or (B, N, C, 4), a box for each class.
        scores: (B, N, C), probabilities; C = 1 for proposals.
        overlaps: (B, N, N) IoUs to go by instead of those of the boxes, such as regions', with
            boxes (B, N, 4).

    Returns:
        Detections in float32, by falling confidence, K of them or as many as there are candidates:
        `boxes` (B, K, 4), `confidence` (B, K), `labels` (B, K), -1 where padded, `indices` (B, K),
        which of the N boxes each is, -1 where padded, `num_detections` (B,). No gradient passes.

    Raises:
        ValueError: there are boxes for more or fewer classes than there are scores.

    Source: R-CNN (Girshick et al. 2014), section 2.2; Faster R-CNN (Ren et al. 2015), section 3.3.
    """

    def __init__(
        self,
        iou_threshold=0.5,
        confidence_threshold=0.05,
        max_detections=100,
        pre_nms_top_k=None,
        class_agnostic=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.iou_threshold = iou_threshold
        self.confidence_threshold = confidence_threshold
        self.max_detections = max_detections
        self.pre_nms_top_k = pre_nms_top_k
        self.class_agnostic = class_agnostic

    def call(self, boxes, scores, overlaps=None):
        boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
        scores = ops.stop_gradient(ops.cast(scores, "float32"))
        _, number, classes = scores.shape
        if len(boxes.shape) == 4 and boxes.shape[2] not in (None, classes):
            raise ValueError(f"There are boxes for {boxes.shape[2]} classes, scores for {classes}.")
        if len(boxes.shape) == 4 and overlaps is not None:
            raise ValueError("Overlaps are of boxes that all classes share, (B, N, 4).")
        if number == 0:
            none = scores[..., 0]
            boxes = boxes if len(boxes.shape) == 3 else boxes[:, :, 0]
            return self.pad(none > 0, boxes=boxes, confidence=none, labels=none, indices=none)
        finite = ops.all(ops.isfinite(boxes), axis=-1)
        finite = finite if len(boxes.shape) == 4 else finite[..., None]
        scores = ops.where(finite & (scores >= self.confidence_threshold), scores, -float("inf"))
        scores = ops.reshape(scores, (-1, number * classes))
        scores, order = by_falling_score(scores, self._num_candidates(number * classes))
        labels, indices = order % classes, order // classes
        if len(boxes.shape) == 4:
            boxes = ops.reshape(boxes, (-1, number * classes, 4))
        else:
            order = indices
        boxes = ops.take_along_axis(boxes, order[..., None], axis=1)
        together = self.class_agnostic or classes == 1
        real = scores > -float("inf")
        if overlaps is None:
            overlap, candidates = iou, boxes
        else:
            overlap, candidates = _looked_up(overlaps), order
        kept = self._kept(candidates, None if together else labels, real, overlap)
        rank = ops.maximum(kept, 0)
        return self.pad(
            kept >= 0,
            boxes=ops.take_along_axis(boxes, rank[..., None], axis=1),
            confidence=ops.take_along_axis(scores, rank, axis=1),
            labels=ops.take_along_axis(labels, rank, axis=1),
            indices=ops.take_along_axis(indices, rank, axis=1),
        )

    def _kept(self, boxes, labels, real, overlap):
        """Which of M sorted candidates are kept, (B, K), -1 where no more are.

        `boxes` are (B, M, 4), or whatever (B, M, ...) of two candidates `overlap` takes, `labels`
        (B, M), or None if all boxes suppress all others, and `real` (B, M) says which candidates
        there are.
        """
        M, *each = boxes.shape[1:]
        K = min(self.max_detections, M)
        tile = min(_TILE, M)
        room = ((0, 0), (0, -M % tile))
        boxes = ops.pad(boxes, (*room, *[(0, 0)] * len(each)))
        labels = None if labels is None else ops.pad(labels, room)
        real = ops.pad(real, room)
        num_real = ops.sum(ops.cast(real, "int32"), axis=-1, keepdims=True)
        surer = ops.arange(tile)[:, None] < ops.arange(tile)

        def unfinished(i, kept, count):
            return ops.any((count < K) & (i * tile < num_real))

        def look_at(i, kept, count):
            rank = i * tile + ops.arange(tile)
            candidates = ops.take(boxes, rank, axis=1)
            of_kept = ops.maximum(kept, 0)
            others = ops.reshape(of_kept, (-1, K, *[1] * len(each)))
            others = ops.take_along_axis(boxes, others, axis=1)
            over = overlap(ops.concatenate([others, candidates], axis=1), candidates)
            over = over > self.iou_threshold
            if labels is not None:
                classes = ops.take(labels, rank, axis=1)
                others = ops.take_along_axis(labels, of_kept, axis=1)
                same = ops.concatenate([others, classes], axis=1)[..., None] == classes[:, None]
                over = over & same
            gone = ops.any(over[:, :K] & (kept >= 0)[..., None], axis=1)
            alive = ops.take(real, rank, axis=1) & ~gone
            over = over[:, K:] & surer

            def unsettled(stay, before):
                return ops.any(stay != before)

            def settle(stay, before):
                return alive & ~ops.any(over & stay[..., None], axis=1), stay

            stay, _ = ops.while_loop(unsettled, settle, settle(alive, alive))
            stay_count = ops.cumsum(ops.cast(stay, "int32"), axis=-1)
            place = ops.where(stay, count + stay_count - 1, -1)
            # On accelerators, a mask over all places is faster than writing to some of them.
            here = place[:, None] == ops.arange(K)[:, None]
            kept = ops.maximum(kept, ops.max(ops.where(here, rank, -1), axis=-1))
            return i + 1, kept, count + stay_count[:, -1:]

        batch = ops.shape(boxes)[0]
        start = (0, ops.full((batch, K), -1, "int32"), ops.zeros((batch, 1), "int32"))
        return ops.while_loop(unfinished, look_at, start)[1]

    def _num_candidates(self, available):
        return min(self.pre_nms_top_k or available, available)

    def compute_output_shape(self, boxes_shape, scores_shape, overlaps_shape=None):
        batch, number, classes = scores_shape
        K = min(self.max_detections, self._num_candidates(number * classes))
        return {
            "boxes": (batch, K, 4),
            "confidence": (batch, K),
            "labels": (batch, K),
            "indices": (batch, K),
            "num_detections": (batch,),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "iou_threshold": self.iou_threshold,
            "confidence_threshold": self.confidence_threshold,
            "max_detections": self.max_detections,
            "pre_nms_top_k": self.pre_nms_top_k,
            "class_agnostic": self.class_agnostic,
        }


def _looked_up(overlaps):
    """A function of places (B, A) and (B, D) to the `overlaps` (B, N, N) of these, (B, A, D)."""
    number = overlaps.shape[-1]
    flat = ops.reshape(overlaps, (-1, number * number))

    def overlap(a, b):
        places = ops.reshape(number * a[..., None] + b[:, None], (-1, a.shape[1] * b.shape[1]))
        return ops.reshape(ops.take_along_axis(flat, places, axis=1), (-1, a.shape[1], b.shape[1]))

    return overlap
