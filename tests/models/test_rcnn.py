import contextlib
import json
import tracemalloc

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from cvlib.models import RCNN, backbone, rcnn, staged_detector

from .test_fast_rcnn import near, overlap
from .training import compiled, squares

SIZE = (64, 64)
EPOCHS = 1 if keras.backend.backend() == "torch" else 16  # where nothing is compiled


def make(**arguments):
    keras.utils.set_random_seed(1)
    known = {"size": SIZE, "max_proposals": 12, "crop_size": 32, "hidden": 16, "dropout": 0.0}
    model = RCNN(backbone("tiny"), 3, **{**known, **arguments})
    model.compile(keras.optimizers.Adam(2e-3), num_regions=16)
    return model


def data(count, seed=0):
    images, y = squares(count, seed=seed)
    return {"images": images, "proposals": near(y["boxes"], 12)}, y


def warped(image, box, context=0, side=8):
    crop = rcnn.CropAndResize((side, side))
    found = staged_detector.warped(crop, image[None], np.float32([[box]]), context)
    return ops.convert_to_numpy(found)[0, 0]


def test_the_warp_adds_context_and_fills_with_the_mean():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3)).astype("uint8")
    # A box of 8 x 8 pixels becomes 8 x 8 pixels.
    np.testing.assert_allclose(warped(image, (10, 20, 18, 28)), image[20:28, 10:18], atol=1e-4)
    # With 16 of 227 pixels on either side, 195 are left for the box.
    middle, half = np.array([30, 15, 30, 15]), np.array([-10, -5, 10, 5])
    expected = warped(image, middle + half * 227 / 195)
    np.testing.assert_allclose(warped(image, middle + half, 16), expected, atol=1e-3)
    # Over the corner: as of a canvas of the mean colour.
    canvas = np.full((60, 70, 3), staged_detector.MEAN_COLOR, "uint8")
    canvas[10:50, 10:60] = image
    found = warped(image, (0, 0, 20, 10), 16, side=32)
    expected = warped(canvas, (10, 10, 30, 20), 16, side=32)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(found[0, 0] - staged_detector.MEAN_COLOR).max() < 1e-3


def test_the_warp_does_not_average_where_it_shrinks():
    image = np.zeros((64, 64, 3), "uint8")
    image[::2] = 255  # Rows that an average would make grey.
    found = warped(image, (0, 0, 64, 64), side=16)
    at_centres = np.asarray(Image.fromarray(image))[1:64:4] / 2 + image[2:64:4] / 2.0
    np.testing.assert_allclose(found[:, 0], at_centres[:, 0], atol=1e-3)
    assert set(np.unique(warped(image, (0, 0, 64, 64), side=32)).round()) == {128}
    nearest = warped(image, (0, 0.5, 64, 64.5), side=16)
    assert set(np.unique(nearest.round()).tolist()) <= {0, 255}


def test_three_regions_and_three_images_are_warped_as_one():
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3)).astype("uint8")
    boxes = np.tile(np.float32([[[3, 5, 20, 30]]]), (3, 3, 1))
    crop = rcnn.CropAndResize((8, 8))
    together = ops.convert_to_numpy(staged_detector.warped(crop, images, boxes, 16))
    for i in range(3):
        alone = warped(images[i], boxes[i, 0], 16)
        np.testing.assert_allclose(together[i], [alone] * 3, atol=1e-3)


def test_the_loss_is_that_of_the_paper():
    """Objects are proposals with an IoU of at least 0.5; background is all the others."""
    model = make()
    x, y = data(2)
    model.compile("sgd", num_regions=64)
    outputs = model(x, training=False)
    found = float(model.compute_losses(y, outputs)["classification"])
    crops, classes = [], []
    for image, given, objects, labels in zip(*x.values(), y["boxes"], y["labels"], strict=True):
        real = [i for i, label in enumerate(labels) if label >= 0]
        for box in [box for box in (*given, *objects) if box[0] >= 0]:
            ious = [overlap(box, objects[i]) for i in real]
            classes.append(labels[real[np.argmax(ious)]] if max(ious) >= 0.5 else 3)
            crops.append(warped(image, box, 16, 32))
    logits = ops.convert_to_numpy(model.network(np.array(crops))["logits"])
    each = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(classes)), classes]
    assert set(classes) > {3}
    assert found == pytest.approx(np.mean(each), rel=1e-3)


