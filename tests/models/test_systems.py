"""Every system keeps what `cvlib.models.system` promises."""

import keras
import numpy as np
import pytest

from cvlib.data import batches, load
from cvlib.models import (
    FCN,
    RCNN,
    SDS,
    YOLO,
    DeformablePartsModel,
    FasterRCNN,
    FastRCNN,
    HOGDetector,
    HypercolumnSegmenter,
    Localizer,
    MultiScaleParser,
    MultiTaskCascade,
    OverFeat,
    PatchSegmenter,
    PoseRegressor,
    RecurrentSegmenter,
    backbone,
)
from cvlib.models.system import System

from .harness import run_system_test
from .test_sds import as_input
from .test_sds import data as discs

SIZE = (64, 64)


def batch(count=2, objects=2, joints=3, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 255, (count, *SIZE, 3)).astype("uint8")
    corner, side = rng.uniform(0, 30, (2, count, objects, 2))
    boxes = np.concatenate([corner, corner + 4 + side], axis=-1).astype("float32")
    keypoints = corner[:, :, None] + rng.uniform(0, 20, (count, objects, joints, 2))
    visible = np.full((count, objects, joints, 1), 2)
    return images, {
        "boxes": boxes,
        "labels": rng.integers(0, 2, (count, objects)).astype("int32"),
        "keypoints": np.concatenate([keypoints, visible], axis=-1).astype("float32"),
        "segmentation": rng.choice([0, 1, 2, 255], (count, *SIZE)).astype("uint8"),
        "masks": rng.random((count, objects, 7, 7)).astype("float32"),
    }


@pytest.mark.slow
def test_localizer(tmp_path):
    images, y = batch()
    arguments = {
        "num_classes": 2,
        "size": SIZE,
        "attach": "fc",
        "boxes": "per_class",
        "num_objects": 2,
        "background": True,
        "hidden": 16,
        "dropout": 0.25,
        "frozen_to": "stride8",
    }
    run_system_test(Localizer, {"backbone": backbone("tiny"), **arguments}, images, y, tmp_path)


@pytest.mark.slow
def test_overfeat(tmp_path):
    images, y = batch()
    arguments = {
        "num_classes": 2,
        "size": SIZE,
        "window": 32,
        "scales": (1, 1.5),
        "shifted": False,
        "merging": {"threshold": 0.5, "confidence_threshold": 0.0},
        "hidden": 16,
        "dropout": 0.25,
        "frozen_to": "stride8",
    }
    run_system_test(
        OverFeat,
        {"backbone": backbone("tiny"), **arguments},
        images,
        y,
        tmp_path,
        not_saved=("heads",),
    )


def proposed(y):
    """Six proposals an image: the objects moved a little, boxes anywhere, and one of padding."""
    corner, side = np.random.default_rng(1).uniform(0, 30, (2, 2, 6, 2))
    proposals = np.concatenate([corner, corner + 4 + side], axis=-1).astype("float32")
    proposals[:, :2], proposals[:, -1] = y["boxes"] + 1, -1
    return proposals


@pytest.mark.slow
def test_fast_rcnn(tmp_path):
    images, y = batch()
    arguments = {
        "num_classes": 2,
        "size": SIZE,
        "max_proposals": 6,
        "pooling": "align",
        "pool_size": 3,
        "feature_map": "stride8",
        "hidden": 16,
        "dropout": 0.25,
        "rank": (8, 4),
        "nms": {"iou_threshold": 0.3, "confidence_threshold": 0.0, "max_detections": 9},
        "frozen_to": "stride4",
    }
    run_system_test(
        FastRCNN,
        {"backbone": backbone("tiny"), **arguments},
        {"images": images, "proposals": proposed(y)},
        y,
        tmp_path,
    )


@pytest.mark.slow
def test_rcnn(tmp_path):
    images, y = batch()
    arguments = {
        "num_classes": 2,
        "size": SIZE,
        "max_proposals": 6,
        "crop_size": 32,
        "context": 12,
        "feature_map": "stride16",
        "hidden": 16,
        "dropout": 0.25,
        "features": "pool",
        "scores": "svm",
        "box_regression": True,
        "nms": {"iou_threshold": 0.4, "confidence_threshold": 0.0, "max_detections": 9},
        "frozen_to": "stride4",
    }
    run_system_test(
        RCNN,
        {"backbone": backbone("tiny"), **arguments},
        {"images": images, "proposals": proposed(y)},
        y,
        tmp_path,
        not_saved=("network",),
    )


