"""What every Keras system of the course shares: the verbs `fit`, `predict`, `save`, `load`."""

import keras


def jit_compile():
    """Whether XLA makes a graph faster here, for `keras.Model.compile`.

    TensorFlow on a CPU runs its own kernels faster than those that XLA writes: MobileNet trained
    1.6 times as fast without, and JAX cannot do without.
    """
    if keras.backend.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf

    return "auto" if tf.config.list_physical_devices("GPU") else False


class System(keras.Model):
    """A Keras model whose outputs hold, beside what the losses need, the detections themselves.

    Decoding is part of the network, so everything between image and detections is one compiled
    graph. Subclasses name their detections' keys in `detections` and their parts in `stages`, and
    keep their backbone in `backbone` and their other arguments in `_config`, to be saved.
    """

    detections = ("boxes", "confidence", "labels", "num_detections")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.jit_compile = jit_compile()

    def compile(self, optimizer="adam", **kwargs):
        """As in `keras.Model.compile`, but for metrics, which a system brings itself.

        Raises:
            ValueError: metrics are given.
        """
        if kwargs.get("metrics") or kwargs.get("weighted_metrics"):
            raise ValueError(
                f"{type(self).__name__} brings its own metrics: measure others on what it predicts,"
                " in a loop or with the callback EvaluateDetections, not in compile."
            )
        super().compile(optimizer, **{"jit_compile": self.jit_compile} | kwargs)

    def fit(self, dataset, **kwargs):
        """Trains on what `cvlib.data.batches` gives; `dataset.steps_per_epoch` ends each epoch.

        Args:
            dataset: batches of `(images, targets)`.
            **kwargs: as in `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.
        """
        # Keras warns that it cannot shuffle what is shuffled already.
        kwargs = {"steps_per_epoch": dataset.steps_per_epoch, "shuffle": False} | kwargs
        return super().fit(dataset, **kwargs)

    def predict(self, images, batch_size=32, verbose=0):
        """Detections in images.

        Args:
            images: (B, H, W, 3) in 0..255.

        Returns:
            A dict of NumPy arrays, in pixels of the given images: `boxes` (B, N, 4) xyxy,
            `confidence` (B, N) in 0..1, `labels` (B, N), -1 where padded, `num_detections` (B,).
        """
        outputs = super().predict(images, batch_size=batch_size, verbose=verbose)
        return {key: outputs[key] for key in self.detections}

    @classmethod
    def load(cls, path):
        """The system saved at `path` by `save`, without running code from the file.

        Raises:
            ValueError: the file holds another system.
        """
        model = keras.saving.load_model(path)
        if not isinstance(model, cls):
            raise ValueError(f"{path}: holds a {type(model).__name__}, not a {cls.__name__}.")
        return model

    def get_compile_config(self):
        """None: what is saved predicts; to train it further, `compile` says again how."""

    def stages(self):
        """The parts in the order in which they run, `[(name, keras.Model), ...]`, for timing."""
        raise NotImplementedError

    def get_config(self):
        backbone = keras.saving.serialize_keras_object(self.backbone)
        return {"backbone": backbone, "name": self.name, **self._config}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        return cls(**{**config, "backbone": backbone})
