"""What every Keras system of the course shares: the verbs `fit`, `predict`, `save`, `load`."""

import keras


class System(keras.Model):
    """A Keras model whose outputs hold, beside what the losses need, the detections themselves.

    Decoding is part of the network, so everything between image and detections is one compiled
    graph. Subclasses name their detections' keys in `detections` and their parts in `stages`.
    """

    detections = ("boxes", "confidence", "labels", "num_detections")

    def fit(self, dataset, **kwargs):
        """Trains on what `cvlib.data.batches` gives; `dataset.steps_per_epoch` ends each epoch.

        Args:
            dataset: batches of `(images, targets)`.
            **kwargs: as in `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.
        """
        if hasattr(dataset, "steps_per_epoch"):
            kwargs.setdefault("steps_per_epoch", dataset.steps_per_epoch)
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
