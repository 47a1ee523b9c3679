"""Edge boxes: a box is as good as the contours that lie wholly inside it.

Source: Zitnick and Dollar 2014, "Edge Boxes: Locating Object Proposals from Edges". Their edges
come from a detector trained on drawn contours; ours are plain gradients of the image, so texture
counts as contour.
"""

import heapq
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.sparse import csr_matrix, vstack
from scipy.sparse.csgraph import dijkstra

from cvlib.proposals.proposals import Proposals, ranked, rgb
from cvlib.proposals.windows import sliding_windows

SIGMA = 1.5  # of the Gaussian before the gradient, in pixels
LEAST_EDGE = 0.1  # magnitude of a pixel's edge, of 1 for the image's strongest
LEAST_GROUP = 0.5  # sum of the magnitudes of a group
LEAST_AFFINITY = 0.05
GAMMA = 2  # power of the affinity
KAPPA = 1.5  # power of the perimeter, which large boxes are held against
REFINED = 4  # windows for each box that is asked for
CHUNK = 500  # boxes scored at once
# Left, up, narrower, lower; right, down, wider, higher: what a step adds to x1, y1, x2, y2.
MOVES = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [-1, 0, 1, 0], [0, -1, 0, 1]])
MOVES = np.concatenate([-MOVES, MOVES])
AROUND = np.indices((3, 3)) - 1


@dataclass(frozen=True)
class EdgeBoxes:
    """Sliding windows scored by the contours inside, the best refined and thinned out.

    The paper refines all windows above a small score; here at most four for each box asked for are.

    Args:
        alpha: IoU of neighbouring windows.
        beta: a box of larger IoU with a better one is dropped.
        count: of the boxes kept, at most.
        smallest: the least square root of a window's area, in pixels, before it is refined.
    """

    alpha: float = 0.65
    beta: float = 0.75
    count: int = 1000
    smallest: int = 16

    def __call__(self, image) -> Proposals:
        """The best boxes; scores are those of the paper, 0 at least.

        Raises:
            ValueError: not an image, see `cvlib.proposals`.
        """
        image = rgb(image)
        height, width = image.shape[:2]
        groups = edge_groups(*edges(image))
        if groups is None:
            return ranked(np.zeros((0, 4)), np.zeros(0))
        windows = np.rint(sliding_windows(height, width, self.alpha, self.smallest)).astype(int)
        # Refined boxes often meet, so more set out than are asked for.
        boxes, scores = best(groups, windows, REFINED * self.count)
        boxes, scores = refine(groups, boxes, scores, self.alpha, height, width)
        kept = suppress(boxes, scores, self.beta, self.count)
        return ranked(boxes[kept], scores[kept])


def edges(image):
    """The thin edges of an image (H, W, 3) uint8.

    Returns:
        `(magnitude, orientation)`, (H, W): 0..1, 0 where there is no edge and on the outermost
        pixels; the direction of the edge in radians, which means the same plus pi, from the x axis
        towards y.
    """
    channels = image.astype(np.float32)
    down, along = (
        gaussian_filter(channels, SIGMA, order=order, axes=(0, 1)) for order in ((1, 0), (0, 1))
    )
    strongest = np.hypot(down, along).argmax(axis=2)[..., None]
    down, along = (np.take_along_axis(g, strongest, axis=2)[..., 0] for g in (down, along))
    magnitude = np.hypot(down, along)
    # A pixel is on an edge where its two neighbours along the gradient are no stronger.
    safe = np.where(magnitude > 0, magnitude, 1)
    here = np.indices(magnitude.shape, dtype=np.float32)
    way = np.stack([down / safe, along / safe])
    beside = [map_coordinates(magnitude, here + s * way, order=1, mode="nearest") for s in (-1, 1)]
    thin = magnitude >= np.maximum(*beside)
    magnitude = magnitude * thin / max(magnitude.max(), 1)
    # A box that ends where the image ends cuts no contour.
    magnitude[[0, -1]] = magnitude[:, [0, -1]] = 0
    return magnitude * (magnitude > LEAST_EDGE), np.arctan2(along, -down)


