"""`scenes`, the embedded data set: rendered pictures with every annotation of the course at once.

Objects of eight classes lie like painted cut-outs on textured ground, among clutter of no class.
The classes come in four pairs of like outline (ball and clock, fish and leaf, mushroom and
umbrella, house and mug) and share one palette, so neither colour nor a coarse silhouette tells
them apart.

Every byte is the same on every machine: the pictures are made of raw PCG64 bits and, element by
element, of + - * / and sqrt, which IEEE 754 rounds exactly. Angles are rational points of the
circle, ((1 - t^2) / (1 + t^2), 2 t / (1 + t^2)). Sums over arrays, matrix products, the
transcendental functions and `numpy.random.Generator` are absent, since their last digits or their
streams depend on the processor or on the version.
"""

import functools
import hashlib
import math
from typing import NamedTuple

import numpy as np
from pycocotools import mask as rle

from cvlib.data.sample import DataError, Dataset

# Raised whenever a pixel or an annotation of any variant changes; every digest depends on it.
VERSION = 1

CLASSES = ("ball", "clock", "fish", "leaf", "mushroom", "umbrella", "house", "mug")
STUFF = ("sky", "water", "grass", "sand", "brick")
SPLITS = {"pretrain": 8000, "train": 4000, "val": 500, "test": 1000}

KEYPOINTS = (
    "right_ankle",
    "right_knee",
    "right_hip",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_wrist",
    "right_elbow",
    "right_shoulder",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "neck",
    "head_top",
)
LIMBS = (
    (0, 1),
    (1, 2),
    (3, 4),
    (4, 5),
    (6, 7),
    (7, 8),
    (9, 10),
    (10, 11),
    (12, 13),
    (8, 2),
    (9, 3),
)
FLIP_KEYPOINTS = (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13)


class Variant(NamedTuple):
    """What a variant's pictures hold.

    Attributes:
        objects: fewest and most objects.
        extent: shortest and longest long side of an object, in pixels, before truncation.
        inside: the least share of an object's box that is inside the picture.
        overlap: the most that two objects' boxes may share of the smaller one when they are placed.
        clutter: the most things of no class.
        size: (height, width) of the picture.
        lengths: samples per split.
        classes: what `labels` index into.
        groups: the most groups of tiny objects, annotated together as a crowd.
    """

    objects: tuple
    extent: tuple = (16, 100)
    inside: float = 0.7
    overlap: float = 0.5
    clutter: int = 4
    size: tuple = (128, 128)
    lengths: dict = SPLITS
    classes: tuple = CLASSES
    groups: int = 0


VARIANTS = {
    "": Variant(objects=(1, 6)),
    "single": Variant(objects=(1, 1), extent=(20, 112)),
    "three": Variant(objects=(3, 3), extent=(18, 72), overlap=0.2),
    "figures": Variant(objects=(1, 1), extent=(64, 120), inside=0.85, classes=("person",)),
    "large": Variant(
        objects=(3, 9),
        extent=(20, 96),
        clutter=14,
        size=(384, 512),
        lengths={"pretrain": 2000, "train": 1000, "val": 125, "test": 250},
    ),
    "crowd": Variant(objects=(8, 14), extent=(16, 52), overlap=0.7, clutter=2, groups=2),
}


def segmentation_classes(variant=""):
    """Names of the values of `segmentation` in a variant of `scenes`.

    Value 0 is `"background"`, which is here the clutter: things of no class. Values 1 to C are the
    object classes, `labels + 1` as in VOC. The stuff follows: sky, water, grass, sand, brick.
    """
    return ("background", *VARIANTS[variant].classes, *STUFF)


def scenes(variant, split, on_error="raise"):
    """The embedded data set, rendered as it is read.

    Args:
        variant: `""` (1 to 6 objects), `"single"` (one object, the image has its `label`),
            `"three"` (exactly three objects), `"figures"` (one articulated person with 14 joints),
            `"large"` (512 x 384, small objects) or `"crowd"` (8 to 14 objects that overlap, and
            groups of tiny ones annotated with `crowd`). All but `"large"` are 128 x 128.
        split: `"pretrain"`, `"train"`, `"val"` or `"test"`; their seeds are disjoint.
        on_error: accepted because every reader is called alike; nothing here can be corrupt.

    Returns:
        A `Dataset` of samples as `render` makes them.

    Raises:
        DataError: the variant or the split does not exist.
    """
    if variant not in VARIANTS:
        names = ", ".join(f"scenes:{name}" if name else "scenes" for name in VARIANTS)
        raise DataError(f"scenes:{variant}: there is no such variant; there are {names}.")
    name = f"scenes:{variant}" if variant else "scenes"
    lengths = VARIANTS[variant].lengths
    if split not in lengths:
        raise DataError(f"{name}: there is no split {split!r}; there are {', '.join(lengths)}.")
    keypoints = {}
    if variant == "figures":
        keypoints = dict(keypoint_names=KEYPOINTS, limbs=LIMBS, flip_keypoints=FLIP_KEYPOINTS)
    return Dataset(
        name=name,
        split=split,
        classes=VARIANTS[variant].classes,
        image_ids=[f"{split}-{i:05d}" for i in range(lengths[split])],
        read=functools.partial(render, variant, split),
        digest=lambda: hashlib.sha256(f"{VERSION} {name} {split}".encode()).hexdigest(),
        **keypoints,
    )


