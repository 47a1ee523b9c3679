"""Proposals that do not look at the image: the baselines."""

from dataclasses import dataclass

import numpy as np

from cvlib.proposals.proposals import Proposals, ranked, rgb


@dataclass(frozen=True)
class SlidingWindows:
    """Windows of every size at every place, a coarse grid first and then ever finer ones.

    Args:
        overlaps: IoU of neighbouring windows of each grid, see `sliding_windows`.
        smallest: the least square root of a window's area, in pixels.
    """

    overlaps: tuple = (0.2, 0.35, 0.5, 0.65)
    smallest: int = 16

    def __call__(self, image) -> Proposals:
        """All windows, the large ones of each grid first; scores are minus the place.

        Raises:
            ValueError: not an image, see `cvlib.proposals`.
        """
        height, width = rgb(image).shape[:2]
        grids = [sliding_windows(height, width, o, self.smallest) for o in self.overlaps]
        boxes = np.concatenate(grids)
        return ranked(boxes, -np.arange(len(boxes)))


def sliding_windows(height, width, overlap, smallest, max_aspect=3):
    """Windows whose neighbours in place, size and aspect ratio have the IoU `overlap`, about.

    Source: the search of Zitnick and Dollar 2014, section 3.3.

    Args:
        height, width: of the image.
        overlap: IoU in 0..1, both excluded.
        smallest: the least square root of a window's area, in pixels.
        max_aspect: of width over height, and of height over width.

    Returns:
        (N, 4) xyxy inside the image, the largest first.
    """
    # Two boxes of one centre, of areas 1 and a, have the IoU a; of equal area and the aspect ratios
    # 1 and r, 1 / (2 sqrt(r) - 1); shifted by the share s of their side, (1 - s) / (1 + s).
    sizes = geometric(smallest, max(smallest, (height * width) ** 0.5), overlap**-0.5)[::-1]
    aspects = geometric(1, max_aspect, ((1 + overlap) / (2 * overlap)) ** 2)
    step = (1 - overlap) / (1 + overlap)
    shapes = [
        (min(height, size * ratio**-0.5), min(width, size * ratio**0.5))
        for size in sizes
        for aspect in aspects
        for ratio in sorted({aspect, 1 / aspect})
    ]
    boxes = []
    for h, w in sorted(set(shapes), key=lambda shape: (-shape[0] * shape[1], shape)):
        y = np.linspace(0, height - h, 1 + int(np.ceil((height - h) / (step * h))))
        x = np.linspace(0, width - w, 1 + int(np.ceil((width - w) / (step * w))))
        corner = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        boxes.append(np.hstack([corner, corner + (w, h)]))
    return np.concatenate(boxes)


def geometric(first, last, factor):
    """Numbers from `first` up to `last`, each at most `factor` times the one before."""
    return np.geomspace(first, last, 1 + int(np.ceil(np.log(last / first) / np.log(factor))))


@dataclass(frozen=True)
class RandomBoxes:
    """Boxes drawn at random: centre, square root of the area and log of the aspect ratio uniform.

    Source: Hosang et al. 2015, "What Makes for Effective Detection Proposals?", section 2.3.

    Args:
        count: of the boxes drawn.
        smallest: the least square root of an area, in pixels, before the image cuts the box.
        seed: of the draw, which is the same for every image of one size.
    """

    count: int = 1000
    smallest: int = 16
    seed: int = 0

    def __call__(self, image) -> Proposals:
        """Boxes, cut at the image's border, in the order drawn; scores are minus the place.

        Raises:
            ValueError: not an image, see `cvlib.proposals`.
        """
        height, width = rgb(image).shape[:2]
        rng = np.random.default_rng(self.seed)
        extent = np.array([width, height])
        centre = rng.random((self.count, 2)) * extent
        side = rng.uniform(min(self.smallest, *extent), np.sqrt(extent.prod()), self.count)
        aspect = 3 ** rng.uniform(-1, 1, self.count)
        half = np.stack([side * np.sqrt(aspect), side / np.sqrt(aspect)], axis=1) / 2
        boxes = np.hstack([np.maximum(centre - half, 0), np.minimum(centre + half, extent)])
        return ranked(boxes, -np.arange(self.count))
