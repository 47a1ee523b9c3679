"""Detectors of other libraries, timed beside ours of the same trunk and image size."""

SIZE, CLASSES = (512, 512), 20
