"""How many of the objects proposals cover, whatever their class.

Source: Hosang et al. 2015, "What Makes for Effective Detection Proposals?".
"""

import numpy as np
from pycocotools import mask as rle

from cvlib.metrics.matching import num_images, read_objects, to_numpy


class ProposalRecall:
    """Recall of ranked proposals, and average recall, streamed over batches.

    A proposal covers one object at most: the pairs of an image are formed from the highest IoU
    down. `difficult` and `crowd` objects are left out.

    Args:
        iou_thresholds: T lowest IoUs with which an object is covered.
        budgets: for each the first so many proposals of an image are taken.
    """

    def __init__(self, iou_thresholds=(0.5, 0.7), budgets=(10, 100, 1000)):
        self.iou_thresholds = tuple(iou_thresholds)
        self.budgets = tuple(budgets)
        self.reset_state()

    def reset_state(self):
        self._covered = [np.zeros((len(self.budgets), 0))]

    def update_state(self, y_true, proposals):
        """Adds a batch.

        Args:
            y_true: objects, as for `MeanAveragePrecision.update_state`; of the labels only the
                padding matters.
            proposals: (B, R, 4) xyxy, the best first and padded with -1, or a list of B arrays,
                each with its own R, or of B `cvlib.proposals.Proposals`, as `propose` gives.

        Raises:
            TypeError: a tensor is symbolic.
            ValueError: shapes do not fit, or a proposal is not finite.
        """
        user = type(self).__name__
        objects, _ = read_objects(y_true, np.iinfo(np.int32).max, user=user)
        if len(proposals) != num_images(y_true):
            raise ValueError(
                f"y_true holds {num_images(y_true)} images, but proposals {len(proposals)}."
            )
        asked = ~(objects["difficult"] | objects["crowd"])
        for image, boxes in enumerate(proposals):
            boxes = to_numpy(getattr(boxes, "boxes", boxes), user).astype(float)
            if boxes.ndim != 2 or boxes.shape[1] != 4:
                raise ValueError(f"proposals of image {image} are {boxes.shape}, not (R, 4).")
            if not np.isfinite(boxes).all():
                raise ValueError(f"a proposal of image {image} is not finite.")
            iou = _iou(boxes, objects["boxes"][asked & (objects["image"] == image)])
            self._covered.append(np.stack([_assign(iou[:budget]) for budget in self.budgets]))

    def result(self):
        """What the batches so far give.

        Returns:
            A dict with `recall`, (budgets, T), the fraction of objects covered, and
            `average_recall`, (budgets,), the mean of the recall over all IoUs in 0.5..1. Both are
            in 0..1, or nan where there is no object.
        """
        covered = np.concatenate(self._covered, axis=1)
        reached = covered[:, None] >= np.reshape(self.iou_thresholds, (-1, 1))
        # The recall is a step function of the IoU: its integral over 0.5..1 is that of the excess.
        excess = np.maximum(covered - 0.5, 0)
        with np.errstate(invalid="ignore"):
            return {
                "recall": reached.sum(axis=2) / covered.shape[1],
                "average_recall": 2 * excess.sum(axis=1) / covered.shape[1],
            }


def _iou(a, b):
    a, b = (np.hstack([x[:, :2], x[:, 2:] - x[:, :2]]) for x in (a, b))
    return np.reshape(rle.iou(a, b, np.zeros(len(b))), (len(a), len(b)))


def _assign(iou):
    """The IoU (N,) with which objects are covered, where `iou` (R, N) is that of all pairs."""
    iou = iou.copy()
    covered = np.zeros(iou.shape[1])
    for _ in range(min(iou.shape)):
        r, n = np.unravel_index(iou.argmax(), iou.shape)
        covered[n] = iou[r, n]
        iou[r] = iou[:, n] = -1
    return covered
