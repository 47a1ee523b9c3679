"""Average precision of detections, on boxes and on masks, by the rules of Pascal VOC and of COCO.

Sources: Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge", section 4.2,
and `VOCevaldet.m` of its development kit; Lin et al. 2014, "Microsoft COCO", and its `COCOeval`.
"""

import itertools

import keras
import numpy as np

from cvlib.metrics.matching import (
    check_kind,
    check_same_images,
    host_only,
    match_coco,
    match_voc,
    overlapping,
    read_detections,
    read_objects,
)

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {
    "all": (0, 1e5**2),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e5**2),
}
MAX_DETECTIONS = (1, 10, 100)
# Quotients, as recalls are: 3 objects of 10 reach the point 3 / 10, which 3 * 0.1 exceeds.
RECALL_POINTS = {
    "voc2007": np.arange(11) / 10,
    "voc2010": None,
    "coco": np.linspace(0, 1, 101),
}


def average_precision(correct, positives, points=None):
    """Average precision of one class.

    Args:
        correct: (D,) bool, whether the detections, by falling confidence, are right.
        positives: number of objects to find, at least 1.
        points: recalls at which precision is averaged, `None` for the area below its curve.

    Returns:
        A float in 0..1. The precision at a recall is the highest at this or any higher one.
    """
    # Recall rises at the right detections alone, and precision is highest there.
    place = np.flatnonzero(correct) + 1
    found = np.arange(1, len(place) + 1)
    precision = np.maximum.accumulate((found / place)[::-1])[::-1]
    if points is None:
        return precision.sum() / positives
    return np.append(precision, 0)[np.searchsorted(found / positives, points)].mean()