def examples(rng, count, dimensions=6, noise=0.0):
    """Batches of regions whose first features tell class 1, and where its object is."""
    kind = [("own", "i4"), ("overlap", "f4", 2), ("pair", "i4"), ("target", "f4", 4)]
    matrix = rng.normal(size=(dimensions, 4))
    for _ in range(3):
        regions = np.zeros(count, kind)
        regions["own"] = rng.choice([-1, -1, -1, 0, 1], count)
        x = rng.normal(size=(count, dimensions)).astype("float32")
        x[:, 0] += 2.5 * (regions["own"] == 1)
        x *= staged_detector.MEAN_NORM / np.linalg.norm(x, axis=1).mean()
        regions["overlap"][:, 1] = np.where(regions["own"] == 1, 1, rng.uniform(0, 0.5, count))
        regions["pair"] = rng.choice([-1, 0, 1], count)
        regions["target"] = 0.01 * x @ matrix + 0.2 + noise * rng.normal(size=(count, 4))
        yield regions, x


def test_svms_learn_by_the_rules_of_the_authors(monkeypatch):
    """Trap 10, with all negatives at once: the plane that minimises the authors' objective."""
    batches = list(examples(np.random.default_rng(0), 300))
    monkeypatch.setattr(staged_detector, "ROUND", 1)
    monkeypatch.setattr(staged_detector, "HARD", -np.inf)
    monkeypatch.setattr(staged_detector, "EASY", -np.inf)
    weights = rcnn.train_svm(batches, 1)
    regions, x = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    positive, negative = regions["own"] == 1, regions["overlap"][:, 1] < 0.3
    x1 = np.append(np.r_[x[positive], x[negative]], np.full((sum(positive | negative), 1), 10), 1)
    sign = np.repeat([1, -1], [positive.sum(), negative.sum()])
    cost = np.where(sign > 0, 2e-3, 1e-3)

    def objective(weights):
        w = np.append(weights[:-1], weights[-1] / 10)
        return w @ w / 2 + cost @ np.maximum(0, 1 - sign * (x1 @ w))

    lowest = objective(weights)
    for step in np.random.default_rng(1).normal(size=(200, len(weights))):
        assert objective(weights + 0.02 * step) > lowest
    assert objective(weights) < 0.7 * objective(0 * weights)


def test_svms_see_hard_negatives_alone(monkeypatch):
    batches = list(examples(np.random.default_rng(0), 400))
    monkeypatch.setattr(staged_detector, "ROUND", 60)
    seen = []
    train = staged_detector._svm
    monkeypatch.setattr(staged_detector, "_svm", lambda p, n: seen.append((p, n)) or train(p, n))
    weights = rcnn.train_svm(batches, 1)
    positives = sum((regions["own"] == 1).sum() for regions, _ in batches)
    assert {len(p) for p, _ in seen} == {positives}  # The objects alone, at every round.
    first = (batches[0][0]["overlap"][:, 1] < 0.3).sum()
    assert len(seen[0][1]) == first and len(seen) >= 3
    everything = sum((regions["overlap"][:, 1] < 0.3).sum() for regions, _ in batches)
    assert len(seen[-1][1]) < 0.8 * everything
    # What is left out is easy for the plane, so that all of them would move it little.
    monkeypatch.setattr(staged_detector, "HARD", -np.inf)
    monkeypatch.setattr(staged_detector, "EASY", -np.inf)
    exact = rcnn.train_svm(batches, 1)
    assert exact @ weights > 0.98 * np.linalg.norm(exact) * np.linalg.norm(weights)
    # Not more than so many are in memory.
    monkeypatch.setattr(staged_detector, "MOST", 50)
    seen.clear()
    rcnn.train_svm(batches, 1)
    assert len(seen[-1][0]) == 50 and len(seen[-1][1]) <= 50 + 400


def test_regressors_are_those_of_the_authors():
    """Trap 8: targets whitened together, a ridge of 1000, features of mean norm 20."""
    batches = list(examples(np.random.default_rng(0), 200, noise=0.05))
    found = rcnn.train_regressor(batches, 1)
    regions, x = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    pairs = regions["pair"] == 1
    x, y = np.append(x[pairs], np.ones((pairs.sum(), 1)), 1), regions["target"][pairs]
    mean = y.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov((y - mean).T, bias=True))
    whiten = axes @ np.diag((variances + 1e-3) ** -0.5) @ axes.T
    beta = np.linalg.solve(x.T @ x + 1000 * np.eye(7), x.T @ ((y - mean) @ whiten))
    expected = beta @ np.linalg.inv(whiten)
    expected[-1] += mean
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    assert np.all(rcnn.train_regressor(batches, 5) == 0)


