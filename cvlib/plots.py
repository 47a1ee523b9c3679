"""Every picture of the course: images with their annotations, and charts.

Class `i` has the colour `color(i)` in every picture. What is true is dashed black and white, what a
system predicts is solid in the colour of its class. Coordinates are continuous pixels, as
everywhere in `cvlib`: pixel `(row, column)` covers `[column, column + 1] x [row, row + 1]`.

Figures are 7 inches wide, 700 pixels in a notebook, and are returned closed: a notebook displays
one once, as the last value of a cell, and `figure.savefig` writes it in any format.
"""

import contextlib
import functools
import math
import warnings
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from cvlib import masks as mask_ops

# Okabe and Ito (2008) and one wine red: told apart by readers with any common colour blindness.
# Yellow comes last because lines of it are hard to see on white.
PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#882255",
    "#F0E442",
)
# Tol (2021), the pale scheme: ground without objects, behind the strong colours of the classes.
PALE = ("#BBCCEE", "#CCEEFF", "#CCDDAA", "#EEEEBB", "#FFCCCC", "#DDDDDD")
MARKERS = "osD^vP*X"
VOID = 255
CROWD = 50  # masks in a picture; the outlines of more are thin, or they would hide them
# What detections and samples hold of each object, and of the picture.
OF_OBJECTS = ("boxes", "labels", "confidence", "masks", "keypoints")
OF_PICTURES = ("segmentation", "label", "num_detections")


def color(index):
    """The colour of class or series `index`, as a hexadecimal string.

    After eight come their lighter shades, then their darker ones, and after 24 they repeat.
    """
    return _shade(PALETTE[index % len(PALETTE)], index // len(PALETTE), 0.5)


def _shade(paint, number, strength):
    """A colour itself, lighter or darker, where `number` is 0, 1 or 2, and so on from there."""
    ground = (to_rgb(paint), (1, 1, 1), (0, 0, 0))[number % 3]
    return to_hex((1 - strength) * np.array(to_rgb(paint)) + strength * np.array(ground)).upper()


def panels(rows=1, columns=1, height=3.0, width=7.0, **options):
    """A closed figure with a grid of axes.

    Args:
        rows, columns: the grid.
        height, width: of the whole figure, in inches.
        **options: for `matplotlib.pyplot.subplots`.

    Returns:
        `(figure, axes)`, where `axes` is a flat list of `rows * columns` Axes.
    """
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width, height),
        layout="constrained",
        squeeze=False,
        **options,
    )
    plt.close(figure)
    return figure, list(axes.flat)


def show(
    pictures,
    draw=None,
    predictions=None,
    classes=(),
    limbs=(),
    titles=None,
    columns=4,
    width=7.0,
    stuff=(),
):
    """A grid of pictures with their annotations.

    Args:
        pictures: sequence of samples (`cvlib.data.load`) or of images (H, W, 3), see `draw_image`.
        draw: which keys to draw, of `"boxes"`, `"masks"`, `"keypoints"`, `"segmentation"`, and
            `"label"`, the class of the whole image, as title. A key that a sample lacks is left
            out. By default the boxes, and where there are none, all that there is.
        predictions: what `predict` returned for the pictures, or one dict of detections for each.
            They are drawn solid; the samples' own annotations are then the truth and dashed, but
            for a segmentation, of which only the predicted one is drawn.
        classes: class names, to write beside the boxes and in the legend of a segmentation; by
            default those that the predictions name.
        limbs: pairs of keypoint indices to join.
        titles: one string per picture.
        columns: pictures in a row, at most.
        width: of the figure, in inches.
        stuff: names of the values of `segmentation` that follow those of the classes.

    Returns:
        The Figure.

    Raises:
        ValueError: there is no picture or no column, there are predictions or titles for another
            number of pictures, or a mask or segmentation is not of its picture's size.
    """
    samples = [p if isinstance(p, dict) else {"image": p} for p in pictures]
    classes = classes if len(classes) else getattr(predictions, "classes", ())
    predictions = None if predictions is None else _by_picture(predictions)
    if not samples or columns < 1:
        raise ValueError(f"There are {len(samples)} pictures to show in {columns} columns.")
    for name, given in (("predictions", predictions), ("titles", titles)):
        if given is not None and len(given) != len(samples):
            raise ValueError(f"There are {len(samples)} pictures, but {name} for {len(given)}.")
    drawn = samples if predictions is None else predictions
    if draw is None:
        held = [k for k in ("segmentation", "masks", "keypoints", "label") if k in drawn[0]]
        draw = ("boxes",) if "boxes" in drawn[0] else held
    columns = min(columns, len(samples))
    rows = math.ceil(len(samples) / columns)
    aspect = max(s["image"].shape[0] / s["image"].shape[1] for s in samples)
    title_height = 0.25 if titles is not None or "label" in draw else 0.05
    height = rows * (width / columns * aspect + title_height)
    figure, axes = panels(rows, columns, height, width)
    for i, axis in enumerate(axes):
        axis.axis("off")
        if i >= len(samples):
            continue
        draw_image(axis, samples[i]["image"])
        if predictions is None:
            annotate(axis, samples[i], draw, classes, limbs)
        else:
            of_truth = [k for k in draw if k != "segmentation" or k not in predictions[i]]
            annotate(axis, samples[i], of_truth, classes, limbs, truth=True)
            annotate(axis, predictions[i], draw, classes, limbs)
        if titles is not None:
            _title(axis, titles[i])
    if "segmentation" in draw and len(classes):
        values = [np.unique(d["segmentation"]) for d in drawn if "segmentation" in d]
        _draw_legend(figure, np.unique(np.concatenate([[0], *values])), classes, stuff)
    return figure


