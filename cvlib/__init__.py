"""Classic computer vision on Keras 3. Importing `cvlib` loads neither Keras nor a backend."""

__version__ = "0.1.0"
