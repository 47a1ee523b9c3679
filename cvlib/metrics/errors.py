"""What a detector gets wrong: each detection and each missed object by its kind.

Sources: Hoiem et al. 2012, "Diagnosing Error in Object Detectors"; Bolya et al. 2020, "TIDE: A
General Toolbox for Identifying Object Detection Errors", sections 2.2 and 2.3.
"""

import numpy as np

from cvlib.metrics.average_precision import RECALL_POINTS, average_precision
from cvlib.metrics.matching import (
    check_kind,
    check_same_images,
    match_coco,
    overlapping,
    read_detections,
    read_objects,
)

ERRORS = ("wrong class", "poor box", "both", "duplicate", "background", "missed")


def error_breakdown(
    y_true,
    y_pred,
    num_classes,
    confidence_threshold=0.5,
    iou_threshold=0.5,
    background_threshold=0.1,
    iou="boxes",
):
    """Counts what detections get right, and the ways in which they are wrong.

    Detections find objects by COCO's rule at one IoU threshold; those that a `crowd` or `difficult`
    object excuses are left out (a `difficult` one excuses one of its class). Such objects define
    none of the kinds below. One that finds none is, whatever comes first (TIDE's order),

    - `poor box`, if its best IoU with an object of its class is between the two thresholds;
    - `wrong class`, if its IoU with an object of another class reaches `iou_threshold`;
    - `duplicate`, if its IoU with an object of its class does, which another has found;
    - `both`, poor box and wrong class, if an IoU reaches `background_threshold`;
    - `background`.

    An object is `missed` if no detection finds it, nor has a poor box or wrong class for it.

    Args:
        y_true: all images, as for `MeanAveragePrecision.update_state`.
        y_pred: their detections.
        num_classes: labels are 0..num_classes-1.
        confidence_threshold: detections below are left out; TIDE has none, 0.
        iou_threshold: the lowest IoU of a good box.
        background_threshold: the lowest IoU of a box that is meant for an object.
        iou: of `"boxes"` or `"masks"`.

    Returns:
        A dict with `counts`, by `"correct"` and the kinds in `ERRORS`; `mAP`, by COCO's 101 points
        at `iou_threshold`; and `gain`, by kind, by how much mAP rises when errors of this kind
        alone are mended: poor boxes and wrong classes become right, or vanish where another
        detection has found the object; the others vanish; missed objects are not asked for (nan
        where no other object is left).

    Raises:
        TypeError, ValueError: as from `MeanAveragePrecision.update_state`.
        ValueError: not 0 < `background_threshold` <= `iou_threshold` <= 1.
    """
    check_kind(iou)
    if not 0 < background_threshold <= iou_threshold <= 1:
        raise ValueError(
            f"0 < background_threshold <= iou_threshold <= 1, not {background_threshold} and "
            f"{iou_threshold}."
        )
    objects, sizes = read_objects(y_true, num_classes, iou == "masks", user="error_breakdown")
    detections = read_detections(y_pred, num_classes, sizes, user="error_breakdown")
    check_same_images(y_true, y_pred)
    # The ranks stay: in each image and class the confidence falls.
    sure = detections["confidence"] >= confidence_threshold
    detections = {key: column[sure] for key, column in detections.items()}
    labels, confidence = detections["labels"], detections["confidence"]

    pairs = overlapping(
        detections, objects, "image", background_threshold, objects["crowd"], of=iou
    )
    own_class = labels[pairs[0]] == objects["labels"][pairs[1]]
    ignored = objects["crowd"] | objects["difficult"]
    correct, counted, found = (
        x.astype(bool)
        for x in match_coco(
            *(column[own_class] for column in pairs),
            detections["rank"],
            np.ones((len(labels), 1), bool),
            objects["crowd"],
            ignored[:, None],
            [iou_threshold],
        )
    )

    asked = ~ignored[pairs[1]]
    own, own_object = _best(pairs, asked & own_class, len(labels))
    other, other_object = _best(pairs, asked & ~own_class, len(labels))
    kinds = np.select(
        [
            ~counted,
            correct,
            (background_threshold <= own) & (own < iou_threshold),
            other >= iou_threshold,
            own >= iou_threshold,
            other >= background_threshold,
        ],
        ["ignored", "correct", "poor box", "wrong class", "duplicate", "both"],
        "background",
    )
    target = np.where(kinds == "wrong class", other_object, own_object)
    mendable = np.isin(kinds, ["wrong class", "poor box"])
    missed = ~ignored & ~found & ~np.isin(np.arange(len(ignored)), target[mendable])

    def mean_ap(labels, correct, counted, asked):
        positives = np.bincount(objects["labels"][asked], minlength=num_classes)
        ap = []
        for c in np.flatnonzero(positives):
            rows = np.flatnonzero(counted & (labels == c))
            rows = rows[np.argsort(-confidence[rows], kind="stable")]
            ap.append(average_precision(correct[rows], positives[c], RECALL_POINTS["coco"]))
        return float(np.mean(ap)) if ap else float("nan")

    def mend(kind):
        if kind == "missed":
            return mean_ap(labels, correct, counted, ~ignored & ~missed)
        rows = np.flatnonzero((kinds == kind) & mendable)
        rows = rows[~found[target[rows]]]
        rows = rows[np.argsort(-confidence[rows], kind="stable")]
        rows = rows[np.unique(target[rows], return_index=True)[1]]
        mended, classes = np.isin(np.arange(len(labels)), rows), labels.copy()
        classes[rows] = objects["labels"][target[rows]]
        return mean_ap(classes, correct | mended, counted & (kinds != kind) | mended, ~ignored)

    before = mean_ap(labels, correct, counted, ~ignored)
    counts = {kind: int(np.sum(kinds == kind)) for kind in ("correct", *ERRORS)}
    return {
        "counts": counts | {"missed": int(missed.sum())},
        "mAP": before,
        "gain": {kind: mend(kind) - before for kind in ERRORS},
    }


def _best(pairs, among, num_detections):
    """The highest IoU of each detection and its object, among some pairs; 0 and -1 without one."""
    d, o, iou = (column[among] for column in pairs)
    order = np.argsort(iou, kind="stable")
    best, object_ = np.zeros(num_detections), np.full(num_detections, -1)
    # Of repeated indices the last assignment stays.
    best[d[order]], object_[d[order]] = iou[order], o[order]
    return best, object_