@pytest.mark.slow
def test_sds(tmp_path):
    images, found, y = discs(2)
    arguments = {
        "num_classes": 2,
        "size": SIZE,
        "max_proposals": 12,
        "max_pieces": 32,
        "crop_size": 32,
        "context": 12,
        "feature_map": "stride16",
        "hidden": 16,
        "dropout": 0.25,
        "features": "joint",
        "refinement": True,
        "mask_size": 28,
        "nms": {"iou_threshold": 0.1, "confidence_threshold": 0.0, "max_detections": 9},
        "frozen_to": "stride4",
    }
    run_system_test(
        SDS,
        {"backbone": backbone("tiny"), **arguments},
        as_input(images, found),
        y,
        tmp_path,
        given={"proposals": found},
        not_saved=("network",),
    )


@pytest.mark.slow
def test_faster_rcnn(tmp_path):
    images, y = batch()
    arguments = {
        "num_classes": 2,
        "size": SIZE,
        "sizes": (12, 24),
        "ratios": (0.5, 1.5),
        "feature_map": "stride8",
        "rpn_channels": 16,
        "pre_nms": 100,
        "post_nms": 12,
        "pooling": "align",
        "pool_size": 3,
        "hidden": 16,
        "dropout": 0.25,
        "nms": {"iou_threshold": 0.3, "confidence_threshold": 0.0, "max_detections": 9},
        "frozen_to": "stride4",
    }
    run_system_test(FasterRCNN, {"backbone": backbone("tiny"), **arguments}, images, y, tmp_path)


@pytest.mark.slow
def test_hog_detector(tmp_path):
    images, y = batch()
    arguments = {
        "num_classes": 2,
        "size": SIZE,
        "scales": (1, 0.75),
        "ratios": (0.5, 1.5),
        "side": 3,
        "margin": 2,
        "cell_size": 6,
        "bins": 6,
        "signed": True,
        "nms": {"iou_threshold": 0.3, "confidence_threshold": 0.0, "max_detections": 9},
    }
    run_system_test(HOGDetector, arguments, images, y, tmp_path, not_saved=("templates",))


@pytest.mark.slow
def test_hypercolumn_segmenter(tmp_path):
    images, y = batch()
    y["proposals"] = proposed(y)
    boxes = y["proposals"][:, :5]
    labels = np.int32([[0, 1, 1, 0, -1], [1, 1, 0, -1, -1]])
    arguments = {
        "num_classes": 2,
        "size": SIZE,
        "max_detections": 5,
        "depths": ("stride4", "fc", "stride8"),
        "grid": 2,
        "mask_size": 8,
        "kernel_size": 1,
        "scales": (0.5, 1.0, 2.0),
        "full_side": 32,
        "feature_map": "stride16",
        "pool_size": 3,
        "hidden": 16,
        "dropout": 0.25,
        "frozen_to": "stride4",
    }
    run_system_test(
        HypercolumnSegmenter,
        {"backbone": backbone("tiny"), **arguments},
        {"images": images, "boxes": boxes, "labels": labels},
        y,
        tmp_path,
        fit_x=images,
        keeps_statistics=True,
    )


@pytest.mark.slow
def test_deformable_parts_model(tmp_path):
    images, y = batch()
    arguments = {
        "num_classes": 2,
        "size": SIZE,
        "scales": (0.75,),
        "ratios": (0.5, 1.5),
        "side": 4,
        "margin": 2,
        "cell_size": 6,
        "bins": 6,
        "parts": 2,
        "part_side": 2,
        "reach": 1,
        "nms": {"iou_threshold": 0.3, "confidence_threshold": 0.0, "max_detections": 9},
    }
    run_system_test(
        DeformablePartsModel,
        arguments,
        images,
        y,
        tmp_path,
        not_saved=("templates",),
        fitted=("anchors", "boxes"),
    )


