import keras
import numpy as np
import pytest
from keras import ops

from cvlib.boxes import paired_iou
from cvlib.data import DataError, batches, load
from cvlib.metrics import MeanAveragePrecision
from cvlib.models import Localizer, backbone
from cvlib.models.localizer import fit_box_heads

from .training import Batches, compiled

SIZE = (64, 64)


def make(**arguments):
    keras.utils.set_random_seed(1)
    return Localizer(backbone("tiny"), 3, size=SIZE, hidden=32, **arguments)


def squares(count, objects=1, seed=0):
    """Images with bright squares, one colour channel for each class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, *SIZE, 3)).astype("uint8")
    boxes, labels = [], rng.integers(0, 3, (count, objects)).astype("int32")
    for image, classes in zip(images, labels, strict=True):
        side = rng.integers(16, 64 // objects - 1, objects)
        left = [64 // objects * i + rng.integers(64 // objects - s) for i, s in enumerate(side)]
        top = rng.integers(0, 64 - side)
        for x, y, s, c in zip(left, top, side, classes, strict=True):
            image[y : y + s, x : x + s, c] = 230
        boxes.append(np.stack([left, top, left + side, top + side], axis=-1))
    return images, {"boxes": np.array(boxes, "float32"), "labels": labels}


def fit(localizer, data, epochs):
    # Keras takes generators; the rest of the test sees what `System.fit` makes of the batches.
    steps = data.steps_per_epoch
    return keras.Model.fit(localizer, iter(data), steps_per_epoch=steps, epochs=epochs, verbose=0)


@pytest.mark.slow
@compiled
def test_learns_class_and_box_and_beats_the_constant_box(tmp_path):
    images, targets = squares(512)
    localizer = make(dropout=0.0)
    localizer.compile(keras.optimizers.Adam(1e-3), train="both", box_loss="smooth_l1")
    fit(localizer, Batches(images, targets), epochs=12)
    unseen, truth = squares(64, seed=9)
    found = localizer.predict(unseen)
    overlap = ops.convert_to_numpy(paired_iou(truth["boxes"], found["boxes"])).mean()
    median = np.median(targets["boxes"], axis=0)
    constant = ops.convert_to_numpy(paired_iou(truth["boxes"], median[None])).mean()
    assert (found["labels"] == truth["labels"]).mean() > 0.95
    assert overlap > constant + 0.2

    localizer.save(tmp_path / "localizer.keras")
    again = Localizer.load(tmp_path / "localizer.keras").predict(unseen)
    for key in found:
        np.testing.assert_array_equal(again[key], found[key])


@pytest.mark.parametrize("attach, trained", [("conv", 4), ("fc", 2)])
def test_training_the_boxes_leaves_trunk_and_classes_alone(attach, trained):
    images, targets = squares(32)
    localizer = make(attach=attach)
    before = localizer.predict(images)
    weights = localizer.backbone.get_weights()
    localizer.compile(keras.optimizers.Adam(1e-2), train="boxes")
    assert len(localizer.trainable_variables) == trained
    fit(localizer, Batches(images, targets), epochs=2)
    after = localizer.predict(images)
    np.testing.assert_array_equal(after["confidence"], before["confidence"])
    assert not np.allclose(after["boxes"], before["boxes"])
    for a, b in zip(localizer.backbone.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_the_classifier_leaves_the_box_head_alone():
    images, targets = squares(32)
    localizer = make()
    head = localizer.heads.get_layer("offsets").get_weights()
    localizer.compile("adam", train="classifier")
    fit(localizer, Batches(images, targets), epochs=1)
    for a, b in zip(localizer.heads.get_layer("offsets").get_weights(), head, strict=True):
        np.testing.assert_array_equal(a, b)


def test_frozen_layers_stay_frozen_through_every_stage_and_reloading(tmp_path):
    localizer = make(frozen_to="stride8")
    counts = []
    for stage in ("classifier", "boxes", "both"):
        localizer.compile("adam", train=stage)
        counts.append(len(localizer.trainable_variables))
    assert counts == [4 * 3 + 4, 4, 4 * 3 + 8]
    localizer.compile("adam", train="boxes")
    localizer.save(tmp_path / "localizer.keras")
    again = Localizer.load(tmp_path / "localizer.keras")
    again.compile("adam", train="both")
    assert len(again.trainable_variables) == counts[-1]


def test_with_box_head_keeps_the_classifier():
    images, _ = squares(4)
    localizer = make()
    other = localizer.with_box_head(attach="fc", boxes="per_class")
    np.testing.assert_allclose(
        other.predict(images)["confidence"], localizer.predict(images)["confidence"], rtol=1e-5
    )
    assert other.heads.get_layer("offsets").units == 3 * 4


def test_heads_that_learn_side_by_side_learn_as_they_would_alone():
    data = Batches(*squares(64))
    classifier = make(dropout=0.0)
    alone = {"conv": classifier.with_box_head(), "fc": classifier.with_box_head(attach="fc")}
    together = {name: classifier.with_box_head(attach=name) for name in alone}
    losses = {"conv": "l2", "fc": "smooth_l1"}
    for name, localizer in together.items():
        localizer.heads.set_weights(alone[name].heads.get_weights())
        localizer.compile(train="boxes", box_loss=losses[name])
        alone[name].compile(keras.optimizers.SGD(0.1), train="boxes", box_loss=losses[name])
    before = [x.copy() for x in together["fc"].backbone.get_weights()]
    options = {"steps_per_epoch": data.steps_per_epoch, "epochs": 2, "verbose": 0}
    history = fit_box_heads(together, iter(data), keras.optimizers.SGD(0.1), **options)
    for name, localizer in together.items():
        expected = fit(alone[name], data, epochs=2).history["box_iou"]
        np.testing.assert_allclose(history.history[name], expected, rtol=1e-3)
        for a, b in zip(localizer.get_weights(), alone[name].get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)
    for a, b in zip(together["fc"].backbone.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_per_class_gives_the_predicted_class_its_box_and_trains_the_true_one():
    images, targets = squares(8)
    localizer = make(boxes="per_class", dropout=0.0)
    outputs = {k: ops.convert_to_numpy(v) for k, v in localizer(images, training=False).items()}
    for i in range(8):
        chosen = outputs["class_boxes"][i, 0, outputs["labels"][i, 0]]
        np.testing.assert_allclose(outputs["boxes"][i, 0], np.clip(chosen, 0, 1) * 64, rtol=1e-5)
    localizer.compile("adam", train="boxes", box_loss="l2")
    expected = [
        np.mean((outputs["class_boxes"][i, 0, targets["labels"][i, 0]] - box[0] / 64) ** 2)
        for i, box in enumerate(targets["boxes"])
    ]
    loss = localizer.compute_loss(images, targets, localizer(images, training=False))
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.slow
@compiled
def test_two_objects_are_told_apart_by_their_order():
    images, targets = squares(384, objects=2)
    shuffled = {key: value[:, ::-1].copy() for key, value in targets.items()}
    localizer = make(num_objects=2, dropout=0.0)
    localizer.compile(keras.optimizers.Adam(1e-3), train="both", box_loss="smooth_l1")
    fit(localizer, Batches(images, shuffled), epochs=12)
    unseen, truth = squares(64, objects=2, seed=9)
    found = localizer.predict(unseen)
    assert found["boxes"].shape == (64, 2, 4) and (found["num_detections"] == 2).all()
    assert (found["labels"] == truth["labels"]).mean() > 0.9


def test_images_without_an_object_do_not_count():
    images, targets = squares(4)
    localizer = make()
    localizer.compile("adam")
    outputs = localizer(images, training=False)
    with_padding = {
        "boxes": np.concatenate([targets["boxes"][:3], np.full((1, 1, 4), -1, "float32")]),
        "labels": np.concatenate([targets["labels"][:3], [[-1]]]).astype("int32"),
    }
    first_three = {key: value[:3] for key, value in outputs.items()}
    expected = localizer.compute_loss(None, {k: v[:3] for k, v in targets.items()}, first_three)
    loss = localizer.compute_loss(None, with_padding, outputs)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def one_or_two(count, seed=0):
    """Images with squares on the left and the right, of which every second one is wiped out."""
    images, targets = squares(count, objects=2, seed=seed)
    images[::2, :, 32:] = 30
    targets["boxes"][::2, 1] = targets["labels"][::2, 1] = -1
    return images, targets


def test_the_background_is_the_class_of_outputs_without_an_object():
    images, targets = one_or_two(4)
    localizer = make(num_objects=2, background=True, dropout=0.0)
    outputs = {k: ops.convert_to_numpy(v) for k, v in localizer(images, training=False).items()}
    logits = outputs["logits"].astype(float)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_array_equal(outputs["labels"], logits[..., :3].argmax(axis=-1))
    np.testing.assert_allclose(
        outputs["confidence"], probabilities[..., :3].max(axis=-1), rtol=1e-5
    )
    present = targets["labels"] >= 0
    answers = np.where(present, targets["labels"], 3)[..., None]
    entropy = -np.log(np.take_along_axis(probabilities, answers, axis=-1)).mean()
    squared = (outputs["class_boxes"][:, :, 0] - targets["boxes"] / 64) ** 2
    localizer.compile("adam", box_loss="l2", box_weight=50)
    loss = localizer.compute_loss(images, targets, localizer(images, training=False))
    expected = entropy + 50 * squared[present].mean()
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@compiled
def test_outputs_without_an_object_fall_silent():
    localizer = make(num_objects=2, background=True, dropout=0.0)
    localizer.compile(keras.optimizers.Adam(1e-3), train="both", box_loss="smooth_l1")
    fit(localizer, Batches(*one_or_two(384)), epochs=12)
    unseen, truth = one_or_two(64, seed=9)
    found = localizer.predict(unseen)
    present = truth["labels"] >= 0
    assert ((found["confidence"] > 0.5) == present).mean() > 0.95
    assert (found["labels"] == truth["labels"])[present].mean() > 0.9


def test_odd_maps_are_seen_to_their_last_cell():
    heads = Localizer(backbone("tiny"), 3, size=(96, 96)).heads
    last_map = np.zeros((1, 3, 3, 128), "float32")
    changed = last_map.copy()
    changed[0, 2, 2] = 9
    first, second = (ops.convert_to_numpy(heads(x)["logits"]) for x in (last_map, changed))
    assert not np.allclose(first, second)


def test_sample_weights_are_refused():
    images, targets = squares(4)
    localizer = make()
    localizer.compile("adam")
    with pytest.raises(ValueError, match="Localizer takes no sample weights."):
        localizer.evaluate(images, targets, sample_weight=np.ones(4), verbose=0)


@pytest.mark.parametrize(
    "method, arguments, sentence",
    [
        ("init", {"attach": "pool"}, "`attach` is one of conv, fc, not 'pool'."),
        ("init", {"boxes": "both"}, "`boxes` is one of agnostic, per_class, not 'both'."),
        ("compile", {"train": "trunk"}, "`train` is one of classifier, boxes, both, not 'trunk'."),
        ("compile", {"box_loss": "l1"}, "`box_loss` is one of l2, smooth_l1, iou, not 'l1'."),
    ],
)
def test_bad_arguments(method, arguments, sentence):
    with pytest.raises(ValueError) as error:
        make(**arguments) if method == "init" else make().compile(**arguments)
    assert str(error.value) == sentence


@pytest.mark.parametrize("argument", ["metrics", "weighted_metrics"])
def test_metrics_in_compile(argument):
    with pytest.raises(ValueError, match="^Localizer brings its own metrics.*EvaluateDetections"):
        make().compile(**{argument: [MeanAveragePrecision(2)]})


def test_loading_another_system(tmp_path):
    image = keras.Input((4,))
    keras.Model(image, image).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="holds a Functional, not a Localizer"):
        Localizer.load(tmp_path / "other.keras")


def test_a_copy_with_another_head_knows_the_classes():
    assert make(classes=("a", "b", "c")).with_box_head(boxes="per_class").classes[2] == "c"


def test_a_picture_that_cannot_be_read_is_said_as_it_is():
    def broken(i):
        raise DataError("a.jpg: cannot be read.")

    data = load("scenes", "train").some(4)
    data._read = broken
    localizer = Localizer(backbone("tiny"), 8, SIZE)
    localizer.compile()
    with pytest.raises(DataError, match="^a.jpg: cannot be read.$"):
        localizer.fit(batches(data, 2, SIZE), verbose=0)


def test_a_validation_without_end_is_refused():
    localizer = Localizer(backbone("tiny"), 8, SIZE)
    data = batches(load("scenes", "train").some(4), 2, SIZE)
    localizer.compile()
    with pytest.raises(ValueError, match="give `validation_steps`"):
        localizer.fit(data, validation_data=data.map(lambda batch: batch), verbose=0)
