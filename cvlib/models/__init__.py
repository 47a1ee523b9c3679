"""The systems of the course, one file per paper, and the backbone that feeds them."""

from cvlib.models.backbone import backbone
from cvlib.models.localizer import Localizer

__all__ = ["Localizer", "backbone"]