@pytest.mark.slow
def test_multi_task_cascade(tmp_path):
    images, y = batch()
    arguments = {
        "num_classes": 2,
        "size": SIZE,
        "stages": 5,
        "sizes": (12, 24),
        "ratios": (0.5, 1.5),
        "feature_map": "stride8",
        "rpn_channels": 16,
        "pre_nms": 100,
        "post_nms": 12,
        "crop_size": 6,
        "mask_size": 8,
        "mask_hidden": 16,
        "hidden": 16,
        "dropout": 0.25,
        "nms": {"iou_threshold": 0.3, "confidence_threshold": 0.0, "max_detections": 9},
        "frozen_to": "stride4",
    }
    run_system_test(
        MultiTaskCascade, {"backbone": backbone("tiny"), **arguments}, images, y, tmp_path
    )


@pytest.mark.slow
def test_pose_regressor(tmp_path):
    images, y = batch(objects=1)
    arguments = {
        "num_joints": 3,
        "stages": 2,
        "crop_size": 64,
        "box_scale": 1.5,
        "joint_crop_size": 32,
        "joint_scale": 0.4,
        "joint_map": "stride8",
        "hidden": 16,
        "dropout": 0.25,
        "frozen_to": "stride4",
    }
    run_system_test(
        PoseRegressor,
        {"backbone": backbone("tiny"), **arguments},
        {"images": images, "boxes": y["boxes"][:, 0]},
        y,
        tmp_path,
        fit_x=images,
        compile_kwargs={"train": "stage2"},
    )


@pytest.mark.slow
def test_fcn(tmp_path):
    images, y = batch()
    arguments = {
        "num_classes": 3,
        "size": SIZE,
        "stride": 8,
        "window": 32,
        "hidden": 16,
        "dropout": 0.25,
        "scales": (0.5, 0.25),
        "learned": False,
        "frozen_to": "stride8",
    }
    run_system_test(FCN, {"backbone": backbone("tiny"), **arguments}, images, y, tmp_path)


@pytest.mark.slow
def test_patch_segmenter(tmp_path):
    images, y = batch()
    arguments = {
        "num_classes": 3,
        "size": SIZE,
        "stride": 16,
        "window": 32,
        "hidden": 16,
        "dropout": 0.25,
        "frozen_to": "stride8",
    }
    run_system_test(
        PatchSegmenter,
        {"backbone": backbone("tiny"), **arguments},
        images,
        y,
        tmp_path,
        not_saved=("classifier",),
    )


@pytest.mark.slow
def test_multi_scale_parser(tmp_path):
    images, y = batch()
    arguments = {
        "num_classes": 3,
        "size": SIZE,
        "levels": 2,
        "feature_map": "stride4",
        "hidden": 16,
        "dropout": 0.25,
        "frozen_to": "stride2",
    }
    trunk = backbone("tiny")
    run_system_test(MultiScaleParser, {"backbone": trunk, **arguments}, images, y, tmp_path)


@pytest.mark.slow
def test_recurrent_segmenter(tmp_path):
    images, y = batch()
    arguments = {
        "num_classes": 3,
        "size": SIZE,
        "iterations": 2,
        "feature_map": "stride8",
        "kernel": 3,
        "hidden": 16,
        "frozen_to": "stride4",
    }
    run_system_test(
        RecurrentSegmenter,
        {"backbone": backbone("tiny"), **arguments},
        images,
        y,
        tmp_path,
        not_saved=("network",),
    )


@pytest.mark.slow
def test_yolo(tmp_path):
    images, y = batch()
    arguments = {
        "num_classes": 2,
        "size": SIZE,
        "grid": 3,
        "boxes": 3,
        "feature_map": "stride16",
        "convolutions": (8,),
        "hidden": 16,
        "dropout": 0.25,
        "nms": {"confidence_threshold": 0.0, "max_detections": 10},
        "frozen_to": "stride8",
    }
    run_system_test(YOLO, {"backbone": backbone("tiny"), **arguments}, images, y, tmp_path)


def test_a_system_that_is_no_functional_network_is_refused():
    class Subclassed(System):
        def __init__(self):
            super().__init__()

    with pytest.raises(TypeError, match="a system is a functional network"):
        Subclassed()


