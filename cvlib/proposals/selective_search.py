"""Selective search: a segmentation's regions, merged two by two until one is left; all are kept.

Source: Uijlings, van de Sande, Gevers and Smeulders 2013, "Selective Search for Object
Recognition", sections 3.1 (grouping), 3.2 (diversification) and 3.3 (combination).
"""

import heapq
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pycocotools import mask as rle
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2hsv, rgb2lab
from skimage.segmentation import felzenszwalb

from cvlib.proposals.proposals import Proposals, ranked, rgb
from cvlib.proposals.regions import label_boxes, label_masks

# mode: colour spaces, similarities (colour, texture, size, fill) and k: table 5 of the paper.
MODES = {
    "single": (("hsv",), ("CTSF",), (100,)),
    "fast": (("hsv", "lab"), ("CTSF", "TSF"), (50, 100)),
    "quality": (
        ("hsv", "lab", "rgi", "h", "i"),
        ("CTSF", "TSF", "F", "S"),
        (50, 100, 150, 300),
    ),
}
COLOR_BINS = 25
# Eight directions of 10 bins: opposite ones differ in the sign of the derivative only.
TEXTURE_BINS = 20
DIRECTIONS = np.pi * np.arange(4) / 4


@dataclass(frozen=True)
class SelectiveSearch:
    """Groups regions by colour, texture, size and fill in several ways, and ranks all of them.

    Args:
        mode: `"single"` (one grouping), `"fast"` (8) or `"quality"` (80), as in the paper.
        seed: of the random part of the ranking.
        masks: whether the proposals come with their regions.
    """

    mode: str = "fast"
    seed: int = 0
    masks: bool = False

    def __post_init__(self):
        if self.mode not in MODES:
            raise ValueError(f"mode {self.mode!r} must be one of {', '.join(MODES)}.")

    def __call__(self, image) -> Proposals:
        """The regions of every level of every grouping.

        A region of level i (1 is the whole image, the last merged; the regions of the segmentation
        come last) gets the rank i times a random number in 0..1, so that large regions tend to come
        first, yet no grouping goes before another. Scores are minus the ranks.

        Raises:
            ValueError: not an image, see `cvlib.proposals`.
        """
        image = rgb(image)
        rng = np.random.default_rng(self.seed)
        spaces, similarities, scales = MODES[self.mode]
        boxes, ranks, masks = [], [], []
        for space in spaces:
            channels = color_space(image, space)
            bins = feature_bins(channels)
            for k in scales:
                labels = segment(channels, k)
                regions = describe(labels, *bins)
                leaves = label_masks(labels) if self.masks else None
                for similarity in similarities:
                    merged, parents = group(regions, similarity)
                    boxes.append(merged)
                    ranks.append(rng.random(len(merged)) * np.arange(len(merged), 0, -1))
                    if self.masks:
                        masks += merge_masks(leaves, parents)
        return ranked(np.concatenate(boxes), -np.concatenate(ranks), masks or None)


def color_space(image, name):
    """An RGB image (H, W, 3) uint8 in another colour space.

    Args:
        image: (H, W, 3) uint8.
        name: `"hsv"`, `"lab"`, `"rgi"` (red and green over the sum of the channels, and the
            intensity), `"h"` (the hue) or `"i"` (the intensity).

    Returns:
        (H, W, 3) or (H, W, 1) float32 in 0..1.
    """
    image = image.astype(np.float32) / 255
    if name in ("hsv", "h"):
        channels = rgb2hsv(image)
    elif name == "lab":
        channels = rgb2lab(image) / (100, 255, 255) + (0, 0.5, 0.5)
    else:
        total = image.sum(axis=2, keepdims=True)
        chromaticity = np.divide(image, total, np.full_like(image, 1 / 3), where=total > 0)
        channels = np.concatenate([total / 3, chromaticity[..., :2]], axis=2)
    channels = channels[..., :1] if name in ("h", "i") else channels
    return np.clip(channels, 0, 1).astype(np.float32)


def segment(channels, k):
    """Labels (H, W), 0..R-1, of the first regions: Felzenszwalb and Huttenlocher 2004.

    Args:
        channels: (H, W, C) in 0..1.
        k: of that paper, for values in 0..255; regions have at least k pixels.
    """
    return felzenszwalb(channels, scale=k, sigma=0.8, min_size=k)


class Regions(NamedTuple):
    """R regions of one image.

    Attributes:
        sizes: (R,) pixels.
        boxes: (R, 4) xyxy.
        color: (R, C * COLOR_BINS), sums to 1 for each region.
        texture: (R, C * 4 * TEXTURE_BINS), sums to 1 for each region.
        pairs: (P, 2) regions that touch, each pair once.
        area: pixels of the image.
    """

    sizes: np.ndarray
    boxes: np.ndarray
    color: np.ndarray
    texture: np.ndarray
    pairs: np.ndarray
    area: int


