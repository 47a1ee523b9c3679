"""What is measured: in the graph as Keras metrics, or on the host where it cannot be traced."""

import importlib

# A host metric is of use without Keras, and a Keras metric without pycocotools.
_HOME = {
    "BoxIoU": "localization",
    "LabelAccuracy": "localization",
    "LocalizationAccuracy": "localization",
    "MeanAveragePrecision": "average_precision",
    "MeanIoU": "segmentation",
    "EvaluateDetections": "average_precision",
    "NME": "pose",
    "PCK": "pose",
    "PCP": "pose",
    "ProposalRecall": "proposal_recall",
    "edge_distance": "segmentation",
    "error_breakdown": "errors",
}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"cvlib.metrics.{_HOME[name]}"), name)
