import functools

import numpy as np
import pytest

from cvlib.layers import (
    HOG,
    AnchorGrid,
    BilinearUpsampling,
    CropAndResize,
    DistanceTransformPooling,
    Hypercolumn,
    ImagePyramid,
    InterleaveOffsets,
    MaskPooling,
    PadToMultiple,
    RoIAlign,
    RoIPooling,
    RoIWarping,
    ShiftedMaxPooling2D,
    SpatialPyramidPooling,
)
from cvlib.models import (
    FCN,
    YOLO,
    DeformablePartsModel,
    HOGDetector,
    MultiScaleParser,
    OverFeat,
    PatchSegmenter,
    RecurrentSegmenter,
    backbone,
)
from cvlib.sizes import height_and_width


@pytest.mark.parametrize("size", [(3, 4), [3, 4], np.array([3, 4]), (np.int64(3), 4)])
def test_two_whole_numbers(size):
    found = height_and_width(size)
    assert found == (3, 4) and all(type(side) is int for side in found)


@pytest.mark.parametrize("size", [7, np.int32(7)])
def test_one_stands_for_both(size):
    assert height_and_width(size) == (7, 7)


@pytest.mark.parametrize(
    "size", [(3,), (3, 4, 5), (0, 4), -1, 3.5, (3.0, 4), "34", None, (3, None)]
)
def test_anything_else_is_one_clear_sentence(size):
    with pytest.raises(ValueError, match=r"`size` is \(height, width\)"):
        height_and_width(size)


@pytest.mark.parametrize(
    "layer",
    [
        CropAndResize,
        functools.partial(Hypercolumn, channels=4),
        MaskPooling,
        RoIAlign,
        RoIPooling,
        RoIWarping,
    ],
)
def test_layers_take_one_number(layer):
    assert layer(size=7).size == layer(size=[7, 7]).size == (7, 7)


def test_models_take_one_number():
    model = PatchSegmenter(backbone("tiny"), num_classes=2, size=64, window=32, hidden=4)
    assert model.input_shape[1:3] == (64, 64) and model.get_config()["size"] == (64, 64)
    with pytest.raises(ValueError, match=r"not \(64,\)\."):
        YOLO(backbone("tiny"), num_classes=2, size=(64,))


@pytest.mark.parametrize("system", [FCN, MultiScaleParser, RecurrentSegmenter])
def test_only_none_stands_for_pictures_of_any_size(system):
    assert system(backbone("tiny"), 2).input_shape[1:3] == (None, None)
    assert system(backbone("tiny"), 2, size=np.array([64, 96])).input_shape[1:3] == (64, 96)
    with pytest.raises(ValueError, match="whole numbers above 0, not 0"):
        system(backbone("tiny"), 2, size=0)


@pytest.mark.parametrize(
    "layer, argument",
    [
        (BilinearUpsampling, "factor"),
        (DistanceTransformPooling, "reach"),
        (DistanceTransformPooling, "strides"),
        (HOG, "bins"),
        (HOG, "block_size"),
        (HOG, "cell_size"),
        (ImagePyramid, "levels"),
        (InterleaveOffsets, "pool_size"),
        (PadToMultiple, "multiple"),
        (RoIAlign, "sampling_ratio"),
        (ShiftedMaxPooling2D, "pool_size"),
    ],
)
def test_counts_are_positive_integers(layer, argument):
    assert type(layer(**{argument: np.int64(2)}).get_config()[argument]) is int
    for value in (0, -1, 1.5, "2", None):
        with pytest.raises(ValueError, match=f"`{argument}` must be a positive integer, not"):
            layer(**{argument: value})


def test_levels_of_a_pyramid_are_positive_integers():
    with pytest.raises(ValueError, match="`levels` must be a positive integer, not 0"):
        SpatialPyramidPooling(levels=(4, 0))


@pytest.mark.parametrize(
    "make, argument",
    [
        (AnchorGrid, "sizes"),
        (AnchorGrid, "ratios"),
        (functools.partial(DeformablePartsModel, 2, 96), "ratios"),
        (functools.partial(DeformablePartsModel, 2, 96), "scales"),
        (functools.partial(HOGDetector, 2, 96), "ratios"),
        (functools.partial(HOGDetector, 2, 96), "scales"),
        (lambda **wrong: OverFeat(backbone("tiny"), 2, **wrong), "scales"),
    ],
)
@pytest.mark.parametrize("values", [(), (1, 0), (1, -0.5), (float("nan"),), 2, "12", None])
def test_scales_and_ratios_are_above_zero(make, argument, values):
    with pytest.raises(ValueError, match=f"`{argument}` are one or several numbers above 0, not"):
        make(**{argument: values})


@pytest.mark.parametrize(
    "layer", [AnchorGrid, RoIAlign, RoIPooling, RoIWarping, SpatialPyramidPooling]
)
@pytest.mark.parametrize("stride", [0, -8, float("nan"), None, "8"])
def test_a_stride_is_above_zero(layer, stride):
    with pytest.raises(ValueError, match="A stride is a number of pixels above 0, not"):
        layer(stride=stride)


def test_strides_of_hypercolumns_are_above_zero():
    assert Hypercolumn(4, strides=(8, None)).strides == (8, None)
    with pytest.raises(ValueError, match="A stride is a number of pixels above 0, not 0"):
        Hypercolumn(4, strides=(8, 0))
