"""Every picture of the course: images with their annotations, and charts.

Class `i` has the colour `color(i)` in every picture. What is true is dashed black and white, what a
system predicts is solid in the colour of its class. Coordinates are continuous pixels, as
everywhere in `cvlib`: pixel `(row, column)` covers `[column, column + 1] x [row, row + 1]`.

Figures are 7 inches wide, 700 pixels in a notebook, and are returned closed: a notebook displays
one once, as the last value of a cell, and `figure.savefig` writes it in any format.
"""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
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


def color(index):
    """The colour of class or series `index`, as a hexadecimal string; repeats after eight."""
    return PALETTE[index % len(PALETTE)]


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
    draw=("boxes",),
    predictions=None,
    classes=(),
    limbs=(),
    titles=None,
    columns=4,
    width=7.0,
):
    """A grid of pictures with their annotations.

    Args:
        pictures: sequence of samples (`cvlib.data.load`) or of images (H, W, 3) in 0..255.
        draw: which keys to draw, of `"boxes"`, `"masks"`, `"keypoints"`, `"segmentation"`, and
            `"label"`, the class of the whole image, as title. A key that a sample lacks is left
            out.
        predictions: one dict of detections per picture, drawn solid; the samples' own annotations
            are then the truth and dashed.
        classes: class names, to write beside the boxes.
        limbs: pairs of keypoint indices to join.
        titles: one string per picture.
        columns: pictures in a row, at most.
        width: of the figure, in inches.

    Returns:
        The Figure.
    """
    samples = [p if isinstance(p, dict) else {"image": p} for p in pictures]
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
        annotate(axis, samples[i], draw, classes, limbs, truth=predictions is not None)
        if predictions is not None:
            annotate(axis, predictions[i], draw, classes, limbs)
        if titles is not None:
            axis.set_title(titles[i], fontsize=10)
    return figure


def draw_image(axes, image):
    """The image (H, W, 3) in 0..255 with continuous pixel coordinates, axes hidden."""
    height, width = image.shape[:2]
    axes.imshow(np.clip(image, 0, 255).astype("uint8"), extent=(0, width, height, 0))
    axes.autoscale(False)  # What lies outside of the image must not shrink it.
    axes.axis("off")


def annotate(axes, sample, draw, classes=(), limbs=(), truth=False):
    """Draws the annotations `draw` of one sample, or of one prediction, over its image."""
    labels = sample.get("labels")
    if "segmentation" in draw and "segmentation" in sample:
        draw_segmentation(axes, sample["segmentation"], len(classes) or VOID)
    if "masks" in draw and "masks" in sample:
        draw_masks(axes, sample["masks"], labels)
    if "boxes" in draw and "boxes" in sample:
        draw_boxes(axes, sample["boxes"], labels, sample.get("confidence"), classes, truth)
    if "keypoints" in draw and "keypoints" in sample:
        draw_keypoints(axes, sample["keypoints"], limbs, truth)
    if "label" in draw and "label" in sample:
        axes.set_title(classes[sample["label"]], fontsize=10)


def draw_boxes(axes, boxes, labels=None, confidence=None, classes=(), truth=False):
    """Boxes (N, 4), xyxy; rows with the label -1 are padding.

    Args:
        axes: where to draw.
        boxes: (N, 4), xyxy.
        labels: (N,) class indices; without them every box has the first colour.
        confidence: (N,) in 0..1, written beside the class.
        classes: class names; without them only the confidence is written.
        truth: dashed black and white, without text.
    """
    labels = np.zeros(len(boxes), int) if labels is None else np.asarray(labels)
    for i in np.flatnonzero(labels >= 0):
        x1, y1, x2, y2 = boxes[i]
        outline = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=2)
        if truth:
            outline.set(linestyle=(0, (3, 2)), edgecolor="white")
            outline.set_path_effects([withStroke(linewidth=3.5, foreground="black")])
        else:
            outline.set_edgecolor(color(labels[i]))
            words = [classes[labels[i]]] if len(classes) else []
            words += [] if confidence is None else [f"{confidence[i]:.2f}"]
            _tag(axes, boxes[i], " ".join(words), color(labels[i]))
        axes.add_patch(outline)


def _tag(axes, box, text, background):
    """Text on a coloured ground at the box's upper edge, kept inside the picture."""
    right, top = axes.get_xlim()[1], axes.get_ylim()[0] * 0.1
    x1, y1, x2, _ = box
    flush_right = x1 > 0.6 * right
    luminance = np.dot(to_rgb(background), (0.299, 0.587, 0.114))
    axes.text(
        x2 if flush_right else x1,
        y1,
        text,
        ha="right" if flush_right else "left",
        va="bottom" if y1 > top else "top",
        fontsize=8,
        color="black" if luminance > 0.5 else "white",
        bbox={"facecolor": background, "edgecolor": "none", "pad": 1},
    )


def draw_masks(axes, masks, labels=None):
    """Run-length masks, filled and outlined, in their class's colour or each in its own."""
    for i, pixels in enumerate(mask_ops.decode(masks)):
        paint = color(i if labels is None else labels[i])
        _overlay(axes, pixels[..., None] * np.append(to_rgb(paint), 0.55))
        rows, columns = np.indices(pixels.shape) + 0.5
        axes.contour(columns, rows, pixels, [0.5], colors="white", linewidths=1.2)


def draw_segmentation(axes, segmentation, num_classes=VOID):
    """Classes of the pixels: values 1 to `num_classes` have the colours of the classes 0 and on.

    Args:
        axes: where to draw.
        segmentation: (H, W) uint8. 0, the background, stays clear; 255, void, is white.
        num_classes: of objects. Larger values are stuff (grass, water) in pale colours.
    """
    values = range(1, VOID)
    names = [color(v - 1) if v <= num_classes else PALE[(v - num_classes - 1) % 6] for v in values]
    paint = np.zeros((VOID + 1, 4))
    paint[1:, :3] = [to_rgb(name) for name in [*names, "white"]]
    paint[1:, 3] = 0.75
    _overlay(axes, paint[segmentation])


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


def draw_keypoints(axes, keypoints, limbs=(), truth=False):
    """Joints (N, K, 3) of N objects: x, y, visible; absent joints have visible 0.

    Args:
        axes: where to draw.
        keypoints: (N, K, 3).
        limbs: pairs of keypoint indices; limb `i` has colour `i`.
        truth: white on black instead.
    """
    edge = [withStroke(linewidth=4, foreground="black")]
    for joints in np.asarray(keypoints):
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
            steps, values.mean(0), color=color(i), label=name, marker=MARKERS[i % 8], markersize=4
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
    names = list(values)
    axes.barh(names, list(values.values()), color=[color(i) for i in range(len(names))])
    for name, (low, high) in (intervals or {}).items():
        axes.plot([low, high], [name, name], color="black", linewidth=1.5, marker="|")
    if baseline:
        axes.axvline(baseline[1], color="black", linestyle="--", label=baseline[0])
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
        axes.hist(values, edges, histtype="step", color=color(i), linewidth=2, label=name)
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
        axes.scatter(x, y, s=36, color=color(i), marker=MARKERS[i % 8], alpha=0.8, label=name)
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
        axes.step(*ends, where="pre", color=color(i), linewidth=2, label=name)
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
            axis.barh(rows, widths, thickness, color=color(i), label=name)
    axes[0].set_yticks(range(len(kinds)), kinds)
    axes[0].invert_yaxis()
    _chart(axes[0], "detections, or objects missed", "", legend=False, grid="x")
    return _chart(axes[1], "mAP gained if mended", "", legend=len(breakdowns) > 1, grid="x")


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
