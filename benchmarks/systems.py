"""How the chapters' files build their systems, untrained, to be timed alone.

`SYSTEMS` of a file in `benchmarks/chapters/` has one group or both, each a dict from a name to a
function that builds a system in about the sizes of the chapter. `scenes` are those for pictures of
128x128 pixels, 8 classes, with the embedded trunk; `photographs` those for 360x480 pixels, with
MobileNet 0.75 where there is a trunk: of 3 classes of cells, or of 11 classes of pixels.
"""

from functools import partial

SMALL, LARGE = (128, 128), (360, 480)
SCENE_HOG = {
    "size": SMALL,
    "scales": tuple(1.7 * 2 ** (-i / 3) for i in range(8)),
    "ratios": (0.55, 1.0),
    "side": 6,
    "cell_size": 4,
    "nms": {"pre_nms_top_k": 1000},
}
CELL_HOG = {"size": LARGE, "ratios": (0.8, 1.25), "side": 5, "cell_size": 8}
CELL_HOG |= {"nms": {"pre_nms_top_k": 3000, "max_detections": 300}}
CROPS = {"crop_size": 64, "feature_map": "stride16", "hidden": 256}
SCENE_HEADS = {"feature_map": "stride8", "pool_size": 5, "hidden": 256}
SCENE_RPN = {"sizes": (16, 32, 64), "rpn_channels": 128, "pre_nms": 1000}
CELL_HEADS = {"feature_map": "stride16", "pooling": "align", "pool_size": 7, "hidden": 512}
CELL_RPN = {"sizes": (28, 40, 60, 84, 120, 170), "ratios": (0.75, 1.33), "rpn_channels": 256}
CELL_RPN |= {"pre_nms": 2000}


def build(name, trunk, *args, **kwargs):
    """A system of `cvlib.models` on a trunk without weights, or, of templates, on none."""
    from cvlib import models  # Keras is not imported to read tables.

    trunks = [] if trunk is None else [models.backbone(trunk, None, **kwargs.pop("width", {}))]
    return getattr(models, name)(*trunks, *args, **kwargs)


def of_templates(name, *args, **kwargs):
    return partial(build, name, None, *args, **kwargs)


def of_scenes(name, *args, **kwargs):
    return partial(build, name, "tiny", *args, **kwargs)


def of_cells(name, largest, count, density, **kwargs):
    scales = tuple(largest * 2 ** (-i / density) for i in range(count))
    return of_templates(name, 3, scales=scales, **CELL_HOG, **kwargs)


def of_photographs(name, *args, **kwargs):
    return partial(build, name, "mobilenet", *args, width={"alpha": 0.75}, **kwargs)
