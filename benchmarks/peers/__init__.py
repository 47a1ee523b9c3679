"""Systems of other libraries beside ours: detectors, timed, and a segmenter, trained."""

# Of the detectors.
SIZE, CLASSES = (512, 512), 20