def render(variant, split, index):
    """Sample `index` of a split, see `cvlib.data.load` for the keys.

    `masks` hold what is visible: what lies in front is left out. `boxes` are tight around them and
    `area` counts their pixels. An object of which less than a quarter is visible (covered, or
    outside the picture) is `difficult`; one of which nothing is visible is left out. Values of
    `segmentation` are named by `segmentation_classes`. `keypoints` are visible 2, occluded by
    something or by the body itself 1, outside the picture 0 (and then at the origin, as in COCO).
    """
    spec = VARIANTS[variant]
    dice = _Dice(list(VARIANTS).index(variant), list(SPLITS).index(split), index)
    picture = _Picture(*_ground(spec.size, dice))
    _litter(picture, dice, _PIECES, dice.below(spec.clutter + 1), 8.0, 44.0)
    if variant == "figures":
        _person(picture, spec, dice)
        _litter(picture, dice, _PIECES, dice.below(3), 20.0, 44.0)
    else:
        _objects(picture, spec, dice)
    _litter(picture, dice, _LINES, dice.below(2), 30.0, 90.0)
    picture.light(dice)
    sample = {"image": picture.image(), "image_id": f"{split}-{index:05d}"}
    sample |= picture.annotations(len(spec.classes))
    if variant == "single":
        sample["label"] = int(sample["labels"][0])
    return sample


class _Dice:
    """Random choices from raw PCG64 bits."""

    def __init__(self, *seed):
        self._bits = np.random.PCG64([VERSION, *seed])
        self._pool = []

    def uniform(self, low=0.0, high=1.0):
        if not self._pool:
            # 53 bits fill a double's mantissa, so the conversion rounds nothing.
            raw = self._bits.random_raw(128) >> np.uint64(11)
            self._pool = (raw.astype(np.float64) / 2.0**53).tolist()
        return low + (high - low) * self._pool.pop()

    def below(self, n):
        return int(self.uniform() * n)

    def between(self, low, high):
        return low + self.below(high - low + 1)

    def pick(self, options):
        return options[self.below(len(options))]

    def chance(self, probability):
        return self.uniform() < probability


# ------------------------------------------------------------------------------------ textures


def _rgb(*channels):
    return np.array(channels, np.float32).reshape(3, 1, 1)


