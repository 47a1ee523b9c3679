"""COCO's average precision and IoU: the seconds of cvlib beside its peers'.

    python -m benchmarks.kernels.average_precision

Random detections of random objects: 5,000 images of 80 classes, about 7 objects and 30 to 100
detections in each. Every evaluator starts from its own format in memory: cvlib from padded batches
of 32 images, faster-coco-eval and hotcoco from lists of annotations, which they index before they
evaluate. IoU is of 5,000 x 5,000 boxes and masks of one image; the evaluator's own looks for pairs
of at least 0.5. All take turns in one process, so nothing else should run on the machine; the
fastest turn counts. The numbers of the evaluators must be equal.
"""

import argparse
import contextlib
import io
import time
from functools import partial

import keras
import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as rle

from cvlib import boxes, masks
from cvlib.metrics.average_precision import MeanAveragePrecision
from cvlib.metrics.matching import overlapping
from cvlib.records import record

try:
    import hotcoco
except ImportError as error:
    hotcoco = None
    print(f"hotcoco is left out: {error}.")

CLASSES = 80
SIZE = 640
BATCH = 32
STATS = (
    *("mAP", "AP50", "AP75", "mAP_small", "mAP_medium", "mAP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


def random_boxes(rng, n):
    """(n, 4) xyxy, 7 to 200 pixels wide and high."""
    corner = rng.uniform(0, SIZE - 200, (n, 2))
    return np.hstack([corner, corner + np.exp(rng.uniform(2, 5.3, (n, 2)))])


def random_image(rng):
    """Objects of three classes; two detections of three are near an object, most with its class."""
    classes = rng.choice(CLASSES, 3)
    n, m = 1 + rng.poisson(6), rng.integers(30, 101)
    objects = {"boxes": random_boxes(rng, n), "labels": rng.choice(classes, n)}
    source, near = rng.integers(0, n, m), rng.random(m) < 2 / 3
    start, end = np.split(objects["boxes"][source], 2, axis=1)
    moved = np.hstack([start, end]) + np.tile(end - start, 2) * rng.normal(0, 0.08, (m, 4))
    found = np.where(near[:, None], moved, random_boxes(rng, m))
    known = near & (rng.random(m) < 0.8)
    labels = np.where(known, objects["labels"][source], rng.choice(classes, m))
    confidence = (rng.random(m) + known) / 2
    return objects, {"boxes": found, "labels": labels, "confidence": confidence}


def padded(images):
    """A batch of images as padded arrays."""
    length = max(len(image["labels"]) for image in images)
    batch = {
        k: np.full((len(images), length, *v.shape[1:]), -1, v.dtype) for k, v in images[0].items()
    }
    for i, image in enumerate(images):
        for key, rows in image.items():
            batch[key][i, : len(rows)] = rows
    return batch


def annotations(images):
    """COCO's list of annotations or results."""
    rows = []
    for i, image in enumerate(images):
        extent = image["boxes"][:, 2:] - image["boxes"][:, :2]
        columns = np.hstack([image["boxes"][:, :2], extent]).tolist(), image["labels"].tolist()
        for j, (box, label) in enumerate(zip(*columns, strict=True)):
            row = {"id": len(rows) + 1, "image_id": i + 1, "category_id": label + 1, "bbox": box}
            row |= {"area": box[2] * box[3], "iscrowd": 0}
            if "confidence" in image:
                row["score"] = float(image["confidence"][j])
            rows.append(row)
    return rows


def seconds(rounds, **peers):
    """The fastest of `rounds` turns of each peer, and what it returned last."""
    times, results = {name: [] for name in peers}, {}
    for _ in range(rounds):
        for name, work in peers.items():
            start = time.perf_counter()
            results[name] = work()
            times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}, results


def evaluators(num_images, rounds):
    """Seconds of the evaluators on one set of detections, on which they must agree."""
    rng = np.random.default_rng(0)
    truth, found = zip(*(random_image(rng) for _ in range(num_images)), strict=True)
    starts = range(0, num_images, BATCH)
    batches = [(padded(truth[i : i + BATCH]), padded(found[i : i + BATCH])) for i in starts]
    dataset = {
        "images": [{"id": i + 1, "height": SIZE, "width": SIZE} for i in range(num_images)],
        "categories": [{"id": c + 1, "name": str(c)} for c in range(CLASSES)],
        "annotations": annotations(truth),
    }
    results = annotations(found)
    peers = {"faster-coco-eval": (COCO, COCOeval_faster)}
    if hotcoco:
        peers["hotcoco"] = hotcoco.COCO, hotcoco.COCOeval
    indexed = {}

    def cvlib():
        metric = MeanAveragePrecision(CLASSES, style="coco")
        for y_true, y_pred in batches:
            metric.update_state(y_true, y_pred)
        return metric.result()

    def index(peer):
        truth = peers[peer][0](dataset)
        indexed[peer] = truth, truth.loadRes([row.copy() for row in results])

    def evaluate(peer):
        evaluation = peers[peer][1](*indexed[peer], "bbox")
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation.stats[:12]

    work = {f"{peer} {f.__name__}": partial(f, peer) for peer in peers for f in (index, evaluate)}
    times, outcome = seconds(rounds, cvlib=cvlib, **work)
    ours = [outcome["cvlib"][k] for k in STATS]
    for peer in peers:
        np.testing.assert_allclose(ours, outcome[f"{peer} evaluate"], atol=1e-6)
    return {
        **{f"mAP {name} s": value for name, value in times.items()},
        "mAP ratio": times["faster-coco-eval evaluate"] / times["cvlib"],
    }


def ious(count, rounds):
    """Seconds of the IoU of all pairs of `count` boxes and of as many masks."""
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, count), random_boxes(rng, count)
    rows = [{"image": np.zeros(count, int), "boxes": x, "labels": x[:, 0]} for x in (a, b)]
    xywh = [np.hstack([x[:, :2], x[:, 2:] - x[:, :2]]) for x in (a, b)]
    octagons = [[masks.from_polygons([octagon(box)], SIZE, SIZE) for box in x] for x in (a, b)]
    no_crowd = [0] * count
    times, _ = seconds(
        rounds,
        boxes=lambda: keras.ops.convert_to_numpy(boxes.iou(a, b)),
        pairs=lambda: overlapping(*rows, "image", 0.5),
        boxes_peer=lambda: rle.iou(*xywh, no_crowd),
        masks=lambda: masks.iou(*octagons),
        masks_peer=lambda: rle.iou(*octagons, no_crowd),
    )
    return {
        "box IoU cvlib.boxes s": times["boxes"],
        "box IoU evaluator s": times["pairs"],
        "box IoU pycocotools s": times["boxes_peer"],
        "box IoU ratio": times["boxes_peer"] / times["pairs"],
        "mask IoU cvlib s": times["masks"],
        "mask IoU pycocotools s": times["masks_peer"],
        "mask IoU ratio": times["masks_peer"] / times["masks"],
    }


def octagon(box):
    """The box without its corners, as a polygon `[x1, y1, x2, y2, ...]`."""
    (x1, y1), (x2, y2) = box[:2], box[2:]
    x, y = (x2 - x1) / 4, (y2 - y1) / 4
    corners = [(x1 + x, y1), (x2 - x, y1), (x2, y1 + y), (x2, y2 - y)]
    corners += [(x2 - x, y2), (x1 + x, y2), (x1, y2 - y), (x1, y1 + y)]
    return np.ravel(corners).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each peer")
    arguments = parser.parse_args()
    metrics = evaluators(arguments.images, arguments.rounds)
    metrics |= ious(5000, arguments.rounds)
    for name, value in metrics.items():
        print(f"{name:<34}{value:9.3f}")
    record(
        system="average_precision",
        chapter="05",
        metrics=metrics,
        data="random detections",
        settings={"images": arguments.images, "classes": CLASSES},
    )


if __name__ == "__main__":
    main()