def _by_picture(predictions):
    """One dict for each picture of what `predict` returns, arrays for all pictures together."""
    if not isinstance(predictions, dict):
        return list(predictions)
    arrays = {k: predictions[k] for k in (*OF_OBJECTS, *OF_PICTURES) if k in predictions}
    number = len(next(iter(arrays.values())))
    return [{key: array[i] for key, array in arrays.items()} for i in range(number)]


def draw_image(axes, image):
    """The image with continuous pixel coordinates, axes hidden.

    Args:
        axes: where to draw.
        image: (H, W, 3), or grey (H, W) or (H, W, 1), in 0..255; floats none of which exceeds 1 are
            taken for 0..1.
    """
    image = np.asarray(image)
    if image.dtype.kind == "f" and image.max() <= 1:
        image = image * 255
    height, width = image.shape[:2]
    pixels = np.clip(image, 0, 255).astype("uint8")
    axes.imshow(pixels, "gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    axes.autoscale(False)  # What lies outside of the image must not shrink it.
    axes.axis("off")


def annotate(axes, sample, draw, classes=(), limbs=(), truth=False):
    """Draws the annotations `draw` of one sample, or of one prediction, over its image."""
    sample = _without_padding(sample)
    labels = sample.get("labels")
    if "segmentation" in draw and "segmentation" in sample:
        draw_segmentation(axes, sample["segmentation"], len(classes) or VOID)
    if "masks" in draw and "masks" in sample:
        draw_masks(axes, sample["masks"], labels, sample.get("boxes"), truth)
    if "boxes" in draw and "boxes" in sample:
        draw_boxes(axes, sample["boxes"], labels, sample.get("confidence"), classes, truth)
    if "keypoints" in draw and "keypoints" in sample:
        draw_keypoints(axes, sample["keypoints"], limbs, truth)
    if "label" in draw and "label" in sample:
        _title(axes, _name(classes, sample["label"]))


def _without_padding(sample):
    """The sample or prediction without the rows that are labelled -1 or beyond its detections."""
    if "labels" not in sample:
        return sample
    labels = np.asarray(sample["labels"])[: sample.get("num_detections")]
    rows = np.flatnonzero(labels >= 0)
    if len(rows) == len(sample["labels"]):
        return sample
    return sample | {k: [sample[k][i] for i in rows] for k in OF_OBJECTS if k in sample}


def draw_boxes(axes, boxes, labels=None, confidence=None, classes=(), truth=False):
    """Boxes (N, 4), xyxy; rows with the label -1 are padding.

    Args:
        axes: where to draw, with an image.
        boxes: (N, 4), xyxy.
        labels: (N,) class indices; without them every box has the first colour.
        confidence: (N,) in 0..1, written beside the class.
        classes: class names; without them only the confidence is written. No two cover each other
            while there is room.
        truth: dashed black and white, without text.
    """
    labels = np.zeros(len(boxes), int) if labels is None else np.asarray(labels)
    taken = []
    for i in np.flatnonzero(labels >= 0):
        x1, y1, x2, y2 = boxes[i]
        outline = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=2)
        if truth:
            outline.set(linestyle=(0, (3, 2)), edgecolor="white")
            outline.set_path_effects([withStroke(linewidth=3.5, foreground="black")])
        else:
            outline.set_edgecolor(color(labels[i]))
            words = [_name(classes, labels[i])] if len(classes) else []
            words += [] if confidence is None else [f"{confidence[i]:.2f}"]
            if words:
                taken.append(_tag(axes, boxes[i], " ".join(words), color(labels[i]), taken))
        axes.add_patch(outline)


