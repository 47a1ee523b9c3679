"""Classic computer vision on Keras 3. Importing `cvlib` loads neither Keras nor a backend."""

import os
from importlib.util import find_spec

__version__ = "0.1.0"

BACKENDS = ("tensorflow", "jax", "torch")


def check_backend(name):
    """Says in one sentence what Keras would say in a traceback.

    Raises:
        ValueError: `name` is no backend of Keras that trains.
        ImportError: the backend is not installed.
    """
    if name not in BACKENDS:
        raise ValueError(f"KERAS_BACKEND is {name!r}: it must be one of {', '.join(BACKENDS)}.")
    if find_spec(name) is None:
        raise ImportError(f"KERAS_BACKEND is {name!r}, which is not installed: pip install {name}.")


if "KERAS_BACKEND" in os.environ:
    check_backend(os.environ["KERAS_BACKEND"])
