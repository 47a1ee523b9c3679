"""Building blocks: Keras layers with static shapes, batches larger than one, on three backends.

Every layer takes and gives channels-last maps. Importing the package imports Keras and nothing
else, and makes all its layers known to `keras.saving.load_model`.
"""

from cvlib.layers.anchor_grid import AnchorGrid
from cvlib.layers.bilinear_upsampling import BilinearUpsampling, bilinear_kernel
from cvlib.layers.box_merging import BoxMerging
from cvlib.layers.crop_and_resize import CropAndResize
from cvlib.layers.dense_to_conv import DenseToConv, dense_to_conv
from cvlib.layers.distance_transform_pooling import DistanceTransformPooling
from cvlib.layers.hog import HOG
from cvlib.layers.hypercolumn import ClassifierGrid, Hypercolumn, HypercolumnMasks
from cvlib.layers.image_pyramid import ImagePyramid
from cvlib.layers.mask_pooling import MaskPooling
from cvlib.layers.non_max_suppression import NonMaxSuppression
from cvlib.layers.pad_to_multiple import PadToMultiple
from cvlib.layers.roi_align import RoIAlign
from cvlib.layers.roi_pooling import RoIPooling
from cvlib.layers.roi_warping import RoIWarping
from cvlib.layers.rpn_head import RPNHead
from cvlib.layers.shifted_max_pooling import InterleaveOffsets, ShiftedMaxPooling2D
from cvlib.layers.skip_fusion import SkipFusion
from cvlib.layers.spatial_pyramid_pooling import SpatialPyramidPooling
from cvlib.layers.yolo_head import YOLOHead

__all__ = [
    "HOG",
    "AnchorGrid",
    "BilinearUpsampling",
    "BoxMerging",
    "ClassifierGrid",
    "CropAndResize",
    "DenseToConv",
    "DistanceTransformPooling",
    "Hypercolumn",
    "HypercolumnMasks",
    "ImagePyramid",
    "InterleaveOffsets",
    "MaskPooling",
    "NonMaxSuppression",
    "PadToMultiple",
    "RPNHead",
    "RoIAlign",
    "RoIPooling",
    "RoIWarping",
    "ShiftedMaxPooling2D",
    "SkipFusion",
    "SpatialPyramidPooling",
    "YOLOHead",
    "bilinear_kernel",
    "dense_to_conv",
]