def feature_bins(channels):
    """The bins of each pixel's colour and texture.

    Texture is the derivative (Gaussian, sigma 1) of each channel in four directions, divided by the
    channel's steepest slope in the image.

    Args:
        channels: (H, W, C) in 0..1.

    Returns:
        `(color, texture)`: (H, W, C) in 0..COLOR_BINS-1 and (H, W, 4 C) in 0..TEXTURE_BINS-1.
    """
    down = gaussian_filter(channels, 1, order=(1, 0), axes=(0, 1))
    along = gaussian_filter(channels, 1, order=(0, 1), axes=(0, 1))
    steepest = np.hypot(down, along).max(axis=(0, 1))
    steepest[steepest == 0] = 1
    slopes = [(np.cos(a) * along + np.sin(a) * down) / steepest for a in DIRECTIONS]
    slopes = np.concatenate(slopes, axis=2)
    return _bins(channels, COLOR_BINS), _bins((slopes + 1) / 2, TEXTURE_BINS)


def _bins(values, count):
    return np.minimum((values * count).astype(int), count - 1)


def describe(labels, color, texture):
    """The `Regions` of a segmentation.

    Args:
        labels: (H, W), 0..R-1.
        color, texture: as from `feature_bins`.
    """
    count = labels.max() + 1
    touching = [(labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])]
    codes = [(np.minimum(a, b) * count + np.maximum(a, b))[a != b] for a, b in touching]
    codes = np.unique(np.concatenate(codes))
    return Regions(
        sizes=np.bincount(labels.ravel()),
        boxes=label_boxes(labels),
        color=histograms(labels, color, COLOR_BINS),
        texture=histograms(labels, texture, TEXTURE_BINS),
        pairs=np.stack([codes // count, codes % count], axis=1),
        area=labels.size,
    )


def histograms(labels, bins, count):
    """For each region of `labels` (H, W) a histogram of each channel of `bins` (H, W, C).

    Returns:
        (R, C * count) float32 of sum 1 for each region.
    """
    rows = labels.max() + 1
    offsets = labels * count
    channels = [
        np.bincount((offsets + channel).ravel(), minlength=rows * count).reshape(rows, count)
        for channel in np.moveaxis(bins, 2, 0)
    ]
    counts = np.concatenate(channels, axis=1)
    return (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)


def group(regions, similarity="CTSF"):
    """Merges the two most similar neighbours until one region is left.

    The similarity of two regions is the sum of those chosen, each in 0..1 (section 3.2):

    - `C`, `T`: the intersection of their histograms of colour, of texture;
    - `S`: one minus their share of the image, so that small regions merge early;
    - `F`: one minus the share of the image that their common box has and they do not fill.

    Args:
        regions: `Regions`, R of them.
        similarity: letters of those to add.

    Returns:
        `(boxes, parents)`: (2R - 1, 4) xyxy, the regions given and then the merged ones in their
        order, and (R - 1, 2), the two regions that each of those was merged from.
    """
    count = len(regions.sizes)
    features = [np.empty((count, 0), np.float32)]
    features += [regions.color] if "C" in similarity else []
    features += [regions.texture] if "T" in similarity else []
    # Room for the regions to come.
    features, sizes, boxes = (
        np.pad(values, ((0, count - 1), *((0, 0),) * (values.ndim - 1)))
        for values in (np.concatenate(features, axis=1), regions.sizes, regions.boxes)
    )

    def costs(i, others):
        value = np.minimum(features[i], features[others]).sum(axis=1)
        together = sizes[i] + sizes[others]
        if "S" in similarity:
            value = value + (1 - together / regions.area)
        if "F" in similarity:
            a, b = boxes[i], boxes[others]
            extent = np.maximum(a, b)[:, 2:] - np.minimum(a, b)[:, :2]
            value = value + (1 - (extent.prod(axis=1) - together) / regions.area)
        return (-value).tolist()

    neighbours = [set() for _ in range(count)]
    for i, j in regions.pairs.tolist():
        neighbours[i].add(j)
        neighbours[j].add(i)
    heap = list(zip(costs(*regions.pairs.T), *regions.pairs.T.tolist(), strict=True))
    heapq.heapify(heap)

    parents = []
    for new in range(count, 2 * count - 1):
        # Pairs of which one has been merged since are still in the heap.
        while True:
            _, i, j = heapq.heappop(heap)
            if neighbours[i] is not None and neighbours[j] is not None:
                break
        parents.append((i, j))
        sizes[new] = sizes[i] + sizes[j]
        boxes[new, :2] = np.minimum(boxes[i, :2], boxes[j, :2])
        boxes[new, 2:] = np.maximum(boxes[i, 2:], boxes[j, 2:])
        features[new] = (sizes[i] * features[i] + sizes[j] * features[j]) / sizes[new]
        touching = (neighbours[i] | neighbours[j]) - {i, j}
        neighbours[i] = neighbours[j] = None
        neighbours.append(touching)
        for other in touching:
            neighbours[other] -= {i, j}
            neighbours[other].add(new)
        others = list(touching)
        if others:
            for cost, other in zip(costs(new, others), others, strict=True):
                heapq.heappush(heap, (cost, other, new))
    return boxes, np.reshape(parents, (-1, 2)).astype(int)


def merge_masks(leaves, parents):
    """Run-length masks of all regions of `group`, from those of the first."""
    masks = list(leaves)
    for i, j in parents:
        masks.append(rle.merge([masks[i], masks[j]]))
    return masks
