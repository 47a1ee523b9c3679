"""The command `cvlib`: train a system on a folder of annotated photographs, use and measure it.

cvlib train faster_rcnn --data voc:FOLDER --out model.keras
cvlib predict model.keras photo.jpg ... --out folder
cvlib evaluate model.keras --data voc:FOLDER --split test
"""

import argparse
import itertools
import json
import math
import os
import shutil
import sys
import warnings
from pathlib import Path

import absl.logging
import numpy as np
from PIL import Image

from cvlib import masks
from cvlib.data import DataError, MissingSplit, load
from cvlib.data.augment import Augment, letterbox, view_geometry
from cvlib.data.sample import read_image
from cvlib.data.scenes import segmentation_classes
from cvlib.records import write_atomically

EPOCHS = 24
# As in its paper: a weight for each place of the image takes long to learn.
YOLO_EPOCHS = 135
GRIDS = (7, 10, 14)  # of YOLO; what a finer one says takes many more weights
CROWD = 30  # objects in a picture; of more the masks alone are drawn
SAMPLES = 300  # images that are looked at to choose the size and the anchors or the grid
DRAWN = 8  # images of the validation in the picture at the end


def main(argv=None):
    """Runs one command.

    Returns:
        The exit status: 0, 1 after a sentence on what is wrong, or 130 after an interruption.
        (Wrong arguments leave by argparse, with 2.)
    """
    args = parser().parse_args(argv)
    # What TensorFlow and grain log about the machine says nothing about the command.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        with warnings.catch_warnings():
            # A sentence without the line of code, and once for all splits.
            warnings.simplefilter("once", append=True)
            warnings.showwarning = lambda message, *_, **__: print(
                f"cvlib: {message}", file=sys.stderr
            )
            return args.run(args) or 0
    except (ImportError, OSError, ValueError) as error:
        print(f"cvlib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from here" if args.run is train else ""
        print(f"\ncvlib: interrupted{goes_on}.", file=sys.stderr)
        return 130


def parser():
    parser = argparse.ArgumentParser("cvlib", description=__doc__.partition("\n\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data = "voc:FOLDER, coco:FOLDER, coco:FILE.json, tfds:NAME or scenes"

    command = commands.add_parser("train", help="train a system on annotated images")
    command.set_defaults(run=train)
    command.add_argument(
        "system",
        choices=SYSTEMS,
        help="boxes: faster_rcnn, yolo; boxes and masks: cascade; classes of pixels: fcn",
    )
    command.add_argument("--data", required=True, help=data)
    command.add_argument("--out", required=True, type=Path, help="the .keras file to write")
    command.add_argument("--split", default="train", help="what it learns from (%(default)s)")
    command.add_argument("--validation", default="val", help="what it is measured on (%(default)s)")
    command.add_argument(
        "--classes", nargs="+", metavar="NAME", help="objects of these alone (all of them)"
    )
    command.add_argument("--backbone", default="mobilenet", help="tiny, mobilenet, vgg16, resnet50")
    command.add_argument(
        "--weights",
        help="imagenet (downloaded once) or a file of them; of tiny its own, scenes",
    )
    command.add_argument("--alpha", type=float, default=1.0, help="MobileNet's width (%(default)s)")
    command.add_argument(
        "--side", type=int, default=480, help="of the images, at most (%(default)s)"
    )
    command.add_argument(
        "--epochs", type=int, help=f"passes over the images ({EPOCHS}; of YOLO {YOLO_EPOCHS})"
    )
    command.add_argument(
        "--batch-size", type=int, default=4, help="images of a training step (%(default)s)"
    )
    command.add_argument(
        "--rate", type=float, default=3e-4, help="learning rate, falls to 0 (%(default)s)"
    )
    command.add_argument("--seed", type=int, default=0, help="of all that is random (%(default)s)")
    command.add_argument("--skip", action="store_true", help="leave out what is faulty")

    command = commands.add_parser("predict", help="find objects in image files")
    command.set_defaults(run=predict)
    command.add_argument("model", type=Path, help=".keras file")
    command.add_argument("images", nargs="+", help="image files")
    command.add_argument("--out", required=True, type=Path, help="folder for what is found")
    command.add_argument(
        "--confidence", type=float, default=0.5, help="drawn from (%(default)s) on"
    )

    command = commands.add_parser("evaluate", help="measure a system on annotated images")
    command.set_defaults(run=evaluate)
    command.add_argument("model", type=Path, help=".keras file")
    command.add_argument("--data", required=True, help=data)
    command.add_argument("--split", default="test", help="what it is measured on (%(default)s)")
    command.add_argument("--skip", action="store_true", help="leave out what is faulty")
    return parser


def train(args):
    """`cvlib train`: chooses image size, anchors or grid from the data, trains, saves, measures."""
    import keras

    from cvlib.data import batches
    from cvlib.models import backbone

    if args.out.suffix != ".keras":
        raise ValueError(f"{args.out}: the file is a .keras.")
    args.epochs = epochs_of(args.system) if args.epochs is None else args.epochs
    if args.epochs < 1:
        raise ValueError(f"--epochs {args.epochs}: at least 1.")
    on_error = "skip" if args.skip else "raise"
    if args.classes and args.system == "fcn":
        raise ValueError("--classes: fcn learns all classes of pixels.")
    training = _load_images(args.data, args.split, on_error, args.classes)
    try:
        validation = _load_images(args.data, args.validation, on_error, args.classes)
    except MissingSplit:
        training, validation = training.hold_out(0.15)
        if not len(training) or not len(validation):
            raise ValueError(f"{args.data}: one image is too few to keep any apart.") from None
        print(f"There is no split {args.validation}: a part of {args.split} is kept apart for it.")
    print(f"{len(training)} images to learn from, {len(validation)} to measure on.")

    keras.utils.set_random_seed(args.seed)
    sizes, boxes = look(training)
    size = image_size(sizes, args.side)
    print(f"Images are resized to {size[1]}x{size[0]}, with their proportions kept.")
    weights = args.weights or ("scenes" if args.backbone == "tiny" else "imagenet")
    trunk = backbone(args.backbone, weights, args.alpha)
    system = SYSTEMS[args.system](trunk, training, size, resized(boxes, sizes, size))

    augment = Augment(scale=(0.7, 1.3), brightness=0.2, contrast=0.2, saturation=0.2)
    backup = args.out.with_suffix(".backup")
    _check_settings(backup, {k: str(v) for k, v in vars(args).items() if k != "run"})
    stream = batches(
        training,
        args.batch_size,
        size,
        targets=next((k for k in ("segmentation", "masks") if k in system.detections), "boxes"),
        max_objects=max(1, max(map(len, boxes))),
        augment=augment,
        # What goes on is to see other crops and another order than the first epochs did.
        seed=args.seed + _epochs_done(backup),
        resize="pad",
    )
    steps = args.epochs * stream.steps_per_epoch
    # Without a bound one bad batch of a small set may ruin what was learned.
    rate = keras.optimizers.schedules.CosineDecay(args.rate, steps)
    system.compile(keras.optimizers.Adam(rate, global_clipnorm=10.0))
    system.fit(
        stream,
        epochs=args.epochs,
        callbacks=[
            keras.callbacks.BackupAndRestore(
                backup, double_checkpoint=True, delete_checkpoint=False
            )
        ],
    )
    system.save(args.out)
    shutil.rmtree(backup)
    print(f"{args.out}: saved.")
    samples, found = detect(system, validation)
    report(samples, found, system.classes)
    picture = args.out.with_suffix(".png")
    first = samples[:DRAWN]
    draw(first, found[:DRAWN], system.classes, picture, columns=4)
    print(f"{picture}: what it finds in the first {len(first)} images of {args.validation}.")


def predict(args):
    """`cvlib predict`: an annotated picture of each image, and `detections.json`; or, of a system
    that says the class of every pixel, a picture whose values are the classes.

    Returns:
        The exit status: 1 where an image cannot be read, which is said; the others are done.
    """
    pictures = pictures_of(args.images, args.out)
    system = _load(args.model)
    of_pixels = "segmentation" in system.detections
    names = system.classes
    if of_pixels and len(names) != (count := system.get_config()["num_classes"]):
        # Trained elsewhere, it may know the names of objects alone, or none.
        names = [f"class {value}" for value in range(count)]
    files = [Path(name).name for name in args.images]
    results, status = [], 0
    try:
        for name, file, picture in zip(args.images, files, pictures, strict=True):
            try:
                image = read_image(name)
            except DataError as error:
                print(f"cvlib: {error}", file=sys.stderr)
                status = 1
                continue
            found = _each(system.predict([image]))[0]
            if of_pixels:
                _write_pixels(image, found, names, picture)
                continue
            shown = found["confidence"] >= args.confidence
            drawn = {key: values[shown] for key, values in found.items()}
            draw([{"image": image}], [drawn], names, picture)
            image_id = name if files.count(file) > 1 else file
            results += as_coco(image_id, found, names, image.shape[:2])
            print(f"{picture}: {shown.sum()} objects.")
    finally:  # What was found until an interruption is kept.
        if not of_pixels:
            path = args.out / "detections.json"
            write_atomically(path, json.dumps(results, indent=1) + "\n")
            print(f"{path}: {len(results)} detections in COCO's format of results.")
    return status


def pictures_of(images, folder):
    """A PNG in `folder` for each of the image files, of different names.

    Raises:
        ValueError: one is an image itself, and would be overwritten.
    """
    given = {os.path.realpath(name) for name in images}
    taken, pictures = set(), []
    for name in images:
        # Two folders may hold images of one name; some systems write two pictures.
        stem = Path(name).stem
        candidates = itertools.chain([stem], (f"{stem}_{n}" for n in itertools.count(1)))
        pairs = ([f"{each}.png", f"{each}_classes.png"] for each in candidates)
        pair = next(pair for pair in pairs if not {each.lower() for each in pair} & taken)
        taken |= {each.lower() for each in pair}
        for path in (folder / each for each in pair):
            if os.path.realpath(path) in given:
                raise ValueError(f"{path}: would be overwritten, give another folder as --out.")
        pictures.append(folder / pair[0])
    return pictures


def evaluate(args):
    """`cvlib evaluate`: average precision by VOC's and COCO's rules, and the kinds of errors; or
    the IoU of each class of pixels."""
    system = _load(args.model)
    dataset = _load_images(args.data, args.split, "skip" if args.skip else "raise")
    of_pixels = "segmentation" in system.detections
    classes = pixel_classes(dataset) if of_pixels else dataset.classes
    known = system.classes or classes
    if known != classes:
        if of_pixels or not set(known) <= set(classes):
            names, others = ", ".join(known), ", ".join(classes)
            raise ValueError(f"{args.model} knows {names}, and {args.data} is of {others}.")
        print(f"Counted are the objects of {', '.join(known)} alone.")
        dataset = dataset.of_classes(known)
    report(*detect(system, dataset), known)


def faster_rcnn(trunk, dataset, size, boxes):
    """A Faster R-CNN with anchors for `boxes`, (N, 4) each, in pixels of images of `size`."""
    from cvlib.models import FasterRCNN

    return FasterRCNN(trunk, len(dataset.classes), size, **anchors(boxes))


def anchors(boxes):
    """As `choose_anchors` for `boxes`, (N, 4) each; it says what it chose."""
    boxes = np.concatenate(boxes)
    chosen = choose_anchors(boxes)
    sizes, ratios, feature_map = chosen.values()
    covered = np.mean(centred_iou(boxes, sizes, ratios) >= 0.5)
    print(
        f"Anchors have sides of {', '.join(map(str, sizes))} pixels and heights of "
        f"{', '.join(map(str, ratios))} times their widths, on the map of {feature_map}; "
        f"{100 * covered:.0f} % of the objects have one of nearly their form (IoU of 0.5)."
    )
    return chosen


def cascade(trunk, dataset, size, boxes):
    """A multi-task cascade for `boxes`, (N, 4) each, in pixels of images of `size`."""
    from cvlib.models import MultiTaskCascade

    # The fullest image may not be among those that were looked at.
    room = max(100, round(1.2 * max(map(len, boxes))))
    print(f"At most {room} objects of an image are found.")
    return MultiTaskCascade(
        trunk,
        len(dataset.classes),
        size,
        post_nms=max(300, 2 * room),
        nms={"max_detections": room},
        **anchors(boxes),
    )


def yolo(trunk, dataset, size, boxes):
    """A YOLO with cells for `boxes`, (N, 4) each, in pixels of images of `size`."""
    from cvlib.models import YOLO

    grid, answered = choose_grid(boxes, size)
    print(
        f"The grid has {grid} x {grid} cells. A cell answers for one object: "
        f"{100 * answered:.0f} % of the objects have one that does."
    )
    # Few channels at last: the head has a weight for each number of the map and each of its units.
    return YOLO(trunk, len(dataset.classes), size, grid, convolutions=(256, 64))


def fcn(trunk, dataset, size, boxes):
    """An FCN-8s for the classes of the pixels; `boxes` are not needed."""
    from cvlib.models import FCN

    classes = pixel_classes(dataset)
    print(f"Each pixel is of one of {len(classes)} classes: {', '.join(classes)}.")
    return FCN(trunk, len(classes), size, stride=8, classes=classes)


SYSTEMS = {"faster_rcnn": faster_rcnn, "yolo": yolo, "cascade": cascade, "fcn": fcn}


def epochs_of(system):
    """Passes over the images that a system of `SYSTEMS` is given."""
    return YOLO_EPOCHS if system == "yolo" else EPOCHS


def pixel_classes(dataset):
    """The names of the values of `segmentation`, in a tuple.

    Raises:
        ValueError: the samples have no `segmentation`, or nothing says what its values mean.
    """
    source, _, variant = dataset.name.partition(":")
    sample = dataset[0] if len(dataset) else {}
    if "segmentation" not in sample or source == "tfds":
        raise ValueError(
            f"{dataset.name}, split {dataset.split}: not every image has a named class for each of "
            "its pixels, as a PNG in SegmentationClass says it. VOC's own lists of those that have "
            "one are called Segmentation/train, Segmentation/val and so on."
        )
    if source == "scenes":
        return segmentation_classes(variant)
    return (*(["background"] if "boxes" in sample else []), *dataset.classes)


def look(dataset):
    """Sizes (height, width) of some of the images, and a list of the boxes in each."""
    sizes, boxes = [], []
    for sample in dataset.some(SAMPLES):
        sizes.append(sample["image"].shape[:2])
        boxes.append(sample.get("boxes", np.zeros((0, 4), np.float32)))
    return sizes, boxes


def image_size(sizes, side):
    """(height, width) of the typical proportions of `sizes`, multiples of 32, at most `side`."""
    height, width = np.median(sizes, axis=0)
    scale = min(1.0, side / max(height, width))
    return tuple(max(1, round(scale * length / 32)) * 32 for length in (height, width))


def resized(boxes, sizes, size):
    """The boxes of each image, (N, 4), when it is letterboxed into `size`."""
    moved = []
    for each, (height, width) in zip(boxes, sizes, strict=True):
        x, y, *_ = view_geometry(letterbox((0, 0, width, height), size), size)
        moved.append(each * np.float32([x, y, x, y]))
    return moved


def choose_grid(boxes, size):
    """The coarsest grid whose cells answer for nearly all objects, and the share that they do.

    Args:
        boxes: of each image, (N, 4).
        size: (height, width) of the images.
    """
    objects = sum(map(len, boxes))
    if not objects:
        raise ValueError("No image has an object to learn from.")
    for grid in GRIDS:
        side = np.divide(size[::-1], grid)
        taken = [np.unique((b[:, :2] + b[:, 2:]) / 2 // side, axis=0) for b in boxes]
        answered = sum(map(len, taken)) / objects
        if answered >= 0.95:
            break
    return grid, answered


def choose_anchors(boxes):
    """`sizes` and `ratios` of anchors that span those of `boxes` (N, 4), and their `feature_map`.

    There are three sizes, more where neighbours would be over 2.5 times apart, and up to three
    ratios (height / width). The map is that of stride 16, as in the papers, unless most objects are
    smaller than one and a half of its cells: a finer map comes from fewer layers, and in a trial
    photographs of everyday things taught a detector on it next to nothing.

    Returns:
        A dict, as `FasterRCNN` and the systems built on it take them.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    sides = sides[(sides > 1).all(axis=1)]
    if not len(sides):
        raise ValueError("No image has an object of more than one pixel to learn from.")
    small, typical, large = np.quantile(np.sqrt(sides.prod(axis=1)), (0.1, 0.5, 0.9))
    wide, tall = np.quantile(sides[:, 1] / sides[:, 0], (0.1, 0.9))
    number = max(3, 1 + math.ceil(math.log(large / small, 2.5)))
    sizes = np.unique(np.geomspace(small, large, number).round())
    ratios = np.unique(np.geomspace(wide, tall, 3).round(2).clip(0.01))
    return {
        "sizes": tuple(map(int, sizes)),
        "ratios": tuple(map(float, ratios)),
        "feature_map": "stride16" if typical >= 24 else "stride8",
    }


def centred_iou(boxes, sizes, ratios):
    """(N,) IoU of each box with the most alike of the anchors that has its centre."""
    size, ratio = (x.ravel() for x in np.meshgrid(sizes, np.sqrt(ratios)))
    anchors = np.stack([size / ratio, size * ratio], axis=-1)
    sides = boxes[:, None, 2:] - boxes[:, None, :2]
    shared = np.minimum(sides, anchors).prod(axis=-1)
    return (shared / (sides.prod(axis=-1) + anchors.prod(axis=-1) - shared)).max(axis=1)


def detect(system, dataset, count=32):
    """The samples of a dataset and what a system finds in each, in pixels of the images.

    All but the first `DRAWN` samples are without their images, which would fill the memory.
    """
    samples, found = [], []
    for start in range(0, len(dataset), count):
        part = list(dataset[start : start + count])
        found += _each(system.predict([sample["image"] for sample in part]))
        for sample in part:
            more = len(samples) >= DRAWN
            samples.append({k: v for k, v in sample.items() if not (more and k == "image")})
    return samples, found


def report(samples, found, classes):
    """Prints average precision by both rules, of each class too, and the kinds of errors; of
    classes of pixels their IoU."""
    from keras import ops

    from cvlib.metrics import MeanAveragePrecision, MeanIoU, error_breakdown

    number = len(classes)
    if "segmentation" in found[0]:
        metric = MeanIoU(number)
        for sample, its in zip(samples, found, strict=True):
            metric.update_state(sample["segmentation"][None], its["segmentation"][None])
        print(f"mIoU: {float(metric.result()):.3f}")
        print(f"pixel accuracy: {float(metric.pixel_accuracy()):.3f}")
        _print_each(classes, ops.convert_to_numpy(metric.per_class()), "no pixel")
        return
    results = {}
    for name, style in (("mAP@0.5, VOC 2007", "voc2007"), ("mAP, COCO", "coco")):
        metric = MeanAveragePrecision(number, style=style)
        metric.update_state(samples, found)
        results[name] = metric.result()
        print(f"{name}: {results[name]['mAP']:.3f}")
    if "masks" in found[0] and "masks" in samples[0]:
        for threshold in (0.5, 0.7):
            metric = MeanAveragePrecision(number, "voc2010", "masks", threshold)
            metric.update_state(samples, found)
            print(f"mAPr@{threshold}, of masks: {metric.result()['mAP']:.3f}")
    _print_each(classes, results["mAP@0.5, VOC 2007"]["AP"], "no object")
    counts = error_breakdown(samples, found, number)["counts"]
    print("Of the detections from 0.5 on, and the objects: " + _listed(counts))


def draw(samples, found, classes, path, columns=1):
    """Writes a picture of images, their objects (dashed, where known) and detections, or of the
    classes of their pixels."""
    import matplotlib

    matplotlib.use("agg")
    from cvlib import plots

    if "segmentation" in found[0]:
        # The first class has no colour: what lies below shows through.
        shown, kinds, classes = found, ("segmentation",), classes[1:]
    else:
        surest = [{k: v[d["confidence"] >= 0.5] for k, v in d.items()} for d in found]
        shown = found if columns == 1 else surest
        # Names beside hundreds of masks would hide them.
        kinds = ("masks",) if max(len(d["boxes"]) for d in shown) > CROWD else ("masks", "boxes")
        kinds = kinds if "masks" in shown[0] else None
    figure = plots.show(samples, kinds, shown, classes, columns=columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200)
    matplotlib.pyplot.close(figure)


def _write_pixels(image, found, names, picture):
    draw([{"image": image}], [found], names, picture)
    path = picture.with_stem(f"{picture.stem}_classes")
    write_classes(path, found["segmentation"], len(names))
    present = [names[value] for value in np.unique(found["segmentation"])]
    print(f"{picture}, {path}: {', '.join(present)}.")


def write_classes(path, segmentation, number):
    """Writes classes of pixels as VOC does: a PNG whose values they are, with a colour for each."""
    from matplotlib.colors import to_rgb

    from cvlib import plots

    colors = [(0, 0, 0), *(to_rgb(plots.color(value)) for value in range(number - 1))]
    image = Image.fromarray(segmentation)
    image.putpalette((255 * np.array(colors)).round().astype(np.uint8).tobytes())
    image.save(path)


def as_coco(image_id, found, classes, size):
    """Detections in an image of `size` as COCO's results: a dict for each, boxes as x, y, width,
    height, masks run-length encoded."""
    corner, end = np.split(found["boxes"], 2, axis=-1)
    boxes = np.concatenate([corner, end - corner], axis=-1).round(2).tolist()
    results = [
        {
            "image_id": image_id,
            "category_id": int(label) + 1,
            "category": classes[label] if len(classes) else str(label),
            "bbox": box,
            "score": round(float(confidence), 5),
        }
        for box, label, confidence in zip(boxes, found["labels"], found["confidence"], strict=True)
    ]
    if "masks" in found:
        pasted = masks.paste(found["masks"], found["boxes"], *size)
        for result, mask in zip(results, pasted, strict=True):
            result["segmentation"] = {**mask, "counts": mask["counts"].decode("ascii")}
    return results


def _each(detections):
    """A list of the detections of each image, without padding."""
    if "segmentation" in detections:
        return [{"segmentation": values} for values in detections["segmentation"]]
    # Not what is said of the whole image.
    kinds = detections.keys() & {"boxes", "confidence", "labels", "masks"}
    arrays = {key: detections[key] for key in kinds}
    counts = detections["num_detections"]
    return [{k: v[i][:n] for k, v in arrays.items()} for i, n in enumerate(counts)]


def _print_each(classes, values, missing):
    for name, value in zip(classes, values, strict=True):
        print(f"  {name}: {missing if np.isnan(value) else format(value, '.3f')}")


def _listed(counts):
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) + "."


def _load_images(data, split, on_error, classes=None):
    dataset = load(data, split, on_error)
    dataset = dataset.of_classes(classes) if classes else dataset
    if not len(dataset):
        raise ValueError(f"{dataset.name}: the split {split} has no image.")
    return dataset


def _load(path):
    from cvlib.models.system import System

    system = System.load(path)
    if isinstance(system.input, dict):
        others = ", ".join(key for key in system.input if key != "images")
        raise ValueError(f"{path}: a {type(system).__name__} is given {others} besides the images.")
    return system


def _check_settings(backup, settings):
    """Raises ValueError where `backup` is of a training with other settings, or of none; else it
    goes on."""
    path = backup / "settings.json"
    if not path.exists():
        if backup.exists() and any(backup.iterdir()):
            raise ValueError(f"{backup}: is not ours, and would be deleted; name another --out.")
        write_atomically(path, json.dumps(settings) + "\n")
    elif (begun := json.loads(path.read_text("utf-8"))) != settings:
        other = [key for key in settings if begun.get(key) != settings[key]]
        raise ValueError(
            f"{backup}: holds a training begun with another {', '.join(other)}: "
            "give the same to go on, or delete the folder."
        )
    else:
        print(f"{backup}: the training goes on.")


def _epochs_done(backup):
    """How many epochs of an interrupted training are kept in `backup`, by Keras's callback; what it
    did not finish writing gives way to what it had written before, if anything."""
    files = [backup / name for name in ("training_metadata.json", "latest.weights.h5")]
    for _ in range(2):
        try:
            return json.loads(files[0].read_text("utf-8"))["epoch"]
        except (OSError, ValueError):
            for path in files:
                if (before := path.with_name(f"{path.name}.bkp")).exists():
                    os.replace(before, path)
                else:
                    path.unlink(missing_ok=True)
    return 0
