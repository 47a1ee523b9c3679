import keras
import numpy as np
import pytest
from keras import ops

from cvlib.metrics import MeanAveragePrecision
from cvlib.models import HOGDetector
from cvlib.models.template_detector import Examples

SIZE = (64, 64)
NMS = {"iou_threshold": 0.3, "confidence_threshold": 0.3}


def make(**arguments):
    keras.utils.set_random_seed(1)
    arguments = {"scales": (1,), "ratios": (0.5, 1), "side": 6, "cell_size": 4} | arguments
    return HOGDetector(2, SIZE, nms=NMS, **arguments)


def shapes(count, seed=0):
    """Noise with one square frame, of class 0, or one wide filled rectangle, of class 1."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 40, (count, *SIZE, 3)).astype("uint8")
    labels = rng.integers(0, 2, (count, 1)).astype("int32")
    boxes = np.zeros((count, 1, 4), "float32")
    for image, box, (label,) in zip(images, boxes, labels, strict=True):
        height, width = ((24, 24), (16, 32))[label]
        left, top = rng.integers(2, 62 - width), rng.integers(2, 62 - height)
        image[top : top + height, left : left + width] += 120
        if label == 0:
            image[top + 6 : top + height - 6, left + 6 : left + width - 6] -= 120
        box[:] = left, top, left + width, top + height
    return images, {"boxes": boxes, "labels": labels}


@pytest.fixture(scope="module")
def trained():
    detector = make()
    images, y = shapes(16)
    return detector, detector.fit(images, y, rounds=2, negatives=100).history


def mean_average_precision(detector, images, y):
    metric = MeanAveragePrecision(2)
    metric.update_state(y, detector.predict(images))
    return metric.result()["mAP"]


def test_windows_are_where_the_templates_look():
    detector = make(scales=(0.75,))
    for template in detector.templates:
        shape = template.kernel.shape
        template.kernel.assign(np.random.default_rng(0).standard_normal(shape))
    images, _ = shapes(2)
    scores = ops.convert_to_numpy(detector(images)["scores"])
    smaller = ops.image.resize(images.astype("float32"), (48, 48), antialias=True)
    blocks = ops.convert_to_numpy(detector.hog(smaller))
    # A window of 4 x 8 or 6 x 6 cells, with a margin of one cell, and its blocks of 2 x 2 cells.
    corners = detector.windows * 0.75 / 4
    assert len(corners) == (12 - 4 + 1) * (12 - 8 + 1) + (12 - 6 + 1) ** 2 == scores.shape[1]
    for window in (7, 12, 45 + 24):
        left, top, right, bottom = np.round(corners[window]).astype(int)
        assert (bottom - top, right - left) == ((4, 8) if window < 45 else (6, 6))
        kernel, bias = detector.templates[int(window >= 45)].get_weights()
        seen = np.zeros((2, *kernel.shape[:3]), "float32")
        for i, j in np.ndindex(*kernel.shape[:2]):
            row, column = top - 1 + i, left - 1 + j
            if 0 <= row < 11 and 0 <= column < 11:
                seen[:, i, j] = blocks[:, row, column]
        expected = np.einsum("bijk,ijkc->bc", seen, kernel) + bias
        np.testing.assert_allclose(scores[:, window], expected, rtol=1e-4, atol=1e-4)


def test_learns(trained):
    detector, _ = trained
    assert mean_average_precision(detector, *shapes(16, seed=1)) > 0.9


def test_learns_in_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        detector = make()
    finally:
        keras.config.set_dtype_policy(policy)
    detector.fit(*shapes(16), rounds=1, negatives=100, verbose=0)
    assert mean_average_precision(detector, *shapes(16, seed=1)) > 0.9


def test_hard_negatives_are_found_and_believed_no_longer(trained):
    detector, history = trained
    before = make()
    images, y = shapes(16)
    first = before.fit(images, y, rounds=0, negatives=100).history
    assert {key: values[0] for key, values in history.items()} == {
        key: value for key, (value,) in first.items()
    }
    assert len(history["loss"]) == 3 and len(set(history["examples"])) == 1
    losses = [float(d.compute_losses(y, d(images))["background"]) for d in (before, detector)]
    assert losses[1] < 0.7 * losses[0]


def test_objects_belong_to_the_component_of_their_shape(trained):
    detector, _ = trained
    wide, square = (template.get_weights()[1] for template in detector.templates)
    assert wide[0] == square[1] == -100
    assert wide[1] > -10 and square[0] > -10


def test_class_without_examples_is_never_detected():
    detector = make()
    images, y = shapes(8)
    y["labels"][y["labels"] == 1] = -1
    detector.fit(images, y, rounds=0, negatives=50)
    assert set(np.unique(detector.predict(images)["labels"])) <= {-1, 0}


def test_objects_smaller_than_any_window_are_no_examples():
    images, y = shapes(4)
    y["boxes"][..., 2:] = y["boxes"][..., :2] + 1
    history = make().fit(images, y, rounds=0, negatives=50).history
    assert history["examples"] == [0] and history["loss"] == [0.0]


def test_difficult_objects_are_neither_examples_nor_background():
    images, y = shapes(4)
    detector = make()
    y["difficult"] = np.ones_like(y["labels"], bool)
    assert detector.fit(images, y, rounds=0).history["examples"] == [0]
    losses = detector.compute_losses(y, detector(images))
    assert float(losses["objects"]) == 0


def test_what_a_crowd_covers_is_no_background(monkeypatch):
    images, y = shapes(4)
    y["labels"][:] = 0
    y["boxes"][2:] = 0, 0, *SIZE
    y["crowd"] = np.array([[False], [False], [True], [True]])
    detector = make(ratios=(1,))
    monkeypatch.setattr(Examples, "keep", lambda self, which: None)
    history = detector.fit(images, y, rounds=0, per_image=7, verbose=0).history
    assert history["negatives"] == [2 * 7]
    scores = np.where(np.arange(2) == 0, 1.0, -1.0) * np.ones((4, len(detector.windows), 1))
    crowds = {key: value[2:] for key, value in y.items()}
    losses = detector.compute_losses(crowds, {"scores": np.float32(scores[2:])})
    assert float(losses["background"]) == 0


def test_rare_components_are_left_out_whatever_their_order():
    for order in ((5, 5, 90), (5, 90, 5), (90, 5, 5)):
        examples = {(component, 0): Examples(1) for component in range(3)}
        for example, count in zip(examples.values(), order, strict=True):
            example.examples = [np.zeros(1)] * count
            example.offer("window", 0.0, np.zeros(1))
        Examples.settle(examples)
        assert [len(e.examples) for e in examples.values()] == [90]


def test_losses():
    detector = make()
    images, y = shapes(3)
    scores = np.random.default_rng(0).uniform(-2, 2, detector(images)["scores"].shape)
    losses = detector.compute_losses(y, {"scores": scores.astype("float32")})
    objects, background = [], []
    for i, label in np.ndindex(3, 2):
        overlap = []
        for window in detector.windows:
            box = y["boxes"][i, 0]
            sides = np.minimum(window[2:], box[2:]) - np.maximum(window[:2], box[:2])
            both = np.prod(np.maximum(sides, 0))
            areas = [np.prod(b[2:] - b[:2]) for b in (window, box)]
            overlap.append(both / (sum(areas) - both))
        overlap = np.array(overlap) * (y["labels"][i, 0] == label)
        if overlap.max() > 0:
            objects.append(max(0, 1 - scores[i, overlap >= 0.5, label].max()) ** 2)
        background.extend(np.maximum(0, 1 + scores[i, overlap < 0.3, label]) ** 2)
    np.testing.assert_allclose(losses["objects"], np.mean(objects), rtol=1e-5)
    np.testing.assert_allclose(losses["background"], np.mean(background), rtol=1e-5)


def test_other_scales_share_the_templates(trained):
    detector, _ = trained
    other = detector.slide(size=(32, 96))
    assert other.templates[0] is detector.templates[0]
    assert len(other.windows) == 5 * 17 + 3 * 19


def test_window_larger_than_the_image():
    with pytest.raises(
        ValueError, match="64x64 at scale 0.25 is 16x16, smaller than the window of"
    ):
        make(scales=(1, 0.25))
