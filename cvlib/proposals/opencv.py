"""OpenCV's selective search under the interface of `cvlib.proposals`."""

import ctypes
import os
from dataclasses import dataclass

import numpy as np

from cvlib.proposals.proposals import Proposals, ranked, rgb

MODES = {
    "single": "switchToSingleStrategy",
    "fast": "switchToSelectiveSearchFast",
    "quality": "switchToSelectiveSearchQuality",
}


@dataclass(frozen=True)
class OpenCVSelectiveSearch:
    """`cv2.ximgproc.segmentation`, part of opencv-contrib, with its own settings for each mode.

    Its first regions are larger than the paper's (k from 150 on), and it ranks the regions that
    were merged first before the last ones. It gives boxes only, so there are no masks.

    Args:
        mode: `"single"`, `"fast"` or `"quality"`.
        seed: of the random part of its ranking, for which it takes the C library's `rand`. Only
            where that can be reached, not on Windows, do equal calls give an equal order.
    """

    mode: str = "fast"
    seed: int = 0

    def __post_init__(self):
        if self.mode not in MODES:
            raise ValueError(f"mode {self.mode!r} must be one of {', '.join(MODES)}.")

    def __call__(self, image) -> Proposals:
        """OpenCV's boxes in its order; scores are minus the place in it.

        Raises:
            ImportError: opencv-contrib is not installed.
            ValueError: not an image, see `cvlib.proposals`.
        """
        try:
            from cv2.ximgproc import segmentation
        except ImportError:
            raise ImportError(
                "OpenCVSelectiveSearch needs OpenCV with its contributed modules: "
                "pip install opencv-contrib-python-headless."
            ) from None
        image = rgb(image)
        if os.name == "posix":
            # Seeds 0 and 1 are the same to some C libraries.
            ctypes.CDLL(None).srand(self.seed + 1)
        search = segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
        getattr(search, MODES[self.mode])()
        boxes = np.reshape(search.process(), (-1, 4))
        boxes[:, 2:] += boxes[:, :2]
        return ranked(boxes, -np.arange(len(boxes)))
