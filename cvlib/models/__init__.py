"""The systems of the course, one file per paper, and the backbone that feeds them."""

from cvlib.models.backbone import backbone
from cvlib.models.deformable_parts_model import DeformablePartsModel
from cvlib.models.fast_rcnn import FastRCNN
from cvlib.models.faster_rcnn import FasterRCNN
from cvlib.models.fcn import FCN
from cvlib.models.hog_detector import HOGDetector
from cvlib.models.hypercolumn_segmenter import HypercolumnSegmenter
from cvlib.models.localizer import Localizer
from cvlib.models.multi_scale_parser import MultiScaleParser
from cvlib.models.multi_task_cascade import MultiTaskCascade
from cvlib.models.overfeat import OverFeat
from cvlib.models.patch_segmenter import PatchSegmenter
from cvlib.models.pose_regressor import PoseRegressor
from cvlib.models.rcnn import RCNN
from cvlib.models.recurrent_segmenter import RecurrentSegmenter
from cvlib.models.sds import SDS
from cvlib.models.yolo import YOLO

__all__ = [
    "FCN",
    "RCNN",
    "SDS",
    "YOLO",
    "DeformablePartsModel",
    "FastRCNN",
    "FasterRCNN",
    "HOGDetector",
    "HypercolumnSegmenter",
    "Localizer",
    "MultiScaleParser",
    "MultiTaskCascade",
    "OverFeat",
    "PatchSegmenter",
    "PoseRegressor",
    "RecurrentSegmenter",
    "backbone",
]
