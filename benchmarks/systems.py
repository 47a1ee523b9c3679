"""Every system of the course, untrained, to time it alone, in about the sizes of its chapter.

`scenes` are those for pictures of 128x128 pixels, 8 classes, with the embedded trunk; `photographs`
those for 360x480 pixels, with MobileNet 0.75 where there is a trunk: chapters 06, 07 and 10 to 12
look for 3 classes of cells in them, chapter 17 for 11 classes of pixels.
"""

from functools import partial

from cvlib import models

SMALL, LARGE = (128, 128), (360, 480)
HOG = {
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
HEADS = {"feature_map": "stride8", "pool_size": 5, "hidden": 256}
RPN = {"sizes": (16, 32, 64), "rpn_channels": 128, "pre_nms": 1000}
CELL_HEADS = {"feature_map": "stride16", "pooling": "align", "pool_size": 7, "hidden": 512}
CELL_RPN = {"sizes": (28, 40, 60, 84, 120, 170), "ratios": (0.75, 1.33), "rpn_channels": 256}
CELL_RPN |= {"pre_nms": 2000}
MASKS = {"pool_size": 5, "hidden": 128}
STAGES = {"feature_map": "stride8", "crop_size": 10, "mask_hidden": 128, "hidden": 128}
STAGES |= {"post_nms": 100}
CELL_STAGES = {"feature_map": "stride16", "hidden": 512}
GRID = {"feature_map": "stride16", "convolutions": (128, 64), "hidden": 512}
DEPTHS = ("stride4", "stride8", "stride16", "fc")


def system(name, trunk, *args, **kwargs):
    """A system of `cvlib.models` on a trunk without weights, or, of templates, on none."""
    trunks = [] if trunk is None else [models.backbone(trunk, None, **kwargs.pop("width", {}))]
    return getattr(models, name)(*trunks, *args, **kwargs)


def sliding():
    """OverFeat at six scales, each window at nine shifts of its last pooling."""
    overfeat = system("OverFeat", "tiny", 8, SMALL, 64)
    return overfeat.slide(scales=(0.5, 0.75, 1, 1.25, 1.5, 2), shifted=True)


def of_scenes(name, *args, **kwargs):
    return partial(system, name, "tiny", *args, **kwargs)


def of_cells(name, largest, count, density, **kwargs):
    scales = tuple(largest * 2 ** (-i / density) for i in range(count))
    return partial(system, name, None, 3, scales=scales, **CELL_HOG, **kwargs)


def of_photographs(name, *args, **kwargs):
    return partial(system, name, "mobilenet", *args, width={"alpha": 0.75}, **kwargs)


SYSTEMS = {
    "scenes": {
        "Localizer": of_scenes("Localizer", 8, SMALL),
        "PoseRegressor": of_scenes("PoseRegressor", 14, joint_crop_size=48),
        "OverFeat": sliding,
        "HOG": partial(system, "HOGDetector", None, 8, **HOG),
        "DPM": partial(system, "DeformablePartsModel", None, 8, part_side=2, reach=3, **HOG),
        "R-CNN": of_scenes("RCNN", 8, SMALL, 200, **CROPS),
        "Fast R-CNN": of_scenes("FastRCNN", 8, SMALL, 200, **HEADS),
        "Faster R-CNN": of_scenes("FasterRCNN", 8, SMALL, post_nms=100, **HEADS, **RPN),
        "YOLO": of_scenes("YOLO", 8, SMALL, 7, **GRID),
        "PatchSegmenter": of_scenes("PatchSegmenter", 15, SMALL),
        "FCN-8s": of_scenes("FCN", 15, SMALL, stride=8),
        "MultiScaleParser": of_scenes("MultiScaleParser", 15, SMALL),
        "RecurrentSegmenter": of_scenes("RecurrentSegmenter", 15, SMALL),
        "SDS": of_scenes("SDS", 8, SMALL, 200, 256, **CROPS),
        "Hypercolumns": of_scenes("HypercolumnSegmenter", 8, SMALL, 30, DEPTHS, **MASKS),
        "Cascade": of_scenes("MultiTaskCascade", 8, SMALL, **STAGES, **RPN),
    },
    "photographs": {
        "HOG": of_cells("HOGDetector", 1.5, 8, 3),
        "DPM": of_cells("DeformablePartsModel", 1.0, 4, 2, part_side=2, reach=3),
        "Fast R-CNN": of_photographs("FastRCNN", 3, LARGE, 2000, **CELL_HEADS),
        "Faster R-CNN": of_photographs("FasterRCNN", 3, LARGE, **CELL_HEADS, **CELL_RPN),
        "YOLO": of_photographs("YOLO", 3, LARGE, 14, **GRID),
        **{f"FCN-{n}s": of_photographs("FCN", 11, LARGE, stride=n) for n in (32, 16, 8)},
        "Cascade": of_photographs("MultiTaskCascade", 3, LARGE, **CELL_STAGES, **CELL_RPN),
    },
}