class Groups(NamedTuple):
    """G edge groups of an image, and what scoring a box looks up.

    Attributes:
        mass: (G,) sums of magnitudes.
        centre: (G, 2) mean positions (x, y), in whole pixels.
        paths: (G, G) sparse: the largest product of affinities along a path between two groups.
        inside: (H + 1, W + 1) sums over rectangles from the corner: of `mass` at `centre`.
        magnitude: the same of the magnitude of edges.
        rows, columns: the groups along each row, and each column, see `Lines`.
    """

    mass: np.ndarray
    centre: np.ndarray
    paths: csr_matrix
    inside: np.ndarray
    magnitude: np.ndarray
    rows: tuple
    columns: tuple


def edge_groups(magnitude, orientation):
    """Joins edge pixels to `Groups` (sections 3.1 and 3.2)."""
    labels = absorb(label_edges(magnitude, orientation), magnitude, orientation)
    if labels.max() < 0:
        return None
    magnitude = magnitude * (labels >= 0)
    y, x = np.nonzero(labels >= 0)
    of, weight, angle = labels[y, x], magnitude[y, x], 2 * orientation[y, x]
    mass = np.bincount(of, weight)
    centre = np.stack([np.bincount(of, weight * p) for p in (x, y)], axis=1) / mass[:, None]
    # Orientations repeat after pi: doubled, they can be averaged as directions.
    angle = 0.5 * np.arctan2(*(np.bincount(of, weight * f(angle)) for f in (np.sin, np.cos)))
    whole = np.rint(centre).astype(int)
    at_centre = np.zeros(labels.shape)
    np.add.at(at_centre, (whole[:, 1], whole[:, 0]), mass)
    return Groups(
        mass=mass,
        centre=whole,
        paths=paths(*affinities(labels, centre, angle), len(mass)),
        inside=integral(at_centre),
        magnitude=integral(magnitude),
        rows=lines(labels),
        columns=lines(labels.T),
    )


def label_edges(magnitude, orientation):
    """Groups (H, W), 0, 1, ..., and -1 where there is no edge.

    A group grows by the 8-connected edge that turns least, until it has turned by pi / 2 in all.
    """
    height, width = magnitude.shape
    # Plain lists with a border of no edges: single elements are read faster than from an array.
    free = np.pad(magnitude > 0, 1).ravel().tolist()
    angle = np.pad(orientation, 1).ravel().tolist()
    labels = [-1] * len(free)
    stride = width + 2
    around = (-stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1)
    count = 0
    for start in np.flatnonzero(free).tolist():
        if not free[start]:
            continue
        turned, frontier = 0.0, [(0.0, start)]
        while frontier:
            turn, p = heapq.heappop(frontier)
            if not free[p]:
                continue
            turned += turn
            if turned > np.pi / 2:
                break
            free[p], labels[p] = False, count
            for step in around:
                q = p + step
                if free[q]:
                    turn = abs(angle[p] - angle[q]) % np.pi
                    heapq.heappush(frontier, (min(turn, np.pi - turn), q))
        count += 1
    return np.reshape(labels, (height + 2, width + 2))[1:-1, 1:-1]


def absorb(labels, magnitude, orientation):
    """Groups (H, W) without small ones, whose pixels join the neighbour that turns least.

    Small groups without a neighbour are left out.
    """
    mass = np.bincount(labels.ravel() + 1, magnitude.ravel())[1:]
    big = mass >= LEAST_GROUP
    small = np.append(~big, False)[labels]
    labels = np.append(np.where(big, np.cumsum(big) - 1, -1), -1)[labels]
    while True:
        y, x = np.nonzero(small & (labels < 0))
        rows, columns = (np.add.outer(p, d.ravel()) for p, d in zip((y, x), AROUND, strict=True))
        near = np.pad(labels, 1, constant_values=-1)[rows + 1, columns + 1]
        turn = np.abs(np.pad(orientation, 1)[rows + 1, columns + 1] - orientation[y, x, None])
        turn = np.where(near < 0, np.inf, np.minimum(turn % np.pi, -turn % np.pi))
        joined = np.take_along_axis(near, turn.argmin(axis=1)[:, None], axis=1)[:, 0]
        if (joined < 0).all():
            return labels
        labels[y, x] = joined