def test_a_system_without_one_of_its_detections_is_refused():
    images = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="The outputs of System have no 'confidence'"):
        System(images, {"boxes": images})


def test_a_system_without_losses_says_so():
    images = keras.Input((8, 8, 3))
    with pytest.raises(NotImplementedError, match="System does not say what its losses are"):
        System(images, dict.fromkeys(System.detections, images)).compute_losses({}, {})


def test_systems_on_one_backbone_train_what_each_says():
    trunk = backbone("tiny")
    frozen, free = (FCN(trunk, 3, SIZE, frozen_to=name) for name in ("stride8", None))
    turns = FasterRCNN(trunk, 2, SIZE, (16,), hidden=8, frozen_to="stride16", post_nms=8)
    one = YOLO(trunk, 2, SIZE, 2, hidden=8)
    for system, which in ((frozen, 4), (free, 9), (turns, 0), (one, 9)):
        system.compile(keras.optimizers.SGD(0.1), **({"trunk": False} if system is turns else {}))
        paths = [v.path for v in system.trainable_variables if v.path.startswith("stride")]
        assert len(paths) == 3 * which
    images, y = batch()
    convolutions = [layer for layer in trunk.layers if isinstance(layer, keras.layers.Conv2D)]
    for system, first in ((frozen, 5), (free, 0)):
        before = [layer.get_weights()[0] for layer in convolutions]
        system.fit(images, y, verbose=0)
        changed = [
            (a != b.get_weights()[0]).any() for a, b in zip(before, convolutions, strict=True)
        ]
        assert changed == [i >= first for i in range(9)]


def test_a_backbone_that_is_frozen_by_hand_stays_so():
    system = FCN(backbone("tiny"), 3, SIZE, frozen_to="stride8")
    system.backbone.trainable = False
    system.compile()
    assert not system.backbone.trainable_variables
    system.backbone.trainable = True
    system.compile()
    assert len(system.backbone.trainable_variables) == 4 * 3


def test_losses_that_never_end_are_refused():
    class Endless:
        """As a grain dataset after `map`."""

        __module__ = "grain"

    localizer = Localizer(backbone("tiny"), 2, size=SIZE, hidden=8)
    localizer.compile()
    with pytest.raises(ValueError, match="give `steps_per_epoch`"):
        localizer.fit(Endless())
    with pytest.raises(ValueError, match="give `steps`"):
        localizer.evaluate(Endless())


def test_batches_say_how_many_are_an_epoch_even_where_none_is_asked_for():
    localizer = Localizer(backbone("tiny"), 8, size=SIZE, hidden=8)
    localizer.compile()
    data = batches(load("scenes", "train").some(4), 2, SIZE, max_objects=8)
    history = localizer.fit(data, steps_per_epoch=None, verbose=0)
    assert len(history.epoch) == 1
    localizer.evaluate(data, steps=None, verbose=0)


def test_more_classes_than_the_system_has_are_refused():
    localizer = Localizer(backbone("tiny"), 2, size=SIZE, hidden=8)
    localizer.compile()
    data = batches(load("scenes", "train").some(4), 2, SIZE, max_objects=8)
    with pytest.raises(ValueError, match="built for 2 classes, these batches have 8: ball, clock"):
        localizer.fit(data)


@pytest.mark.slow
def test_variables_of_float16_are_refused():
    keras.config.set_dtype_policy("float16")
    try:
        localizer = Localizer(backbone("tiny"), 2, size=SIZE, hidden=8)
    finally:
        keras.config.set_dtype_policy("float32")
    with pytest.raises(ValueError, match="float16, which are too coarse"):
        localizer.compile()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's graphs")
def test_a_training_step_is_traced_once(monkeypatch):
    images, y = batch()
    system, traced = FCN(backbone("tiny"), 3, SIZE), []
    loss = FCN.compute_losses
    monkeypatch.setattr(FCN, "compute_losses", lambda *args: traced.append(1) or loss(*args))
    system.compile()
    for _ in range(2):
        system.fit(images, y, epochs=2, verbose=0)
    assert len(traced) == 1