class MeanAveragePrecision:
    """Mean average precision of a detector, streamed over batches.

    Detections find objects by falling confidence, and equals in the order in which they came:

    - `"voc2007"`, `"voc2010"`: a detection goes to the object of its class with the highest IoU.
      From `iou_threshold` on it is right if it is the first there and wrong if not; where the
      object is `difficult` (or a `crowd`) it is neither. AP is the mean of the precision at 11
      recalls (2007) or the area below its curve (2010). For the kit's inclusive integer pixels give
      the continuous box (xmin - 1, ymin - 1, xmax, ymax): its width is the kit's, with the + 1.
      An IoU equal to the threshold is a match in the kit's code, which is followed here; its
      documentation and many reimplementations ask for more. A recall of 3 objects in 10 reaches
      the point 0.3; reimplementations that compute it as 3 times 0.1, a little more, miss it.
    - `"coco"`: a detection goes to the object of its class with the highest IoU that is still free,
      if that reaches 0.5, 0.55, ..., 0.95, over which AP, the mean of the precision at 101 recalls,
      is averaged. The first 100 detections of a class in an image count. A `crowd` excuses any
      number of detections whose own area it covers; a `difficult` object, or one whose `area` is
      out of the range looked at, excuses one.

    Args:
        num_classes: C; labels are 0..C-1.
        style: `"voc2007"`, `"voc2010"` or `"coco"`.
        iou: of `"boxes"` or `"masks"`. Of masks VOC's AP is AP^r (Hariharan et al. 2014), by area
            in SDS and by 11 points in MNC.
        iou_threshold: of the VOC styles.
        matching: of the VOC styles: a detection goes to the `"best"` object, or, as in SDS's own
            evaluation of AP^r, to the best that is still `"free"`, which is COCO's rule. There too
            `difficult` objects and crowds excuse any number of detections.

    Raises:
        ValueError: `style`, `iou` or `matching` is none of these.
    """

    def __init__(
        self, num_classes, style="voc2007", iou="boxes", iou_threshold=0.5, matching="best"
    ):
        if style not in RECALL_POINTS:
            raise ValueError(f"style must be one of {', '.join(RECALL_POINTS)}, not {style!r}.")
        if matching not in ("best", "free"):
            raise ValueError(f"matching must be 'best' or 'free', not {matching!r}.")
        check_kind(iou)
        self.num_classes = num_classes
        self.style = style
        self.iou = iou
        self.iou_threshold = iou_threshold
        self.matching = matching
        self.reset_state()

    def reset_state(self):
        self._objects, self._detections, self._pairs = [], [], []
        self._num_objects = self._num_detections = 0
        self.update_state([], [])

    def update_state(self, y_true, y_pred):
        """Adds a batch.

        Args:
            y_true: objects, padded: `boxes` (B, N, 4) xyxy, `labels` (B, N), -1 where padded,
                optionally `difficult`, `crowd`, `area` (B, N), which is measured where it is nan;
                or a list of B dicts, one per image, without the first axis.
            y_pred: detections, in either form: `boxes` (B, M, 4), `confidence` (B, M), `labels`
                (B, M), -1 where padded, optionally `num_detections` (B,). An inverted box, as
                networks may predict, finds nothing.

        For masks both hold `masks`: for each image its run-length masks, or (B, N, m, m)
        probabilities in the frame of the boxes; then `y_true` needs `size` (B, 2), height and width
        of the images, unless its own masks are run-length.

        Raises:
            TypeError: a tensor is symbolic.
            ValueError: a key is missing, shapes do not fit, a label is outside the classes, a box
                or a confidence is not finite, an object's box is inverted or its area negative, or
                there are more detections than rows.
        """
        coco = self.style == "coco"
        objects, sizes = read_objects(y_true, self.num_classes, self.iou == "masks")
        detections = read_detections(y_pred, self.num_classes, sizes)
        check_same_images(y_true, y_pred)
        if coco:
            counting = detections["rank"] < MAX_DETECTIONS[-1]
            detections = {key: column[counting] for key, column in detections.items()}
        lowest = IOU_THRESHOLDS[0] if coco else self.iou_threshold
        crowd = objects["crowd"] if coco else None
        d, o, iou = overlapping(detections, objects, "group", lowest, crowd, self.iou)
        self._pairs.append((d + self._num_detections, o + self._num_objects, iou))
        self._detections.append(
            {k: detections[k] for k in ("labels", "confidence", "rank", "area")}
        )
        self._objects.append({k: objects[k] for k in ("labels", "difficult", "crowd", "area")})
        self._num_detections += len(detections["labels"])
        self._num_objects += len(objects["labels"])

    def result(self):
        """What the batches so far give.

        Returns:
            A dict with `mAP`, the mean over the classes that have objects, and `AP`, a (C,) array,
            nan for the others. COCO adds `AP50`, `AP75`, `mAP_small`, `mAP_medium`, `mAP_large`
            and the average recalls `AR1`, `AR10`, `AR100`, `AR_small`, `AR_medium`, `AR_large`.
            All are in 0..1, or nan where there is no object.
        """
        objects, detections = _concatenate(self._objects), _concatenate(self._detections)
        pairs = [np.concatenate(column) for column in zip(*self._pairs, strict=True)]
        evaluate = self._coco if self.style == "coco" else self._voc
        return evaluate(objects, detections, pairs)

    def _voc(self, objects, detections, pairs):
        ignored = objects["difficult"] | objects["crowd"]
        if self.matching == "best":
            correct, counted = match_voc(*pairs, self._num_detections, ignored)
        else:
            every = np.ones((self._num_detections, 1), bool)
            rules = every, ignored, ignored[:, None], [self.iou_threshold]
            bits = match_coco(*pairs, detections["rank"], *rules)
            correct, counted = (x.astype(bool) for x in bits[:2])
        ap = np.full(self.num_classes, np.nan)
        for c, rows in enumerate(self._by_class(detections)):
            if positives := np.count_nonzero(~ignored & (objects["labels"] == c)):
                right = correct[rows][counted[rows]]
                ap[c] = average_precision(right, positives, RECALL_POINTS[self.style])
        return {"mAP": _mean(ap), "AP": ap}

    def _coco(self, objects, detections, pairs):
        ignored = (objects["crowd"] | objects["difficult"])[:, None] | ~_in_range(objects["area"])
        correct, counted, _ = match_coco(
            *pairs,
            detections["rank"],
            _in_range(detections["area"]),
            objects["crowd"],
            ignored,
            IOU_THRESHOLDS,
        )
        shape = self.num_classes, len(IOU_THRESHOLDS), len(AREAS)
        ap = np.full(shape, np.nan)
        recall = np.full((*shape, len(MAX_DETECTIONS)), np.nan)
        for c, rows in enumerate(self._by_class(detections)):
            positives = np.count_nonzero(~ignored[objects["labels"] == c], axis=0)
            right, count, rank = correct[rows], counted[rows], detections["rank"][rows]
            for t, a in np.ndindex(shape[1:]):
                if positives[a]:
                    bit = 1 << t * len(AREAS) + a
                    found = right & bit != 0
                    ap[c, t, a] = average_precision(
                        found[count & bit != 0], positives[a], RECALL_POINTS["coco"]
                    )
                    first = rank[found] < np.reshape(MAX_DETECTIONS, (-1, 1))
                    recall[c, t, a] = first.sum(axis=1) / positives[a]
        result = {
            "mAP": _mean(ap[..., 0]),
            "AP": ap[..., 0].mean(axis=1),
            "AP50": _mean(ap[:, 0, 0]),
            "AP75": _mean(ap[:, 5, 0]),
        }
        result |= {f"AR{m}": _mean(recall[:, :, 0, i]) for i, m in enumerate(MAX_DETECTIONS)}
        for a, name in list(enumerate(AREAS))[1:]:
            result |= {f"mAP_{name}": _mean(ap[..., a]), f"AR_{name}": _mean(recall[:, :, a, -1])}
        return result

    def _by_class(self, detections):
        """For each class its detections by falling confidence."""
        order = np.lexsort((-detections["confidence"], detections["labels"]))
        bounds = np.searchsorted(detections["labels"][order], np.arange(1, self.num_classes))
        return np.split(order, bounds)

    def __call__(self, *args, **kwargs):
        # What Keras does with a metric that was given to compile.
        raise TypeError(host_only(type(self).__name__))