def test_what_is_known_of_regions():
    model = make()
    objects = np.float32([[[8, 8, 40, 40], [10, 40, 30, 60], [-1] * 4]])
    y = {"boxes": objects, "labels": np.int32([[2, 1, -1]])}
    y["difficult"] = np.array([[False, True, False]])
    given = np.full((1, 12, 4), -1, "float32")
    given[0, :4] = [8, 12, 40, 44], [0, 0, 8, 8], [12, 40, 30, 60], [np.nan, 0, 9, 9]
    (found,), ((boxes,),), _ = model._regions({"proposals": given}, y, 7)
    assert found["image"].tolist() == [7] * 4
    # Three proposals and one object: neither one that is difficult nor what is no box.
    assert found["own"].tolist() == [-1, -1, -1, 2]
    assert found["pair"].tolist() == [2, -1, -1, -1]
    np.testing.assert_allclose(found["target"][0], [0, -4 / 32, 0, 0], atol=1e-6)
    # What overlaps a difficult object is no negative of its class.
    np.testing.assert_allclose(found["overlap"][:, 1] >= 0.3, [False, False, True, False])
    np.testing.assert_allclose(found["overlap"][[0, 3], 2], [7 / 9, 1], rtol=1e-5)


def test_a_region_inside_a_crowd_is_no_negative():
    model = make()
    y = {"boxes": np.float32([[[0, 0, 60, 60]]]), "labels": np.int32([[1]])}
    y["crowd"] = np.array([[True]])
    given = np.full((1, 12, 4), -1, "float32")
    given[0, 0] = 8, 8, 18, 18
    (found,), *_ = model._regions({"proposals": given}, y, 0)
    # Its IoU with the crowd is 100 / 3600.
    assert found["overlap"].tolist() == [[0, 1, 0]]


def test_a_class_without_objects_keeps_no_negatives():
    class Counted(list):
        passes = 0

        def __iter__(self):
            self.passes += 1
            return super().__iter__()

    regions = np.zeros(5, [("own", "i4"), ("overlap", "f4", 3)])
    regions["own"] = -1
    examples = Counted([(regions, np.ones((5, 4), "float32"))] * 3)
    assert rcnn.train_svm(examples, 1).tolist() == [0, 0, 0, 0, staged_detector.NEVER]
    assert examples.passes == 1  # The one that looks for objects.


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A system trained in all its stages without a pause, its data and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    model, (x, y) = make(), data(48)
    model.fit(x, y, folder=folder, epochs=EPOCHS, batch_size=8, verbose=0)
    return model, x, y, folder


@pytest.mark.slow
def test_the_network_scores_as_svms_and_regressors_do(fitted):
    model, x, y, folder = fitted
    regions, features = (
        np.concatenate([np.load(path) for path in sorted(folder.glob(f"regions/{kind}-*.npy"))])
        for kind in ("regions", "features")
    )
    assert model.cost["regions"] == len(regions) == len(features)
    assert model.cost["bytes"] == features.nbytes
    assert set(model.cost["seconds"]) == {"fine-tuning", "features", "SVMs", "box regression"}
    columns = model.network.output["pool"].shape[-1]
    path = folder / "regions"
    pool, fc = (rcnn.Examples(path, part) for part in (slice(columns), slice(columns, None)))
    norms = np.linalg.norm(next(iter(fc))[1], axis=1)
    assert norms.mean() == pytest.approx(20, rel=1e-3)
    image = regions["image"] == 3
    proposals = image & (regions["own"] < 0)
    scores = []
    for label in range(3):
        weights = rcnn.train_svm(fc, label)
        scores.append(fc.scale * features[proposals, columns:] @ weights[:-1] + weights[-1])
        moved = rcnn.train_regressor(pool, label)
        shift = pool.scale * features[proposals, :columns] @ moved[:-1] + moved[-1]
        kernel, bias = model.get_layer("regressors").get_weights()
        said = features[proposals, :columns].astype("float32") @ kernel + bias
        said = said[:, 4 * label : 4 * label + 4] * [0.1, 0.1, 0.2, 0.2]
        np.testing.assert_allclose(said, shift, atol=2e-3)
    assert np.ptp(shift) > 0.01
    found = {name: stage for name, stage in model.stages()}
    one = {key: value[3:4] for key, value in x.items()}
    _, crops = found["warp"]([one["images"], one["proposals"]])
    seen = found["network"](crops)
    said = found["heads"]([seen[key] for key in sorted(seen)])
    real = x["proposals"][3, :, 2] > x["proposals"][3, :, 0]
    expected = 1 / (1 + np.exp(-np.transpose(scores)))
    np.testing.assert_allclose(ops.convert_to_numpy(said["scores"])[0][real], expected, atol=2e-2)