def _name(classes, label):
    return str(classes[label]) if 0 <= label < len(classes) else f"class {label}"


def _tag(axes, box, text, background, taken):
    """Text on a coloured ground at the box's upper edge, inside the picture and off those before.

    Args:
        axes: with an image.
        box: xyxy.
        text: what to write.
        background: the colour.
        taken: the rectangles of the tags before, as this function returns them.

    Returns:
        The rectangle x1, y1, x2, y2 of the tag.
    """
    luminance = np.dot(to_rgb(background), (0.299, 0.587, 0.114))
    words = axes.text(
        *(0, 0, _readable(text)),
        ha="left",
        va="top",
        fontsize=8,
        color="black" if luminance > 0.5 else "white",
        bbox={"facecolor": background, "edgecolor": "none", "pad": 1},
    )
    points = axes.figure.dpi / 72
    scale = _data_per_pixel(axes)
    extent = words.get_window_extent()
    width, height = (extent.width + 2 * points) * scale, (extent.height + 2 * points) * scale
    right, bottom = axes.get_xlim()[1] - width, axes.get_ylim()[0] - height
    x, y = max(0, min(box[0], right)), max(0, min(box[1] - height, bottom))

    def covered(y):
        return any(
            x < x2 and x + width > x1 and y < y2 and y + height > y1 for x1, y1, x2, y2 in taken
        )

    # Line by line away from the box's edge, downwards first, to where there is room.
    places = [y + sign * i * height for i in range(int(bottom / height) + 2) for sign in (1, -1)]
    y = next((p for p in places if 0 <= p <= bottom and not covered(p)), y)
    words.set_position((x + points * scale, y + points * scale))
    return x, y, x + width, y + height


def _data_per_pixel(axes):
    """How much of the data is in a pixel of the figure once it is laid out, about."""
    figure, grid = axes.figure, axes.get_gridspec()
    # Between the axes and around them the layout leaves a tenth of an inch.
    inches = figure.get_size_inches() / (grid.ncols, grid.nrows) - 0.1
    return max(axes.get_xlim()[1] / inches[0], axes.get_ylim()[0] / inches[1]) / figure.dpi


def _title(axes, text):
    # The axes made it before the text was known, with the fonts of that time.
    axes.set_title(_readable(text), fontsize=10, fontfamily=plt.rcParams["font.family"])


def _readable(text):
    """`text` as matplotlib draws it literally: no formula, and in fonts that have its letters."""
    letters = [letter if _has_font(letter) else "\u25a1" for letter in str(text)]
    if "\u25a1" in letters:
        # Said once by Python's own rule, since the sentence does not change.
        warnings.warn(
            "No installed font has all letters of the names: squares stand for those. Noto Sans "
            "CJK, for example, has Korean ones.",
            stacklevel=1,
        )
    return "".join(letters).replace("$", r"\$")


@functools.cache
def _has_font(letter):
    """Whether an installed font has the letter; if so, texts fall back to that font from now on."""
    if letter.isascii():
        return True
    default = font_manager.findfont(font_manager.FontProperties())
    fonts = [(default, None), *((f.fname, f.name) for f in font_manager.fontManager.ttflist)]
    for path, name in fonts:
        # The last resort has a box for every letter, and some files are no fonts that it can read.
        with contextlib.suppress(RuntimeError, OSError):
            if "LastResort" not in path and font_manager.get_font(path).get_char_index(ord(letter)):
                if name and name not in plt.rcParams["font.family"]:
                    plt.rcParams["font.family"] = [*plt.rcParams["font.family"], name]
                return True
    return False