def affinities(labels, centre, angle):
    """The pairs of groups at most 2 pixels apart that continue each other.

    Returns:
        `(first, second, affinity)`, (P,) each: |cos(a - l) cos(b - l)|^GAMMA, where a and b are
        the groups' orientations and l that of the line between their centres; small ones left out.
    """
    count = len(centre)
    padded = np.pad(labels, 2, constant_values=-1)
    height, width = labels.shape
    codes = []
    for dy in range(3):
        for dx in range(-2 if dy else 1, 3):
            other = padded[2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]
            touch = (labels >= 0) & (other >= 0) & (labels != other)
            a, b = labels[touch], other[touch]
            codes.append(np.unique(np.minimum(a, b) * count + np.maximum(a, b)))
    codes = np.unique(np.concatenate(codes))
    first, second = codes // max(count, 1), codes % max(count, 1)
    x, y = (centre[second] - centre[first]).T
    line = np.arctan2(y, x)
    affinity = np.abs(np.cos(angle[first] - line) * np.cos(angle[second] - line)) ** GAMMA
    near = affinity > LEAST_AFFINITY
    return first[near], second[near], affinity[near]


def paths(first, second, affinity, count):
    """(G, G) sparse: the largest products of affinities, of at least LEAST_AFFINITY."""
    # Products become sums of positive lengths, for which the shortest path is known.
    length = np.maximum(-np.log(affinity), 1e-9)
    graph = csr_matrix((length, (first, second)), (count, count))
    parts = []
    for start in range(0, count, CHUNK):
        sources = np.arange(start, min(start + CHUNK, count))
        far = dijkstra(graph, directed=False, indices=sources, limit=-np.log(LEAST_AFFINITY))
        parts.append(csr_matrix(np.exp(-far)))
    return vstack(parts, format="csr")


def integral(values):
    """(H + 1, W + 1): the sums of `values` (H, W) above and left of each corner of pixels."""
    return np.pad(values.cumsum(axis=0, dtype=float).cumsum(axis=1), ((1, 0), (1, 0)))


def box_sums(table, boxes):
    """Sums inside whole-pixel boxes (N, 4), from `integral`."""
    x1, y1, x2, y2 = boxes.T
    return table[y2, x2] - table[y1, x2] - table[y2, x1] + table[y1, x1]


def lines(labels):
    """The groups along each row of `labels` (H, W), to be asked for by the column.

    Returns:
        `(groups, before)`: (E,) the groups of all edge pixels, row by row, and (H, W + 1): how many
        of them come before each pixel.
    """
    present = labels >= 0
    before = np.zeros((labels.shape[0], labels.shape[1] + 1), int)
    before[:, 1:] = present.cumsum(axis=1)
    before += np.append(0, before[:-1, -1].cumsum())[:, None]
    return labels[present], before


def crossing(line, at, start, stop):
    """(box, group) of each edge pixel at start..stop-1 of the rows `at`, (N,) each."""
    groups, before = line
    first, count = before[at, start], before[at, stop] - before[at, start]
    return np.repeat(np.arange(len(at)), count), groups[ranges(first, count)]


def ranges(first, count):
    """The numbers from `first` (N,) on, `count` (N,) of each, after each other."""
    skipped = np.cumsum(count) - count
    return np.repeat(first - skipped, count) + np.arange(count.sum())