class EvaluateDetections(keras.callbacks.Callback):
    """Measures the detections of a model at the end of each epoch.

    Callbacks that look at these logs come after this one.

    Args:
        dataset: `(x, y)` batches, as of `cvlib.data.batches(..., shuffle=False, repeat=False)`. `x`
            are the images, or a dict of `predict`'s arguments.
        metric: `MeanAveragePrecision`, for example.
        prefix: before the names of the metric's numbers in the logs.
        steps: number of batches to look at, for those that never end; by default the dataset's
            `steps_per_epoch`, or all. Where batches repeat, their last has some pictures twice.
    """

    def __init__(self, dataset, metric, prefix="val_", steps=None):
        super().__init__()
        self.dataset = dataset
        self.metric = metric
        self.prefix = prefix
        self.steps = steps or getattr(dataset, "steps_per_epoch", None)

    def on_epoch_end(self, epoch, logs=None):
        # Keras reads what is added to its own dict.
        logs = {} if logs is None else logs
        self.metric.reset_state()
        for x, y in itertools.islice(self.dataset, self.steps):
            images = x["images"] if isinstance(x, dict) else x
            size = np.tile(images.shape[1:3], (len(images), 1))
            y_pred = self.model.predict(**x) if isinstance(x, dict) else self.model.predict(x)
            self.metric.update_state({"size": size, **y}, y_pred)
        result = self.metric.result()
        logs |= {f"{self.prefix}{k}": v for k, v in result.items() if np.isscalar(v)}


def _concatenate(parts):
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _in_range(area):
    """(N, A) bool: areas (N,) that are in each range."""
    low, high = np.transpose(list(AREAS.values()))
    return (low <= area[:, None]) & (area[:, None] <= high)


def _mean(values):
    """The mean of those that are not nan; nan if there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