def _noise(bits, shape, cell):
    """Value noise in [0, 1]: random values on a lattice of `cell` (rows, columns), interpolated."""
    (height, width), (rows, columns) = shape, cell
    lattice = (height // rows + 2, width // columns + 2)
    raw = bits.random_raw(lattice[0] * lattice[1]) >> np.uint64(40)
    values = (raw.astype(np.float32) / np.float32(2**24)).reshape(lattice)

    def weights(length, step):
        cells, offset = np.divmod(np.arange(length), step)
        t = (offset.astype(np.float32) + np.float32(0.5)) / np.float32(step)
        return cells, t * t * (3.0 - 2.0 * t)

    cells, t = weights(height, rows)
    values = values[cells] + (values[cells + 1] - values[cells]) * t[:, None]
    cells, t = weights(width, columns)
    left = values.take(cells, axis=1)
    return left + (values.take(cells + 1, axis=1) - left) * t


def _wave(x):
    """Triangle wave of period 1: 0 at the integers, 1 between them."""
    return 1.0 - np.abs(2.0 * (x - np.floor(x)) - 1.0)


def _unit(x):
    return np.clip(x, 0.0, 1.0)


# Textures are cut out of larger tables at random places; a large picture needs 384 x 512.
_TABLE = (512, 768)


@functools.cache
def _textures():
    """Two fields in [0, 1] per kind of stuff, each the weight of one of its colours."""
    bits = np.random.PCG64([VERSION, 1000])

    def noise(rows, columns):
        return _noise(bits, _TABLE, (rows, columns))

    y = np.arange(_TABLE[0], dtype=np.float32)[:, None]
    x = np.arange(_TABLE[1], dtype=np.float32)
    cloud = noise(36, 60) * 0.5 + noise(16, 26) * 0.3 + noise(7, 11) * 0.14 + noise(3, 4) * 0.06
    ripple = noise(4, 17) * 0.5 + noise(7, 33) * 0.35 + noise(2, 7) * 0.15
    crest = 1.0 - np.abs(2.0 * ripple - 1.0)
    blades = noise(7, 2) * 0.6 + noise(4, 2) * 0.4
    dune = noise(30, 60) * 10.0 + y / 9.0 + x / 40.0
    row = np.floor(y / 12.0)
    along = x / 26.0 + 0.5 * (row - 2.0 * np.floor(row / 2.0))
    column = np.floor(along)
    joint = np.minimum((along - column) * 26.0, y - row * 12.0)
    # Any fixed scrambling of the brick's row and column gives each brick its own tone.
    tone = (row * 5.0 + column * 3.0) * (row + column * 7.0 + 2.0) / 11.0
    tone = tone - np.floor(tone)
    grain = noise(1, 1)
    fields = {
        "sky": (_unit((cloud - 0.5) * 4.0), noise(60, 90)),
        "water": (_unit((crest - 0.8) * 5.0), noise(20, 50) * 0.7 + ripple * 0.3),
        "grass": (_unit((blades - 0.45) * 2.5), noise(24, 30) * 0.6 + noise(6, 3) * 0.4),
        "sand": (_wave(dune) * 0.55 + grain * 0.45, noise(2, 2) * 0.5 + noise(20, 26) * 0.5),
        "brick": (_unit(2.0 - joint), tone * 0.7 + grain * 0.15 + noise(2, 3) * 0.15),
    }
    return {name: tuple(f.astype(np.float32) for f in pair) for name, pair in fields.items()}


@functools.cache
def _grain():
    """Noise that is nearly normal (a sum of four uniform ones), of standard deviation 1."""
    bits = np.random.PCG64([VERSION, 1001])
    total = np.zeros(_TABLE, np.float32)
    for _ in range(4):
        raw = bits.random_raw(total.size) >> np.uint64(40)
        total += raw.astype(np.float32).reshape(_TABLE) / np.float32(2**24) - 0.5
    return total * 1.7320508


def _cut(table, dice, shape):
    top = dice.below(table.shape[0] - shape[0] + 1)
    left = dice.below(table.shape[1] - shape[1] + 1)
    return table[top : top + shape[0], left : left + shape[1]]


# Per kind: base colour, colour of the first field, colour of the second.
_GROUND = {
    "sky": (
        (_rgb(126, 178, 222), _rgb(246, 248, 250), _rgb(92, 150, 208)),
        (_rgb(240, 190, 150), _rgb(252, 226, 200), _rgb(206, 140, 140)),
        (_rgb(168, 188, 202), _rgb(222, 228, 232), _rgb(140, 162, 182)),
    ),
    "water": (
        (_rgb(58, 120, 168), _rgb(176, 216, 232), _rgb(36, 88, 140)),
        (_rgb(64, 146, 150), _rgb(190, 230, 222), _rgb(34, 104, 118)),
        (_rgb(98, 128, 146), _rgb(206, 218, 222), _rgb(66, 94, 114)),
    ),
    "grass": (
        (_rgb(78, 124, 62), _rgb(132, 172, 84), _rgb(52, 96, 52)),
        (_rgb(112, 140, 64), _rgb(176, 190, 96), _rgb(82, 110, 54)),
        (_rgb(60, 108, 74), _rgb(110, 158, 104), _rgb(38, 80, 62)),
    ),
    "sand": (
        (_rgb(206, 178, 130), _rgb(232, 210, 166), _rgb(184, 150, 104)),
        (_rgb(196, 160, 124), _rgb(222, 192, 156), _rgb(168, 130, 98)),
        (_rgb(186, 180, 166), _rgb(214, 208, 194), _rgb(158, 150, 136)),
    ),
    "brick": (
        (_rgb(160, 86, 66), _rgb(206, 194, 180), _rgb(196, 118, 90)),
        (_rgb(186, 148, 108), _rgb(222, 214, 198), _rgb(216, 184, 140)),
        (_rgb(126, 112, 108), _rgb(178, 172, 166), _rgb(160, 144, 136)),
    ),
}


def _ground(shape, dice):
    """Two or three regions of stuff, one above another, sometimes one alone.

    Returns:
        (3, H, W) float32 colours and (H, W) uint8 indices into `STUFF`.
    """
    height, width = shape
    bands = dice.pick((1, 2, 2, 2, 2, 3, 3))
    kinds = list(STUFF)
    chosen = [kinds.pop(dice.below(len(kinds))) for _ in range(bands)]
    if "sky" in chosen:
        chosen.remove("sky")
        chosen.insert(0, "sky")
    y = np.arange(height, dtype=np.float32)[:, None]
    for band, kind in enumerate(chosen):
        base, first, second = dice.pick(_GROUND[kind])
        f, g = (_cut(table, dice, (height, width)) for table in _textures()[kind])
        tint = _rgb(*(dice.uniform(-14.0, 14.0) for _ in range(3)))
        rgb = (base + tint) + (second - base) * g
        rgb += (first - base - (second - base) * 0.5) * f
        if band == 0:
            painted = rgb
            owner = np.full(shape, STUFF.index(kind), np.uint8)
            continue
        wavy = 0.0 if kind == "brick" else dice.uniform(4.0, 40.0)
        level = height * (band + dice.uniform(-0.4, 0.4)) / bands
        slope = dice.uniform(-0.15, 0.15)
        profile = _cut(_textures()["sky"][1], dice, (1, width))
        x = np.arange(width, dtype=np.float32)
        cover = _unit(y - (level + (x - width / 2) * slope + (profile - 0.5) * wavy) + 0.5)
        painted += (rgb - painted) * cover
        np.copyto(owner, STUFF.index(kind), where=cover > 0.5)
    return painted, owner


# ---------------------------------------------------------------------------- shapes and paint

_PALETTE = (
    (224, 88, 74),
    (238, 142, 62),
    (244, 196, 80),
    (160, 186, 84),
    (88, 148, 86),
    (56, 150, 144),
    (96, 164, 210),
    (66, 100, 176),
    (132, 98, 176),
    (230, 140, 166),
    (140, 94, 66),
    (104, 114, 132),
)
_CREAM = _rgb(248, 240, 220)
_WHITE = _rgb(252, 252, 250)
_DARK = _rgb(44, 40, 48)


def _ink(dice):
    return _rgb(*(channel + dice.uniform(-14.0, 14.0) for channel in dice.pick(_PALETTE)))


def _turn(t):
    """The point of the circle at half-angle tangent `t`: (cosine, sine)."""
    return (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)


# Signed distances in the units of their arguments: negative inside.


def _ellipse(u, v, a, b):
    x, y = u / a, v / b
    return (np.sqrt(x * x + y * y) - 1.0) * min(a, b)


def _disc(u, v, r):
    return np.sqrt(u * u + v * v) - r


def _box(u, v, a, b):
    return np.maximum(np.abs(u) - a, np.abs(v) - b)


def _capsule(u, v, start, end, r, r_end=None):
    (x0, y0), (x1, y1) = start, end
    dx, dy = x1 - x0, y1 - y0
    x, y = u - x0, v - y0
    t = _unit((x * dx + y * dy) / (dx * dx + dy * dy + 1e-9))
    x, y = x - t * dx, y - t * dy
    return np.sqrt(x * x + y * y) - (r if r_end is None else r + (r_end - r) * t)


def _convex(u, v, *points):
    """A convex polygon, its corners clockwise as seen on the screen."""
    inside = None
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        dx, dy = x1 - x0, y1 - y0
        length = math.sqrt(dx * dx + dy * dy)
        edge = (u - x0) * (dy / length) - (v - y0) * (dx / length)
        inside = edge if inside is None else np.maximum(inside, edge)
    return inside


class _Brush:
    """Paints one object in a window.

    Attributes:
        u, v: (H, W) coordinates of the object, which fills about [-1, 1]; v points down.
        scale: pixels per unit.
        rgb: (3, H, W) paint.
        distance: (H, W) signed distance to the silhouette, in pixels.
    """

    def __init__(self, u, v, scale):
        self.u, self.v, self.scale = u, v, scale
        self.rgb = np.empty((3, *u.shape), np.float32)
        self.distance = None

    def part(self, distance, colour):
        """Adds to the silhouette."""
        distance = distance * self.scale
        if self.distance is None:
            self.rgb[:] = colour
            self.distance = distance
        else:
            # Half a pixel wider, so that the rim shows this part's colour and not the one below.
            self.rgb += (colour - self.rgb) * _unit(1.0 - distance)
            self.distance = np.minimum(self.distance, distance)

    def mark(self, distance, colour, opacity=1.0):
        """Paints on the silhouette without adding to it."""
        self.rgb += (colour - self.rgb) * (_unit(0.5 - distance * self.scale) * opacity)

    def shade(self, factor):
        self.rgb *= factor

    def round_off(self):
        """Darkens the rim of the silhouette."""
        self.shade(1.03 - 0.3 * _unit(1.0 + self.distance / 3.0))


def _ball(b, dice):
    u, v = b.u, b.v
    first, second = _ink(dice), _ink(dice)
    square = u * u + v * v
    b.part(np.sqrt(square) - 0.98, first)
    meridian = np.abs(u / np.sqrt(np.maximum(1.0 - v * v, 0.02)) - dice.uniform(-0.3, 0.3))
    b.mark(np.abs(meridian - 0.6) - 0.2, _WHITE)
    b.mark(meridian - 0.25, second)
    b.mark(_ellipse(u, v + 0.9, 0.3, 0.16), _WHITE)
    height = np.sqrt(np.maximum(1.0 - square, 0.0))
    b.shade(0.5 + 0.62 * height)
    b.mark(_disc(u + 0.34, v + 0.4, 0.16), _WHITE, 0.55)


def _clock(b, dice):
    u, v = b.u, b.v
    body, trim = _ink(dice), _ink(dice)
    if dice.chance(0.5):
        for side in (-1.0, 1.0):
            b.part(_disc(u - 0.55 * side, v + 0.72, 0.27), trim)
            b.part(_capsule(u, v, (0.4 * side, 0.6), (0.66 * side, 0.94), 0.08), trim)
    b.part(_disc(u, v, 0.9), body)
    b.mark(_disc(u, v, 0.7), _CREAM)
    # Twelve ticks fold onto two: the one at three o'clock and the one at two o'clock.
    x, y = np.abs(u), np.abs(v)
    x, y = np.maximum(x, y), np.minimum(x, y)
    ticks = np.minimum(
        _box(x - 0.57, y, 0.09, 0.045),
        _box(0.866 * x + 0.5 * y - 0.6, 0.866 * y - 0.5 * x, 0.05, 0.03),
    )
    b.mark(ticks, _DARK)
    for length, width in ((0.34, 0.07), (0.52, 0.045)):
        c, s = _turn(dice.uniform(-3.0, 3.0))
        b.mark(_capsule(u, v, (0.0, 0.0), (c * length, s * length), width), _DARK)
    b.mark(_disc(u, v, 0.09), trim)
    b.mark(_disc(u + 0.25, v + 0.3, 0.3), _WHITE, 0.25)


def _fish(b, dice):
    u, v = b.u, b.v
    body, fins = _ink(dice), _ink(dice)
    bend = dice.uniform(-0.15, 0.15)
    flare = dice.uniform(0.3, 0.5)
    tips = (-0.98, bend - flare), (-0.98, bend + flare)
    tail = _convex(u, v, tips[0], (-0.42, -0.02), (-0.42, 0.06), tips[1])
    b.part(np.maximum(tail, -_disc(u + 1.08, v - bend, 0.16)), fins)
    back = dice.uniform(-0.4, 0.1)
    b.part(_convex(u, v, (-0.15, -0.3), (back, -0.6), (0.3, -0.56), (0.5, -0.25)), fins)
    curve = v - bend * (0.2 - u) * (0.2 - u) * 0.6
    shape = np.maximum(_disc(u - 0.2, curve - 0.42, 0.9), _disc(u - 0.2, curve + 0.42, 0.9))
    b.part(shape, body)
    b.mark(np.maximum(shape, 0.1 - curve), _CREAM, 0.6)
    if dice.chance(0.5):
        scales = _wave(u * 4.5 + 0.5 * np.floor(v * 6.0)) * _wave(v * 6.0)
        b.mark(np.maximum((0.3 - scales) * 0.15, u - 0.5), fins, 0.5)
    else:
        stripes = (0.55 - _wave(u * 2.2 + dice.uniform())) * 0.22
        b.mark(np.maximum(stripes, np.maximum(shape, u - 0.5)), fins)
    b.mark(np.maximum(np.abs(_disc(u - 0.2, v, 0.36)) - 0.025, 0.35 - u), _DARK, 0.5)
    b.mark(_disc(u - 0.7, v + 0.08, 0.1), _WHITE)
    b.mark(_disc(u - 0.72, v + 0.08, 0.055), _DARK)
    b.part(_convex(u, v, (0.0, 0.1), (0.25, 0.1), (-0.1, dice.uniform(0.3, 0.5))), fins)
    b.shade(1.08 - 0.35 * np.abs(curve + 0.12))


def _leaf(b, dice):
    u, v = b.u, b.v
    blade, vein = _ink(dice), _ink(dice)
    bend = dice.uniform(-0.2, 0.2)
    v = v - bend * (u * u - 0.4)
    b.part(_capsule(u, v, (-0.98, 0.0), (-0.6, 0.0), 0.045), vein)
    width = dice.uniform(0.36, 0.52)
    radius = (0.82 * 0.82 + width * width) / (2.0 * width)
    side = np.abs(v)
    shape = _disc(u - 0.16, side + (radius - width), radius)
    shape = shape + _wave(u * dice.uniform(5.0, 8.0)) * 0.05
    b.part(shape, blade)
    b.shade(1.16 - 0.3 * _unit(0.5 + v * b.scale))
    slant = (_wave((u - side * 0.9) * dice.uniform(3.0, 4.5)) - 0.14) * 0.12
    b.mark(np.maximum(slant, shape + 0.03), vein)
    b.mark(np.maximum(side - 0.03, np.abs(u - 0.1) - 0.8), vein)


def _dome(u, v, hem=0.0):
    """What mushroom and umbrella share: the upper half of an ellipse, cut off `hem` higher."""
    return np.maximum(_ellipse(u, v, 0.98, 0.96), v + hem)


def _mushroom(b, dice):
    u, v = b.u, b.v
    cap, stem = _ink(dice), _CREAM - dice.uniform(0.0, 40.0)
    foot, lean = dice.uniform(0.2, 0.38), dice.uniform(-0.25, 0.25)
    x = u - lean * (v + 0.1)
    stalk = np.maximum(np.abs(x) - (foot - 0.06 + 0.12 * v), np.abs(v - 0.42) - 0.55)
    b.part(stalk, stem)
    b.shade(1.0 - 0.5 * np.abs(x + 0.1))
    b.part(np.maximum(_ellipse(u, v - 0.1, 0.82, 0.16), -v), stem * 0.7)
    dome = _dome(u, v - 0.12)
    b.part(dome, cap)
    for _ in range(dice.between(3, 6)):
        x, y = dice.uniform(-0.75, 0.75), dice.uniform(-0.7, 0.0)
        r = dice.uniform(0.08, 0.17)
        b.mark(np.maximum(_ellipse(u - x, v - y, r, r * 0.8), dome), _WHITE)
    b.mark(dome, b.rgb * (1.1 - 0.5 * (u * u + (v + 0.4) * (v + 0.4))))


def _umbrella(b, dice):
    u, v = b.u, b.v
    first, second = _ink(dice), _ink(dice)
    handle, reach = _ink(dice), dice.uniform(0.6, 0.8)
    hook = 0.13 if dice.chance(0.5) else -0.13
    b.part(_capsule(u, v, (0.0, -0.95), (0.0, reach), 0.05), handle)
    ring = np.maximum(np.abs(_disc(u - hook, v - reach, 0.13)) - 0.05, reach - v)
    b.part(ring, handle)
    across = u / np.sqrt(np.maximum(1.0 - v * v, 0.05))
    panels = dice.pick((1.0, 1.5, 2.0))
    scallop = _wave(across * panels + (0.0 if panels == 1.5 else 0.5))
    dome = _dome(u, v - 0.06, scallop * 0.14)
    b.part(dome, first)
    b.mark(np.maximum((_wave(across * panels / 2.0) - 0.5) * 0.5, dome), second)
    b.mark(dome, b.rgb * (1.05 - 0.35 * _wave(across * panels)))


def _house(b, dice):
    u, v = b.u, b.v
    wall, roof, door = _ink(dice), _ink(dice), _ink(dice)
    wall = wall * 0.5 + _CREAM * 0.5
    eaves = dice.uniform(-0.3, -0.05)
    side = dice.pick((-1.0, 1.0))
    b.part(_box(u - 0.5 * side, v + 0.62, 0.12, 0.32), roof * 0.8)
    body = np.maximum(np.abs(u) - 0.78, np.maximum(v - 0.96, eaves - v))
    b.part(body, wall)
    b.mark(np.maximum((_wave(v * 4.0) - 0.12) * 0.12, body), wall * 0.8)
    gable = _convex(u, v, (-0.98, eaves + 0.06), (0.0, -0.98), (0.98, eaves + 0.06))
    b.part(gable, roof)
    b.mark(np.maximum((_wave(v * 5.0) - 0.2) * 0.1, gable), roof * 0.75)
    place = dice.uniform(0.2, 0.45) * side
    b.mark(np.maximum(np.abs(u - place) - 0.2, 0.32 - v), door)
    b.mark(_disc(u - place - 0.11, v - 0.66, 0.04), _CREAM)
    x, y = np.abs(u + place), np.abs(v - 0.36)
    b.mark(_box(x, y, 0.24, 0.24), _WHITE)
    b.mark(_box(x - 0.1, y - 0.1, 0.075, 0.075), _rgb(120, 156, 184))
    b.shade(1.04 - 0.12 * u)


def _mug(b, dice):
    u, v = b.u, b.v
    body, trim = _ink(dice), _ink(dice)
    grip = dice.uniform(0.3, 0.44)
    b.part(np.abs(_ellipse(u - 0.5, v - dice.uniform(-0.1, 0.15), grip, 0.42)) - 0.085, body * 0.9)
    x = u + 0.22
    taper = 0.7 - 0.1 * (v + 0.7) * dice.uniform(0.0, 1.0)
    shape = np.maximum(np.maximum(np.abs(x) - taper, v - 0.9 + 0.12 * x * x), -0.68 - v)
    b.part(shape, body)
    kind = dice.below(3)
    if kind == 0:
        b.mark(np.maximum(np.abs(v - 0.1) - 0.2, shape), trim)
    elif kind == 1:
        dots = _disc(_wave(x * 1.6) * 0.3 - 0.3, _wave(v * 1.6) * 0.3 - 0.3, 0.14)
        b.mark(np.maximum(dots, shape), trim)
    else:
        b.mark(np.maximum((_wave(x * 2.0) - 0.5) * 0.25, shape), trim)
    b.mark(shape, b.rgb * (1.08 - 0.6 * (x + 0.2) * (x + 0.2)))
    b.part(_ellipse(x, v + 0.7, 0.7, 0.17), body * 0.5 + _WHITE * 0.5)
    b.mark(_ellipse(x, v + 0.68, 0.6, 0.115), _rgb(84, 56, 42))


def _stone(b, dice):
    u, v = b.u, b.v
    b.part(_ellipse(u, v, 0.96, 0.8) + 0.12 * _wave(u * 0.7 + v * 0.4 + dice.uniform()), _ink(dice))
    b.shade(1.05 - 0.25 * (u + v))


def _plank(b, dice):
    b.part(_box(b.u, b.v, 0.97, dice.uniform(0.1, 0.6)), _ink(dice))
    b.shade(0.85 + 0.2 * _wave(b.v * dice.uniform(2.0, 6.0)))


def _scrap(b, dice):
    top, right = (dice.uniform(-0.8, 0.8), -0.9), (0.95, dice.uniform(0.2, 0.9))
    b.part(_convex(b.u, b.v, (-0.95, 0.6), top, right), _ink(dice))
    b.shade(1.0 - 0.2 * b.u)


def _hoop(b, dice):
    ring = np.abs(_ellipse(b.u, b.v, 0.85, dice.uniform(0.4, 0.85)))
    b.part(ring - dice.uniform(0.05, 0.12), _ink(dice))


def _twig(b, dice):
    bend = (dice.uniform(-0.3, 0.3), dice.uniform(-0.2, 0.2))
    ink = _ink(dice)
    b.part(_capsule(b.u, b.v, (-0.95, dice.uniform(-0.3, 0.3)), bend, 0.05), ink)
    b.part(_capsule(b.u, b.v, bend, (0.95, dice.uniform(-0.3, 0.3)), 0.04), ink)


# What paints each class, and the half extents (across, down) of what it paints.
_PAINTERS = {
    "ball": (_ball, 1.0, 1.0),
    "clock": (_clock, 0.95, 1.0),
    "fish": (_fish, 1.0, 0.64),
    "leaf": (_leaf, 1.0, 0.56),
    "mushroom": (_mushroom, 1.0, 1.0),
    "umbrella": (_umbrella, 1.0, 1.0),
    "house": (_house, 1.0, 1.0),
    "mug": (_mug, 1.0, 0.9),
}
_PIECES = ((_stone, 1.0, 1.0), (_plank, 1.0, 0.65), (_scrap, 1.0, 0.95), (_hoop, 1.0, 0.95))
_LINES = ((_twig, 1.0, 0.45),)


# ------------------------------------------------------------------------------------- figures

_SKIN = ((246, 214, 186), (228, 182, 146), (196, 144, 106), (150, 102, 72), (98, 66, 50))
_HAIR = ((40, 32, 32), (92, 60, 40), (168, 116, 62), (222, 186, 110), (150, 146, 146))


def _step(point, direction, length):
    return point[0] + direction[0] * length, point[1] + direction[1] * length


def _rotated(direction, turn):
    """`direction` turned by the angle of `turn`, both (cosine, sine)."""
    (x, y), (c, s) = direction, turn
    return x * c - y * s, x * s + y * c


def _pose(front, dice):
    """The 14 joints of a person about 2 units tall, in the order of `KEYPOINTS`.

    Seen from the front, the person's right is at the left of the picture.
    """
    right = -1.0 if front else 1.0
    lean = _turn(dice.uniform(-0.2, 0.2))
    up, across = _rotated((0.0, -1.0), lean), _rotated((1.0, 0.0), lean)
    turned = dice.uniform(0.5, 1.0)
    neck = _step((0.0, 0.0), up, 0.6)
    head_top = _step(neck, _rotated(up, _turn(dice.uniform(-0.15, 0.15))), 0.36)

    def limb(side, root, upper, lower, swing, bend):
        # Angles from hanging down, positive away from the body.
        first = _rotated((0.0, 1.0), _turn(-side * dice.uniform(*swing)))
        second = _rotated(first, _turn(-side * dice.uniform(*bend)))
        middle = _step(root, first, upper)
        return root, middle, _step(middle, second, lower)

    legs, arms = [], []
    for side in (right, -right):
        hip = _step((0.0, 0.0), across, 0.12 * side * turned)
        shoulder = _step(_step(neck, up, -0.08), across, 0.22 * side * turned)
        legs.append(limb(side, hip, 0.46, 0.44, (-0.1, 0.5), (-0.45, 0.25)))
        arms.append(limb(side, shoulder, 0.34, 0.32, (-0.15, 2.2), (-0.6, 1.0)))
    # The order of the Leeds Sports Poses runs up one limb and down the other.
    (right_leg, left_leg), (right_arm, left_arm) = legs, arms
    return [*right_leg[::-1], *left_leg, *right_arm[::-1], *left_arm, neck, head_top]


def _figure(b, dice, joints, front):
    """Paints a person.

    Returns:
        For each joint, whether no other part of the body covers it.
    """
    u, v = b.u, b.v
    skin, hair = _rgb(*dice.pick(_SKIN)), _rgb(*dice.pick(_HAIR))
    shirt, trousers, shoes = _ink(dice), _ink(dice), _ink(dice)
    lower_arm, lower_leg = dice.pick((skin, skin, shirt)), dice.pick((skin, trousers, trousers))
    girth = dice.uniform(0.85, 1.15)
    layer = np.full(u.shape, -1, np.int8)
    parts = []

    def part(distance, colour, *owned):
        """A part of the body, darker at its rim, and the joints that may show on it."""
        b.part(distance, colour * (1.05 - 0.3 * _unit(1.0 + distance * 12.0)))
        np.copyto(layer, len(parts), where=distance < 0.0)
        parts.append(owned)

    def leg(ankle, knee, hip):
        r = 0.095 * girth
        outward = 1.0 if joints[ankle][0] > joints[hip][0] else -1.0
        toe = _step(joints[ankle], (outward, 0.0), 0.11)
        part(_capsule(u, v, joints[ankle], toe, 0.06), shoes, ankle)
        part(_capsule(u, v, joints[knee], joints[ankle], 0.8 * r, 0.05), lower_leg, ankle, knee)
        part(_capsule(u, v, joints[hip], joints[knee], r, 0.8 * r), trousers, knee, hip)

    def arm(wrist, elbow, shoulder):
        r = 0.07 * girth
        part(_disc(u - joints[wrist][0], v - joints[wrist][1], 0.06), skin, wrist)
        part(_capsule(u, v, joints[elbow], joints[wrist], 0.85 * r, 0.045), lower_arm, wrist, elbow)
        part(_capsule(u, v, joints[shoulder], joints[elbow], r, 0.85 * r), shirt, elbow, shoulder)

    def torso():
        part(_capsule(u, v, joints[12], joints[13], 0.055), skin, 12)
        right_hip, left_hip, right_shoulder, left_shoulder = (joints[i] for i in (2, 3, 8, 9))
        corners = right_shoulder, left_shoulder, left_hip, right_hip
        shape = _convex(u, v, *(corners if front else corners[::-1])) - 0.03
        for shoulder, hip in ((right_shoulder, right_hip), (left_shoulder, left_hip)):
            shape = np.minimum(shape, _capsule(u, v, shoulder, hip, 0.07 * girth, 0.09 * girth))
        part(shape, shirt, 2, 3, 8, 9, 12)
        if dice.chance(0.4):
            b.mark(np.maximum((_wave(v * 5.0) - 0.5) * 0.2, shape), _ink(dice))

    def head():
        (x0, y0), (x1, y1) = joints[12], joints[13]
        # The head's own axes: `down` runs from its top to the neck.
        length = math.sqrt((x1 - x0) * (x1 - x0) + (y1 - y0) * (y1 - y0))
        c, s = (y0 - y1) / length, (x1 - x0) / length
        x, y = u - (x0 + 0.6 * (x1 - x0)), v - (y0 + 0.6 * (y1 - y0))
        x, y = x * c + y * s, y * c - x * s
        shape = _ellipse(x, y, 0.125, 0.165)
        part(shape, skin if front else hair, 12, 13)
        if front:
            b.mark(np.maximum(shape, y + 0.05 + dice.uniform(-0.4, 0.4) * x), hair)
            b.mark(_disc(np.abs(x) - 0.05, y - 0.01, 0.02), _DARK)
            b.mark(_ellipse(x, y - 0.09, 0.045, 0.014), _rgb(160, 60, 60))

    right_arm, left_arm = (6, 7, 8), (11, 10, 9)
    behind = [limb for limb in (right_arm, left_arm) if dice.chance(0.3)]
    for limb in behind:
        arm(*limb)
    for limb in ((0, 1, 2), (5, 4, 3)):
        leg(*limb)
    torso()
    head()
    for limb in (right_arm, left_arm):
        if limb not in behind:
            arm(*limb)

    left, top = float(u[0, 0]), float(v[0, 0])

    def bare(i):
        x, y = joints[i]
        shown = layer[int((y - top) * b.scale + 0.5), int((x - left) * b.scale + 0.5)]
        return shown < 0 or i in parts[shown]

    return [bare(i) for i in range(len(joints))]


# --------------------------------------------------------------------------------- composition


def _brush(centre, extent, half, turn=(1.0, 0.0), aspect=1.0, mirror=1.0):
    """A brush over the window of an object, and the window's top left corner.

    Args:
        centre: (x, y) in the picture, where the object's own coordinates are 0.
        extent: pixels across two of the object's units.
        half: half extents (across, down) of the object, in its units.
        turn: (cosine, sine) of its rotation.
        aspect: below 1 it gets narrower, above 1 flatter.
        mirror: -1 exchanges its left and right.
    """
    (x, y), (c, s) = centre, turn
    across, down = extent / 2.0 * min(aspect, 1.0), extent / 2.0 / max(aspect, 1.0)
    a, b = across * half[0], down * half[1]
    reach_x, reach_y = a * abs(c) + b * abs(s) + 2.0, a * abs(s) + b * abs(c) + 2.0
    left, top = math.floor(x - reach_x), math.floor(y - reach_y)
    dx = np.arange(left, math.ceil(x + reach_x), dtype=np.float32) + (0.5 - x)
    dy = (np.arange(top, math.ceil(y + reach_y), dtype=np.float32) + (0.5 - y))[:, None]
    u = dx * (mirror * c / across) + dy * (mirror * s / across)
    v = dx * (-s / down) + dy * (c / down)
    return _Brush(u, v, min(across, down)), left, top


def _shared(a, b):
    """Area that two boxes share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    return max(width, 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)


def _spot(spec, dice, extent, half, taken):
    """A random place for an object; until there is room among the boxes `taken`, it shrinks.

    Returns:
        Its centre, its extent and its box, which is added to `taken`.
    """
    height, width = spec.size
    while True:
        x, y = dice.uniform(0.0, width), dice.uniform(0.0, height)
        a, b = extent / 2.0 * half[0], extent / 2.0 * half[1]
        box = (x - a, y - b, x + a, y + b)
        size = 4.0 * a * b
        if _shared(box, (0.0, 0.0, width, height)) >= spec.inside * size and all(
            _shared(box, other) <= spec.overlap * min(size, _shared(other, other))
            for other in taken
        ):
            taken.append(box)
            return (x, y), extent, box
        extent *= 0.97


def _painted(painter, dice, centre, extent, tilt=3.0):
    """A brush that has painted, and its window's top left corner."""
    draw, *half = painter
    aspect = dice.pick((1.0, dice.uniform(0.7, 1.4)))
    turn = _turn(dice.uniform(-tilt, tilt))
    brush, left, top = _brush(centre, extent, half, turn, aspect, dice.pick((-1.0, 1.0)))
    draw(brush, dice)
    brush.round_off()
    return brush, left, top


def _litter(picture, dice, painters, number, low, high):
    """Things of no class, anywhere."""
    height, width = picture.owner.shape
    for _ in range(number):
        centre = dice.uniform(0.0, width), dice.uniform(0.0, height)
        thing = _painted(dice.pick(painters), dice, centre, dice.uniform(low, high))
        picture.stamp(_CLUTTER, *thing)


def _objects(picture, spec, dice):
    """Objects and groups of tiny ones; those whose lower edge is lower lie in front."""
    things, taken = [], []
    low, high = spec.extent
    for crowd in [True] * dice.below(spec.groups + 1) + [False] * dice.between(*spec.objects):
        label = dice.below(len(CLASSES))
        painter = _PAINTERS[CLASSES[label]]
        t = dice.uniform()
        extent = 44.0 if crowd else low + (high - low) * t * (0.4 + 0.6 * t)
        centre, extent, box = _spot(spec, dice, extent, painter[1:], taken)
        things.append((box[3], centre, extent, label, painter, crowd))
    for _, (x, y), extent, label, painter, crowd in sorted(things, key=lambda thing: thing[0]):
        owner = picture.new(label, crowd)
        if not crowd:
            picture.stamp(owner, *_painted(painter, dice, (x, y), extent, tilt=0.2))
            continue
        brush, left, top = _painted(painter, dice, (x, y), dice.uniform(10.0, 16.0), tilt=0.2)
        for _ in range(dice.between(5, 9)):
            dx, dy = (round(dice.uniform(-0.4, 0.4) * extent) for _ in range(2))
            picture.stamp(owner, brush, left + dx, top + dy)


def _person(picture, spec, dice):
    front = dice.chance(0.7)
    pose = _pose(front, dice)
    xs, ys = zip(*pose, strict=True)
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    pose = [(x - (x0 + x1) / 2.0, y - (y0 + y1) / 2.0) for x, y in pose]
    # Hands, feet and girth reach beyond the joints.
    half = (x1 - x0) / 2.0 + 0.14, (y1 - y0) / 2.0 + 0.08
    unit = dice.uniform(*spec.extent) / max(half)
    (x, y), unit, _ = _spot(spec, dice, unit, half, [])
    brush, left, top = _brush((x, y), unit, half)
    bare = _figure(brush, dice, pose, front)
    brush.round_off()
    picture.stamp(picture.new(0), brush, left, top)
    picture.joints = [
        (x + u * unit / 2.0, y + v * unit / 2.0, shown)
        for (u, v), shown in zip(pose, bare, strict=True)
    ]


# The owner of a pixel: stuff, clutter, or an object, counted from the first.
_CLUTTER = len(STUFF)
_FIRST = _CLUTTER + 1


class _Picture:
    """What is painted so far, and what owns each pixel."""

    def __init__(self, rgb, owner):
        self.rgb, self.owner = rgb, owner
        self.labels, self.crowd, self.extents = [], [], []
        self.joints = None

    def new(self, label, crowd=False):
        """Registers an object and returns its number as an owner of pixels."""
        self.labels.append(label)
        self.crowd.append(crowd)
        self.extents.append(0)
        return _FIRST + len(self.labels) - 1

    def stamp(self, owner, brush, left, top):
        """Lays what the brush painted, and its shadow, on the picture."""
        cover = _unit(0.5 - brush.distance)
        if owner >= _FIRST:
            self.extents[owner - _FIRST] += int(np.count_nonzero(cover > 0.5))
        soft = max(2.0, brush.scale * 0.12)
        shadow = 1.0 - 0.38 * _unit(0.5 - brush.distance / soft)
        place, part = self._inside(cover.shape, left + round(soft), top + round(soft))
        self.rgb[:, *place] *= shadow[part]
        place, part = self._inside(cover.shape, left, top)
        under = self.rgb[:, *place]
        under += (brush.rgb[:, *part] - under) * cover[part]
        np.copyto(self.owner[place], owner, where=cover[part] > 0.5)

    def _inside(self, window, left, top):
        """What a window covers of the picture, and the picture of the window: two index pairs."""
        spans = []
        for start, length, end in zip((top, left), window, self.owner.shape, strict=True):
            first = min(max(start, 0), end)
            last = max(min(start + length, end), first)
            spans.append((slice(first, last), slice(first - start, last - start)))
        return tuple(zip(*spans, strict=True))

    def light(self, dice):
        """A gradient of light, a band of shadow, contrast, a cast, and the noise of a sensor."""
        height, width = self.owner.shape
        x = np.arange(width, dtype=np.float32) / width - 0.5
        y = (np.arange(height, dtype=np.float32) / height - 0.5)[:, None]
        gain = dice.uniform(0.8, 1.12) + x * dice.uniform(-0.4, 0.4) + y * dice.uniform(-0.3, 0.2)
        if dice.chance(0.3):
            c, s = _turn(dice.uniform(-1.0, 1.0))
            band = np.abs(x * c + y * s - dice.uniform(-0.4, 0.4)) - dice.uniform(0.08, 0.25)
            gain = gain * (1.0 - 0.35 * _unit(0.5 - band * 25.0))
        contrast = dice.uniform(0.75, 1.1)
        cast = _rgb(*(contrast * dice.uniform(0.94, 1.06) for _ in range(3)))
        self.rgb *= gain
        self.rgb *= cast
        noise = _cut(_grain(), dice, (height, width)) * dice.uniform(0.0, 7.0)
        self.rgb += noise + 118.0 * (1.0 - contrast)

    def image(self):
        return np.clip(self.rgb + 0.5, 0.0, 255.0).astype(np.uint8).transpose(1, 2, 0).copy()

    def annotations(self, classes):
        """The sample's annotations, of what is visible of each object."""
        owners = np.arange(_FIRST, _FIRST + len(self.labels), dtype=np.uint8)
        # Transposed, because run lengths go down the columns: (N, W, H) in C order is what
        # pycocotools reads as (H, W, N) in Fortran's.
        by_column = np.ascontiguousarray(self.owner.T)
        masks = rle.encode((by_column == owners[:, None, None]).view(np.uint8).T)
        area = rle.area(masks)
        kept = np.flatnonzero(area)
        boxes = rle.toBbox(masks)[kept]
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array(self.labels, np.int32)
        stuff = range(classes + 1, classes + 1 + len(STUFF))
        values = np.array([*stuff, 0, *(labels + 1)], np.uint8)
        annotations = {
            "size": np.array(self.owner.shape, np.int32),
            "boxes": boxes.astype(np.float32),
            "labels": labels[kept],
            "difficult": 4 * area[kept] < np.array(self.extents)[kept],
            "crowd": np.array(self.crowd)[kept],
            "area": area[kept].astype(np.float32),
            "masks": [masks[i] for i in kept],
            "segmentation": values[self.owner],
        }
        if self.joints:
            joints = [self._joint(*joint) for joint in self.joints]
            annotations["keypoints"] = np.array([joints], np.float32)
        return annotations

    def _joint(self, x, y, bare):
        """(x, y, visible) of a joint of the first object, which no part of it covers if `bare`."""
        height, width = self.owner.shape
        if not (0.0 <= x < width and 0.0 <= y < height):
            return 0.0, 0.0, 0
        return x, y, 2 if bare and self.owner[int(y), int(x)] == _FIRST else 1
