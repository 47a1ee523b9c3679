"""Chapter 01: what a system must beat, the tiny backbone alone, and whether data come in time."""

TABLES = {
    "four_tasks": {
        "title": "What a system must beat: the majority class and the constant box",
        "settings": (),
        "metrics": ("accuracy", "box_iou", "localization_accuracy"),
        "papers": [],
    },
    "loader": {
        "title": "Whether training waits for its data",
        "where": {"system": "loader"},
        "settings": ("backbone", "batch_size"),
        "metrics": (
            *(f"{what} images/s" for what in ("first pass", "loader", "step", "together")),
            "ratio",
        ),
        "papers": [],
    },
}

COLUMNS = {
    "backbone": "what the training step trains",
    "batch_size": "pictures in a training step",
    "first pass images/s": "of the loader where each picture is drawn or read for the first time",
    "loader images/s": "of the loader with the pictures in memory",
    "step images/s": "of the training step on one batch that it sees again and again",
    "together images/s": "of training as it is, loader and step",
    "ratio": "`loader images/s` over `step images/s`; training waits below 1",
}

CLAIMS = []