def bounds(groups, boxes):
    """Scores of boxes (N, 4) as if no contour crossed them: never below `score`."""
    size = boxes[:, 2:] - boxes[:, :2]
    quarter = np.tile(size // 4, 2) * (1, 1, -1, -1)
    contours = box_sums(groups.inside, boxes) - box_sums(groups.magnitude, boxes + quarter)
    return contours / norm(boxes)


def norm(boxes):
    return 2.0 * (boxes[:, 2:] - boxes[:, :2]).sum(axis=1) ** KAPPA


def score(groups, boxes):
    """Scores of whole-pixel boxes (N, 4): h^in of section 3.3.

    A group inside counts by its mass times one minus the best path to it from a group that the
    box's border crosses. Edges in the middle, of half the box's sides, count against it.
    """
    x1, y1, x2, y2 = boxes.T
    count = len(groups.mass)
    sides = [crossing(groups.rows, y, x1, x2) for y in (y1, y2 - 1)]
    sides += [crossing(groups.columns, x, y1, y2) for x in (x1, x2 - 1)]
    crossed = np.zeros(len(boxes) * count, bool)
    for box, group in sides:
        crossed[box * count + group] = True
    box, group = np.divmod(np.flatnonzero(crossed), count)
    first = groups.paths.indptr[group]
    number = groups.paths.indptr[group + 1] - first
    reached = ranges(first, number)
    lost = np.zeros(len(boxes) * count)
    where = np.repeat(box * count, number) + groups.paths.indices[reached]
    np.maximum.at(lost, where, groups.paths.data[reached])
    some = np.flatnonzero(lost > 0)
    box, group = np.divmod(some, count)
    x, y = groups.centre[group].T
    inside = (x1[box] <= x) & (x < x2[box]) & (y1[box] <= y) & (y < y2[box])
    lost = np.bincount(box, lost[some] * groups.mass[group] * inside, len(boxes))
    return bounds(groups, boxes) - lost / norm(boxes)


def best(groups, boxes, count):
    """The `count` boxes of the largest scores above 0, and these, from the best down."""
    bound = bounds(groups, boxes)
    order = np.argsort(-bound, kind="stable")
    order = order[bound[order] > 0]
    found, scores = np.zeros(0, int), np.zeros(0)
    for chunk in np.split(order, range(CHUNK, len(order), CHUNK)):
        # The rest cannot be among the best.
        if len(scores) == count and bound[chunk[0]] <= scores[-1]:
            break
        found = np.append(found, chunk)
        scores = np.append(scores, score(groups, boxes[chunk]))
        top = np.argsort(-scores, kind="stable")[:count]
        found, scores = found[top], scores[top]
    found, scores = found[scores > 0], scores[scores > 0]
    return boxes[found], scores


def refine(groups, boxes, scores, overlap, height, width):
    """Moves and stretches boxes (N, 4) while their scores rise, in ever smaller steps.

    The first step is half the windows', the last is the first below 2 pixels.
    """
    share = (1 - overlap) / (1 + overlap) / 2
    limits = (width, height, width, height)
    boxes, scores = boxes.copy(), scores.copy()
    while len(boxes) and share * np.max(boxes[:, 2:] - boxes[:, :2]) >= 1:
        for move in MOVES:
            step = np.tile(np.rint(share * (boxes[:, 2:] - boxes[:, :2])), 2)
            moved = np.clip(boxes + step.astype(int) * move, 0, limits)
            chosen = np.flatnonzero(np.all(moved[:, 2:] - moved[:, :2] >= 4, axis=1))
            chosen = chosen[bounds(groups, moved[chosen]) > scores[chosen]]
            for chunk in np.split(chosen, range(CHUNK, len(chosen), CHUNK)):
                found = score(groups, moved[chunk])
                better = found > scores[chunk]
                boxes[chunk[better]] = moved[chunk[better]]
                scores[chunk[better]] = found[better]
        share /= 2
    return boxes, scores


def suppress(boxes, scores, overlap, count):
    """Indices of at most `count` boxes, the best first, none of a larger IoU with a better one."""
    x1, y1, x2, y2 = boxes.T.astype(float)
    area = (x2 - x1) * (y2 - y1)
    left, kept = scores.astype(float), []
    while len(left) and len(kept) < count and left.max() > -np.inf:
        i = left.argmax()
        kept.append(i)
        w = np.minimum(x2[i], x2) - np.maximum(x1[i], x1)
        h = np.minimum(y2[i], y2) - np.maximum(y1[i], y1)
        both = np.maximum(w, 0) * np.maximum(h, 0)
        left[both > overlap * (area[i] + area - both)] = -np.inf
    return np.array(kept, int)