@pytest.mark.slow
def test_a_file_holds_it_all(fitted, tmp_path):
    model, x, _, _ = fitted
    model.save(tmp_path / "rcnn.keras")
    again = RCNN.load(tmp_path / "rcnn.keras")
    expected = model.predict(**x)
    assert expected["num_detections"].sum() > 0
    for key, value in again.predict(**x).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-4, err_msg=key)


@pytest.mark.slow
def test_stages_that_were_killed_go_on(fitted, tmp_path, monkeypatch):
    model, x, y, folder = fitted
    write = staged_detector.write_atomically
    for stage in ("regions", "features", "svm", "regressor"):
        seen = []

        def killed(path, content, stage=stage, seen=seen):
            seen.extend([path] if path.name.startswith(stage) else [])
            if len(seen) == 2:
                raise KeyboardInterrupt
            write(path, content)

        whole = [*tmp_path.rglob("features-*"), *tmp_path.rglob("svm-*")]
        kept = {path: path.stat().st_mtime_ns for path in whole}
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(staged_detector, "write_atomically", killed)
            model.fit_heads(x, y, tmp_path)
        # What was finished is not made again.
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
    model.fit_heads(x, y, tmp_path)
    files = sorted(folder.rglob("*.npy"))
    assert len(files) == 2 * 3 + 3 + 3
    for path in files:
        again = (tmp_path / path.relative_to(folder)).read_bytes()
        assert again == path.read_bytes(), path.name
    assert not list(tmp_path.rglob(".*"))


@compiled
@pytest.mark.slow
def test_fine_tuning_that_was_killed_goes_on_after_its_last_epoch(tmp_path, monkeypatch):
    x, y = data(4)

    @contextlib.contextmanager
    def killed(path):
        if path.name.startswith("0002"):
            raise KeyboardInterrupt
        with whole(path) as temporary:
            yield temporary

    whole, seen = staged_detector.whole_file, []
    monkeypatch.setattr(RCNN, "fit_heads", lambda *_: None)
    arguments = {"folder": tmp_path, "epochs": 3, "verbose": 0}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(staged_detector, "whole_file", killed)
        make().fit(x, y, **arguments)
    files = list((tmp_path / "network").glob("*.h5"))
    assert [path.name for path in files] == ["0001.weights.h5"]
    model = make()
    kernel = model.network.get_layer("fc6").kernel
    kernel.assign(ops.convert_to_numpy(kernel) + 1)  # It begins at random.
    begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda n, _: seen.append(n))
    model.cost = {"seconds": {}}
    model.fit(x, y, callbacks=[begin], **arguments)
    assert seen == [1, 2]
    kernel = ops.convert_to_numpy(model.network.get_layer("fc6").kernel)
    assert kernel.mean() < 0.5
    again = make()
    again.cost = {"seconds": {}}
    assert again.fit(x, y, **arguments).history == {}
    np.testing.assert_array_equal(again.network.get_layer("fc6").kernel, kernel)


@pytest.mark.slow
def test_what_other_settings_made_is_refused(fitted, tmp_path):
    model, x, y, folder = fitted
    other = make()
    message = f'"epochs": {EPOCHS}}}, .* {{"epochs": {EPOCHS + 1}}}: name another folder'
    with pytest.raises(ValueError, match=message):
        other.fit(x, y, folder=folder, epochs=EPOCHS + 1)
    other.compile(keras.optimizers.Adam(2e-3), num_regions=16, background_iou=(0.3, 0.5))
    with pytest.raises(ValueError, match=r'"background_iou": \[0.0, 0.5\].* \[0.3, 0.5\]'):
        other.fit(x, y, folder=folder, epochs=EPOCHS)
    other = make()
    shuffled = {**x, "proposals": x["proposals"][::-1]}
    with pytest.raises(ValueError, match="the weights there were made with .*first batch"):
        other.fit(shuffled, y, folder=folder, epochs=EPOCHS)
    with pytest.raises(ValueError, match=r"the features there were made with .*weights"):
        other.fit_heads(x, y, folder)
    # Heads may change.
    model.variant(scores="softmax", box_regression=False).fit_heads(x, y, folder)