def draw_masks(axes, masks, labels=None, boxes=None, truth=False):
    """Masks, filled and outlined, small ones over large ones.

    The first of a class has its colour, the next ones lighter and darker shades of it in turn;
    without labels each has a colour of its own.

    Args:
        axes: where to draw, with an image.
        masks: N run-length masks of the image's size, or (N, M, M) probabilities in the frame of
            the boxes.
        labels: (N,) class indices.
        boxes: (N, 4), xyxy, of which the frames are.
        truth: outlines alone, dashed black and white.

    Raises:
        ValueError: masks are not of the image's size.
    """
    height, width = int(axes.get_ylim()[0]), int(axes.get_xlim()[1])
    if len(masks) and not isinstance(masks[0], dict):
        masks = mask_ops.paste(np.asarray(masks), boxes, height, width)
    if not len(masks):
        return
    for mask in masks:
        _check_size("masks", tuple(mask["size"]), (height, width))
    pixels = mask_ops.decode(list(masks)).astype(bool)
    paints, seen = [], Counter()
    for i in range(len(pixels)):
        label = i if labels is None else int(labels[i])
        paints.append(_shade(color(label), seen[label], 0.35))
        seen[label] += 1
    order = np.argsort(-pixels.sum(axis=(1, 2)), kind="stable")
    if not truth:
        canvas = np.zeros((height, width, 4))
        for i in order:
            canvas[pixels[i]] = (*to_rgb(paints[i]), 0.5)
        _overlay(axes, canvas)
    for i in order:
        _outline(axes, pixels[i], "white" if truth else paints[i], truth, len(order) > CROWD)


def _outline(axes, mask, paint, truth, thin):
    """The contour of a mask (H, W), closed at the image's border too."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return
    (top, bottom), (left, right) = ((along[0], along[-1] + 1) for along in (rows, columns))
    padded = np.pad(mask[top:bottom, left:right], 1)
    x, y = np.arange(left - 0.5, right + 1), np.arange(top - 0.5, bottom + 1)
    width = 0.5 if thin else 1
    line = axes.contour(x, y, padded, [0.5], colors=[paint], linewidths=width)
    if truth:
        line.set_linestyle((0, (3, 2)))
    halo = "black" if truth else "white"
    line.set_path_effects([withStroke(linewidth=2.2 * width, foreground=halo)])


def draw_segmentation(axes, segmentation, num_classes=VOID):
    """Classes of the pixels: values 1 to `num_classes` have the colours of the classes 0 and on.

    Args:
        axes: where to draw, with an image.
        segmentation: (H, W) integers. 0, the background, stays clear; 255, void, is white.
        num_classes: of objects. Larger values are stuff (grass, water) in pale colours.

    Raises:
        ValueError: the segmentation is not of the image's size.
    """
    segmentation = np.asarray(segmentation)
    size = int(axes.get_ylim()[0]), int(axes.get_xlim()[1])
    _check_size("segmentation", segmentation.shape, size)
    paint = np.zeros((VOID + 1, 4))
    paint[1:, :3] = [to_rgb(_segment_color(v, num_classes)) for v in range(1, VOID + 1)]
    paint[1:, 3] = 0.75
    _overlay(axes, paint[segmentation])


def _segment_color(value, num_classes):
    if value == VOID:
        return "white"
    return color(value - 1) if value <= num_classes else PALE[(value - num_classes - 1) % 6]


def _draw_legend(figure, values, classes, stuff):
    """The names of the values of a segmentation below the pictures; the background has none."""
    names = dict(enumerate((*classes, *stuff), 1)) | {VOID: "void"}
    handles = [
        Patch(
            facecolor=_segment_color(value, len(classes)),
            edgecolor="gray",
            label=_readable(names.get(value, f"value {value}")),
        )
        for value in values[values > 0].tolist()
    ]
    if handles:
        columns = min(len(handles), 6)
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + 0.1 + 0.22 * math.ceil(len(handles) / columns))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
        )


def _check_size(name, size, image_size):
    if size != image_size:
        raise ValueError(
            f"The {name} are of {size[0]} x {size[1]} pixels, but the image of {image_size[0]} x "
            f"{image_size[1]}."
        )


def _overlay(axes, rgba):
    height, width = rgba.shape[:2]
    axes.imshow(rgba, extent=(0, width, height, 0), interpolation="nearest")


def draw_heat_map(axes, values, box):
    """Numbers (h, w) in 0..1 as colours over the part `box`, xyxy, of an image."""
    x1, y1, x2, y2 = box
    limits = axes.axis()
    style = {"vmin": 0, "vmax": 1, "cmap": "viridis", "alpha": 0.7, "interpolation": "nearest"}
    axes.imshow(values, extent=(x1, x2, y2, y1), **style)
    axes.axis(limits)


def draw_glyphs(axes, histograms, brightest=None):
    """Histograms of directions as stars of strokes along the edges, on black.

    Args:
        axes: where to draw; its coordinates are cells.
        histograms: (rows, columns, bins) over 180 degrees, not negative.
        brightest: the value of a white stroke; the largest by default.
    """
    rows, columns, bins = histograms.shape
    # An edge runs across its gradient.
    angle = (np.arange(bins) + 0.5) * np.pi / bins + np.pi / 2
    stroke = 0.45 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    centre = np.indices((rows, columns))[::-1].transpose(1, 2, 0)[:, :, None] + 0.5
    ends = np.stack([centre - stroke, centre + stroke], axis=-2).reshape(-1, 2, 2)
    values = histograms.ravel()
    order = np.argsort(values)  # the brightest are drawn over the others
    lines = LineCollection(ends[order], array=values[order], cmap="gray", linewidth=1)
    lines.set_clim(0, brightest or values.max() or 1)
    axes.add_collection(lines)
    axes.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal", xticks=[], yticks=[])
    axes.set_facecolor("black")


def draw_keypoints(axes, keypoints, limbs=(), truth=False):
    """Joints of N objects: x, y, visible; absent joints have visible 0.

    Args:
        axes: where to draw.
        keypoints: (N, K, 3), or (N, K, 2), all of them visible; of one object also without N.
        limbs: pairs of keypoint indices; limb `i` has colour `i`.
        truth: white on black instead.
    """
    edge = [withStroke(linewidth=4, foreground="black")]
    keypoints = np.asarray(keypoints, float)
    keypoints = keypoints[None] if keypoints.ndim == 2 else keypoints
    if keypoints.shape[-1] == 2:
        keypoints = np.insert(keypoints, 2, 1, axis=-1)
    for joints in keypoints:
        for i, limb in enumerate(limbs):
            ends = joints[list(limb)]
            if np.all(ends[:, 2] > 0):
                paint = "white" if truth else color(i)
                axes.plot(*ends[:, :2].T, color=paint, linewidth=2.5, path_effects=edge)
        present = joints[joints[:, 2] > 0]
        face = "white" if truth else PALETTE[-1]
        axes.scatter(*present[:, :2].T, s=14, color=face, edgecolors="black", zorder=3)


def box_formats(image, box):
    """One box (xyxy) on its image, with the names of its corners, its centre and its sides."""
    figure, (axes,) = panels(height=4.2, width=5.0)
    draw_image(axes, image)
    draw_boxes(axes, [box])
    x1, y1, x2, y2 = box
    middle = (x1 + x2) / 2, (y1 + y2) / 2
    marks = [((x1, y1), "(x1, y1)", (-6, 8), "right"), ((x2, y2), "(x2, y2)", (6, -14), "left")]
    marks += [(middle, "(cx, cy)", (0, 8), "center")]
    for point, name, offset, align in marks:
        axes.plot(*point, "o", color="black", markeredgecolor="white", markersize=7)
        _note(axes, name, point, offset, align)
    _note(axes, "w = x2 - x1", (middle[0], y2), (0, -16), "center")
    _note(axes, "h = y2 - y1", (x2, middle[1]), (8, 0), "left")
    return figure


def _note(axes, text, point, offset, align):
    axes.annotate(
        text,
        point,
        xytext=offset,
        textcoords="offset points",
        ha=align,
        fontsize=10,
        bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.5},
    )


def overlap(a, b, names=("a", "b")):
    """Two boxes (xyxy, small whole numbers) on squared paper, their intersection filled.

    Returns:
        The Figure, whose unit squares can be counted to check an IoU.
    """
    figure, (axes,) = panels(height=3.6, width=5.0)
    for i, (box, name) in enumerate(zip((a, b), names, strict=True)):
        x1, y1, x2, y2 = box
        style = {"facecolor": color(i), "edgecolor": color(i), "linewidth": 2.5}
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, alpha=0.25, **style))
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **style))
        corner = (x1, y1 - 0.1, "left", "bottom") if i == 0 else (x2, y2 + 0.1, "right", "top")
        text = f"{name} = ({x1}, {y1}, {x2}, {y2})"
        axes.text(*corner[:2], text, ha=corner[2], va=corner[3], color=color(i), fontsize=11)
    x1, y1 = np.maximum(a[:2], b[:2])
    x2, y2 = np.minimum(a[2:], b[2:])
    if x1 < x2 and y1 < y2:
        axes.add_patch(
            Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, hatch="//", edgecolor="black")
        )
    right, bottom = np.maximum(a[2:], b[2:]) + 1
    axes.set(xlim=(0, right), ylim=(bottom, 0), aspect="equal")
    axes.set(xticks=range(right + 1), yticks=range(bottom + 1), xlabel="x", ylabel="y")
    axes.grid(color="0.85")
    axes.set_axisbelow(True)
    return figure


def feature_maps(image, maps, channels=4, names=None, width=7.0):
    """The image, and the channels of a convolutional network's maps that vary most.

    Args:
        image: (H, W, 3) in 0..255.
        maps: dict from the row's name to a map (h, w, C).
        channels: how many channels of each, those of the largest standard deviation.
        names: titles of the columns after the first.
        width: of the figure, in inches.

    Returns:
        The Figure: one row per map, each channel stretched from its least to its largest value.
    """
    columns = channels + 1
    height = len(maps) * (width / columns * image.shape[0] / image.shape[1] + 0.1) + 0.2
    figure, axes = panels(len(maps), columns, height, width)
    for row, (name, features) in enumerate(maps.items()):
        first, *others = axes[row * columns : (row + 1) * columns]
        draw_image(first, image)
        if len(features) <= 32:  # Finer lines would cover the image.
            draw_cells(first, image.shape[:2], features.shape[:2])
        first.set_title(name, fontsize=10)
        strongest = np.argsort(-features.std((0, 1)), kind="stable")[:channels]
        for axis in others:
            axis.axis("off")
        for axis, channel in zip(others, strongest, strict=False):
            axis.imshow(features[..., channel], cmap="viridis", interpolation="nearest")
            axis.set_title(f"channel {channel}", fontsize=9)
    return figure


def draw_cells(axes, image_size, map_size):
    """The cells of a feature map of `map_size` over an image of `image_size`, (height, width)."""
    (height, width), (rows, columns) = image_size, map_size
    style = {"color": "white", "linewidth": 0.6, "alpha": 0.8}
    for i in range(1, columns):
        axes.axvline(i * width / columns, **style)
    for i in range(1, rows):
        axes.axhline(i * height / rows, **style)


def draw_bins(axes, values, rows, columns):
    """A channel of a map, the bins of a pooling over it, and a dot at the maximum of each.

    Args:
        axes: where to draw.
        values: (h, w).
        rows, columns: starts and ends (n, 2) of the bins, whole cells; the end is not among them.
            Bins that share cells are told apart by two colours. Empty ones are left out.
    """
    height, width = values.shape
    axes.imshow(values, "viridis", extent=(0, width, height, 0), interpolation="nearest")
    axes.axis("off")
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            if top >= bottom or left >= right:
                continue
            odd = (i + j) % 2
            paint, gap = ("white", color(1))[odd], (0.08, 0.16)[odd]
            size = right - left - 2 * gap, bottom - top - 2 * gap
            corner = (left + gap, top + gap)
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=paint, linewidth=1.5))
            part = values[top:bottom, left:right]
            y, x = np.unravel_index(part.argmax(), part.shape)
            axes.plot(left + x + 0.5, top + y + 0.5, "o", color=paint, markersize=3 + 2 * odd)


def blocks(places, arrows, names=None):
    """A diagram of a network: boxes with names, on a grid, and arrows between them.

    Args:
        places: dict from a block's name to its (column, row), row 0 at the top.
        arrows: pairs of names.
        names: dict from a pair to what is written beside its arrow.

    Returns:
        The Figure.
    """
    rows = 1 + max(row for _, row in places.values())
    figure, (axes,) = panels(height=0.85 * rows)
    width, height = 0.39, 0.27
    for name, (x, y) in places.items():
        corner = (x - width, y - height)
        axes.add_patch(Rectangle(corner, 2 * width, 2 * height, fc=PALE[0], ec="#334", lw=1))
        axes.text(x, y, name, ha="center", va="center", fontsize=9)
    for start, end in arrows:
        (x1, y1), (x2, y2) = places[start], places[end]
        dx, dy = np.sign(x2 - x1), np.sign(y2 - y1)
        tail = (x1 + width * dx, y1) if dy == 0 else (x1 + width / 2 * dx, y1 + height * dy)
        head = (x2 - width * dx, y2) if dx else (x2, y2 - height * dy)
        style = {"arrowstyle": "-|>", "color": "#334", "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", head, tail, arrowprops=style)
        middle = ((tail[0] + head[0]) / 2 + 0.05, (tail[1] + head[1]) / 2)
        axes.text(*middle, (names or {}).get((start, end), ""), va="bottom", fontsize=9)
    columns = 1 + max(column for column, _ in places.values())
    axes.set(xlim=(-0.45, columns - 0.55), ylim=(rows - 0.6, -0.4))
    axes.axis("off")
    return figure


def curves(series, xlabel="epoch", ylabel="", x=None, axes=None):
    """Learning curves: the mean over the seeds, and the band from the least to the largest.

    Args:
        series: dict from name to values (seeds, steps), or (steps,) for one seed.
        xlabel, ylabel: what the axes measure.
        x: (steps,) positions; 1, 2, 3, ... by default.
        axes: where to draw; a new figure by default.

    Returns:
        The Figure.
    """
    axes = axes or panels()[1][0]
    for i, (name, values) in enumerate(series.items()):
        values = np.atleast_2d(values)
        steps = np.arange(1, values.shape[1] + 1) if x is None else x
        axes.fill_between(steps, values.min(0), values.max(0), color=color(i), alpha=0.2, lw=0)
        axes.plot(
            *(steps, values.mean(0)),
            color=color(i),
            label=_readable(name),
            marker=MARKERS[i % 8],
            markersize=4,
        )
    if x is None:
        axes.xaxis.get_major_locator().set_params(integer=True)
    return _chart(axes, xlabel, ylabel, legend=True)


def bars(values, intervals=None, xlabel="", baseline=None, axes=None):
    """One horizontal bar per name, the first on top, with its interval.

    Args:
        values: dict from name to number.
        intervals: dict from name to `(low, high)`; names without one get no interval.
        xlabel: what the bars measure.
        baseline: `(name, value)` of a vertical line to compare with.
        axes: where to draw; a new figure by default.

    Returns:
        The Figure.
    """
    axes = axes or panels(height=0.7 + 0.32 * len(values))[1][0]
    names = {name: _readable(name) for name in values}
    paints = [color(i) for i in range(len(names))]
    axes.barh(list(names.values()), list(values.values()), color=paints)
    axes.tick_params(axis="y", labelfontfamily=plt.rcParams["font.family"])
    for name, (low, high) in (intervals or {}).items():
        axes.plot([low, high], [names[name]] * 2, color="black", linewidth=1.5, marker="|")
    if baseline:
        axes.axvline(baseline[1], color="black", linestyle="--", label=_readable(baseline[0]))
    axes.invert_yaxis()
    return _chart(axes, xlabel, "", legend=bool(baseline), grid="x")


def histogram(series, xlabel="", bins=20, threshold=None, ylabel="objects", axes=None):
    """Histograms as outlines over each other.

    Args:
        series: dict from name to values (N,).
        xlabel, ylabel: what the axes measure.
        bins: as in `numpy.histogram`; the edges are shared.
        threshold: where to draw a vertical line.
        axes: where to draw; a new figure by default.

    Returns:
        The Figure.
    """
    axes = axes or panels()[1][0]
    edges = np.histogram_bin_edges(np.concatenate(list(series.values())), bins)
    for i, (name, values) in enumerate(series.items()):
        axes.hist(values, edges, histtype="stepfilled", color=color(i), alpha=0.25)
        label = _readable(name)
        axes.hist(values, edges, histtype="step", color=color(i), linewidth=2, label=label)
    if threshold is not None:
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1)
    return _chart(axes, xlabel, ylabel, legend=len(series) > 1)


def scatter(series, xlabel="", ylabel="", axes=None):
    """Points, one colour and one marker per name.

    Args:
        series: dict from name to `(x, y)`, numbers or arrays (N,).
        xlabel, ylabel: what the axes measure.
        axes: where to draw; a new figure by default.

    Returns:
        The Figure.
    """
    axes = axes or panels(height=3.6)[1][0]
    for i, (name, (x, y)) in enumerate(series.items()):
        style = {"color": color(i), "marker": MARKERS[i % 8], "label": _readable(name)}
        axes.scatter(x, y, s=36, alpha=0.8, **style)
    return _chart(axes, xlabel, ylabel, legend=True, grid="both")


def precision_recall(series, points=None, axes=None):
    """Precision over recall: pale as measured, strong the highest at this recall or any higher.

    Args:
        series: dict from name to `(recall, precision)`, each (D,), by falling confidence.
        points: recalls at which to mark that highest precision, 0 where no recall is as high.
        axes: where to draw; a new figure by default.

    Returns:
        The Figure.
    """
    axes = axes or panels(height=3.6)[1][0]
    for i, (name, (recall, precision)) in enumerate(series.items()):
        highest = np.maximum.accumulate(np.asarray(precision)[::-1])[::-1]
        axes.plot(recall, precision, color=color(i), alpha=0.4, linewidth=1)
        # Down to the axis, where the recall ends.
        ends = np.append(recall, np.max(recall, initial=0)), np.append(highest, 0)
        axes.step(*ends, where="pre", color=color(i), linewidth=2, label=_readable(name))
        if points is not None:
            at = np.append(highest, 0)[np.searchsorted(recall, points)]
            axes.plot(
                points, at, linestyle="", marker=MARKERS[i % 8], color=color(i), clip_on=False
            )
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    return _chart(axes, "recall", "precision", legend=len(series) > 1, grid="both")


def errors(breakdowns):
    """What detectors get wrong, and what each kind of error costs.

    Args:
        breakdowns: dict from a detector's name to what `cvlib.metrics.error_breakdown` returns.

    Returns:
        The Figure: on the left how many, on the right the gain in mAP if they were mended.
    """
    kinds = list(next(iter(breakdowns.values()))["counts"])
    thickness = 0.8 / len(breakdowns)
    height = 1 + len(kinds) * max(0.3, 0.15 * len(breakdowns))
    figure, axes = panels(1, 2, height, sharey=True)
    for i, (name, found) in enumerate(breakdowns.items()):
        rows = np.arange(len(kinds)) + (i + 0.5) * thickness - 0.4
        for axis, values in zip(axes, (found["counts"], found["gain"]), strict=True):
            widths = [values.get(kind, 0) for kind in kinds]
            axis.barh(rows, widths, thickness, color=color(i), label=_readable(name))
    axes[0].set_yticks(range(len(kinds)), kinds)
    axes[0].invert_yaxis()
    _chart(axes[0], "detections, or objects missed", "", legend=False, grid="x")
    return _chart(axes[1], "mAP gained if mended", "", legend=len(breakdowns) > 1, grid="x")


def waterfall(systems, xlabel="milliseconds"):
    """What runs after what: each stage is a bar from where the one before it ended.

    Args:
        systems: dict from a system's name to a dict from its stages, in order, to how long each
            takes.
        xlabel: what the bars measure.

    Returns:
        The Figure: the systems below each other, on one axis; a stage has one colour in all.
    """
    paints = {}
    for stage in (stage for stages in systems.values() for stage in stages):
        paints.setdefault(stage, color(len(paints)))
    rows = [len(stages) for stages in systems.values()]
    height = 0.5 + sum(0.35 + 0.24 * n for n in rows)
    figure, axes = panels(len(rows), 1, height, sharex=True, height_ratios=rows)
    for axis, (name, stages) in zip(axes, systems.items(), strict=True):
        starts = np.cumsum([0, *stages.values()])
        names = [_readable(stage) for stage in stages]
        bars = axis.barh(
            names, list(stages.values()), left=starts[:-1], color=[paints[s] for s in stages]
        )
        axis.bar_label(bars, [_short(value) for value in stages.values()], padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.set_title(_readable(f"{name}: {_short(starts[-1])}"), fontsize=10, loc="left")
        _chart(axis, xlabel if axis is axes[-1] else "", "", legend=False, grid="x")
    axes[0].margins(x=0.08)
    return figure


def _short(number):
    return f"{number:.3g}" if number < 100 else f"{number:,.0f}"


def _chart(axes, xlabel, ylabel, legend, grid="y"):
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.9")
    axes.set_axisbelow(True)
    if legend:
        # Beside the chart where there are so many names that they would cover the curves.
        many = len(axes.get_legend_handles_labels()[1]) > 4
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if many else {}
        axes.legend(frameon=False, **beside)
    return axes.figure