@pytest.mark.slow
def test_variants_share_the_network(fitted):
    model, x, y, folder = fitted
    softmax = model.variant(scores="softmax", box_regression=False)
    found = softmax.predict(**x)
    boxes = found["boxes"][found["labels"] >= 0]
    given = x["proposals"].reshape(-1, 4)
    assert all((np.abs(given - box).sum(axis=1) < 1e-3).any() for box in boxes)
    pool = model.variant(features="pool")
    pool.fit_heads(x, y, folder)
    assert pool.get_layer("svm").kernel.shape[0] == model.network.output["pool"].shape[-1]
    assert (folder / "regions" / "svm-pool-000.npy").exists()
    assert pool.network is model.network
    for arguments in ({"features": "map"}, {"scores": "hinge"}):
        with pytest.raises(ValueError, match="is one of"):
            model.variant(**arguments)


@pytest.mark.slow
def test_a_full_disk_is_said_in_one_sentence(tmp_path, monkeypatch):
    model, (x, y) = make(scores="softmax", box_regression=False), data(4)
    write, count = staged_detector.write_atomically, iter(range(100))

    def full(path, content, replace=True):
        if next(count) == 1:
            raise OSError(28, "No space left on device")
        write(path, content, replace)

    with monkeypatch.context() as patch:
        patch.setattr(staged_detector, "write_atomically", full)
        with pytest.raises(OSError, match="the disk is full; what was finished is kept there"):
            model.fit(x, y, folder=tmp_path, epochs=0, verbose=0)
    model.fit(x, y, folder=tmp_path, epochs=0, verbose=0)
    assert model.cost["regions"] > 0


@pytest.mark.slow
def test_images_without_proposals_and_classes_without_objects(tmp_path):
    model, (x, y) = make(), data(6)
    model.classes = ("circle", "square", "star")
    x["proposals"][0] = -1
    y["labels"][y["labels"] == 1] = 2
    with pytest.warns(UserWarning, match="for the classes square: they are never found"):
        model.fit(x, y, folder=tmp_path, epochs=0, verbose=0)
    found = model.predict(**x)
    assert found["num_detections"][0] == 0
    assert found["num_detections"].sum() > 0
    assert not (found["labels"] == 1).any()


@pytest.mark.slow
def test_fine_tuning_moves_the_statistics_of_the_network(fitted):
    model, x, _, _ = fitted
    moved = [v for v in model.network.variables if v.path.endswith("moving_mean")]
    assert all(np.abs(ops.convert_to_numpy(v)).max() > 1e-3 for v in moved)
    before = model.get_weights()
    model(x, training=True)  # All proposals, in a graph that is for the detections.
    for actual, desired in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(actual, desired)


@compiled
@pytest.mark.slow
def test_it_learns(fitted):
    model, x, y, folder = fitted
    found = model.predict(**x)
    hits = [
        any(
            overlap(box, found["boxes"][i, n]) > 0.6
            for n in range(found["num_detections"][i])
            if found["labels"][i, n] == label and found["confidence"][i, n] > 0.5
        )
        for i in range(48)
        for box, label in zip(y["boxes"][i], y["labels"][i], strict=True)
        if label >= 0
    ]
    assert np.mean(hits) > 0.8
    assert json.loads((folder / "regions" / "whole.json").read_text())["regions"] > 48


def test_memory_does_not_grow_with_the_images(tmp_path, monkeypatch):
    monkeypatch.setattr(staged_detector, "MOST", 200)
    monkeypatch.setattr(staged_detector, "ROUND", 200)
    rng, peaks = np.random.default_rng(0), []
    for times in (1, 2, 4):
        folder = tmp_path / str(times)
        folder.mkdir()
        for i in range(2 * times):
            for n, (regions, x) in enumerate(examples(rng, 400, dimensions=64)):
                np.save(folder / f"regions-{i}{n}.npy", regions)
                np.save(folder / f"features-{i}{n}.npy", x.astype("float16"))
        tracemalloc.start()
        for train in (rcnn.train_svm, rcnn.train_regressor):
            assert np.ptp(train(rcnn.Examples(folder, slice(None)), 1)) > 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 1.2 * peaks[0]
