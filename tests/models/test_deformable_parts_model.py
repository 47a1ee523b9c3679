import keras
import numpy as np
import pytest
from keras import ops

from cvlib.layers import HOG
from cvlib.models import DeformablePartsModel
from cvlib.models.deformable_parts_model import PartFinder, _machine, _mirrored, _one_way
from cvlib.models.system import plain

from .test_hog_detector import NMS, SIZE, mean_average_precision, shapes

ARGUMENTS = {"ratios": (0.5, 1), "side": 6, "cell_size": 4, "parts": 2, "part_side": 2, "reach": 2}


pytestmark = pytest.mark.slow


def make(**arguments):
    keras.utils.set_random_seed(1)
    return DeformablePartsModel(2, SIZE, nms=NMS, **ARGUMENTS | arguments)


def draw(model, seed=0):
    """Weights and anchors of which each does something."""
    rng = np.random.default_rng(seed)
    roots, filters, transform, placements = model.templates
    for layer in (*roots, filters):
        layer.set_weights([0.2 * rng.standard_normal(w.shape) for w in layer.get_weights()])
    transform.set_weights([rng.uniform(-0.1, 0.2, transform.deformation.shape)])
    for placement in placements:
        anchors = rng.integers(0, np.array(placement.shape) - 1, placement.anchors.shape)
        placement.set_weights([anchors, rng.standard_normal(placement.boxes.shape)])


@pytest.fixture(scope="module")
def trained():
    model = make()
    return model, model.fit(
        *shapes(16), rounds=1, latent=1, mining=2, negatives=100, verbose=0
    ).history


def seen_naively(model, blocks, finer, window, label):
    """Score, corners and box of a window by all displacements of all parts, in both directions."""
    roots, filters, transform, placements = model.templates
    _, component, row, column = model._places[window]
    height, width = placements[component].shape
    prices = transform.get_weights()[0].reshape(2, 2, 2, 4)[component, label]
    kernels = filters.get_weights()[0].reshape(3, 3, 36, 2, 2, 2)[..., component, label, :]
    anchors, boxes = placements[component].get_weights()
    best = (-np.inf,)
    for mirrored in (False, True):
        if mirrored:
            blocks, finer = (x[:, ::-1].reshape(*x.shape[:2], 2, 2, 9) for x in (blocks, finer))
            blocks, finer = (
                x[:, :, :, ::-1, ::-1].reshape(*x.shape[:2], 36) for x in (blocks, finer)
            )
            column = SIZE[1] // 4 - width - column
        kernel, bias = roots[component].get_weights()
        seen = blocks[row : row + height + 1, column : column + width + 1]
        score, moved = np.sum(seen * kernel[..., label]) + bias[label], []
        for part in range(2):
            found = -np.inf
            for dy, dx in np.ndindex(5, 5):
                dy, dx = dy - 2, dx - 2
                top, left = 2 * (np.array([row, column]) + anchors[label, part]) + [dy + 2, dx + 2]
                seen = finer[max(top, 0) : top + 3, max(left, 0) : left + 3]
                if seen.shape[:2] != (3, 3):
                    continue  # It would leave the map.
                fit = np.sum(seen * kernels[..., part])
                fit -= prices[part] @ [dy**2, dy, dx**2, dx]
                if fit > found:
                    found, best_move = fit, (dy, dx)
            score += found
            moved.append(best_move)
        if score > best[0]:
            corners = 2 * anchors[label] + moved
            box = np.append(np.ravel(moved), 1) @ boxes[label]
            if mirrored:
                corners[:, 1] = 2 * width - 4 - corners[:, 1]
                box[[0, 2]] = 2 * width - box[[2, 0]]
            best = score, mirrored, corners, box
    return best


def looked_up(model, images, windows, labels):
    """Scores and ways of all windows, and corners and boxes (B, K, ...) of (B, K) windows."""
    ends = {"given": model._parts["detections"][0], "maps": model._maps}
    seen = keras.Model(model.input, plain(ends))(images)
    scores, mirrored, fits, known = seen["given"]
    views = {"scores": scores, "mirrored": mirrored}
    views = {key: ops.convert_to_numpy(x) for key, x in views.items()}
    mirrored = np.take_along_axis(
        views["mirrored"].reshape(len(images), -1), windows * 2 + labels, axis=1
    )
    finder = next(layer for layer in model.layers if isinstance(layer, PartFinder))
    found = finder(fits, windows, labels, ops.convert_to_tensor(mirrored), known)
    return views, seen["maps"], {key: ops.convert_to_numpy(x) for key, x in found.items()}


def test_windows_are_scored_by_roots_and_parts_at_their_best_places():
    model = make()
    draw(model)
    images, _ = shapes(2)
    # In the first and the last window, parts come to the border of the map.
    windows = np.int32([[0, 80, 116], [0, 180, 237]])
    labels = np.int32([[0, 1, 1], [1, 0, 1]])
    views, maps, found = looked_up(model, images, windows, labels)
    for image, k in np.ndindex(windows.shape):
        window, label = windows[image, k], labels[image, k]
        seen = (ops.convert_to_numpy(maps[key][0][image]) for key in ("maps", "finer"))
        score, mirrored, corners, box = seen_naively(model, *seen, window, label)
        np.testing.assert_allclose(views["scores"][image, window, label], score, rtol=1e-4)
        assert views["mirrored"][image, window, label] == mirrored
        assert found["corners"][image, k].tolist() == corners.tolist()
        np.testing.assert_allclose(found["boxes"][image, k], box, rtol=1e-4, atol=1e-4)


def test_machines_see_what_the_network_scores():
    model = make(scales=(1, 0.75))
    draw(model)
    images, _ = shapes(1)
    seen = keras.Model(model.input, plain({**model._maps, **model._views}))(images)
    seen = keras.tree.map_structure(lambda x: ops.convert_to_numpy(x[0]), seen)
    model._read_parts()
    for window in range(0, len(model.windows), 19):
        component = model._places[window, 1]
        for label in range(2):
            features, _ = model._features(seen, window, label)
            score = features @ model._weights(component, True)[label]
            np.testing.assert_allclose(score, seen["scores"][window, label], rtol=1e-4, atol=1e-4)


def test_mirror_image_is_seen_in_the_other_direction():
    images, _ = shapes(2)
    blocks = ops.convert_to_numpy(HOG(4)(images))
    mirrored = ops.convert_to_numpy(HOG(4)(images[:, :, ::-1]))
    np.testing.assert_allclose(_mirrored(blocks, 9), mirrored, atol=1e-5)
    tensors = ops.convert_to_numpy(_mirrored(HOG(4)(images), 9))
    np.testing.assert_allclose(tensors, mirrored, atol=1e-5)
    model = make()
    draw(model)
    # Windows of the mirror image, row by row.
    here, there = (ops.convert_to_numpy(model(x)["scores"]) for x in (images, images[:, :, ::-1]))
    start = 0
    for rows, columns in model.grids:
        grid = here[:, start : start + rows * columns].reshape(2, rows, columns, 2)
        other = there[:, start : start + rows * columns].reshape(2, rows, columns, 2)
        np.testing.assert_allclose(grid, other[:, :, ::-1], rtol=1e-3, atol=1e-3)
        start += rows * columns


def test_learns(trained):
    model, history = trained
    assert mean_average_precision(model, *shapes(16, seed=1)) > 0.9
    # The last pass looks for hard negatives only.
    assert len(history["loss"]) == 4 and history["examples"][2] == history["examples"][3]


def test_objects_are_found_anew_only_before_the_first_of_several_searches(monkeypatch):
    model = make(ratios=(1,))
    chosen, found_in = model._chosen, set()

    def spy(number, *args):
        found = chosen(number, *args)
        if len(found):
            found_in.add(number)
        return found

    monkeypatch.setattr(model, "_chosen", spy)
    model.fit(*shapes(4), rounds=1, latent=2, mining=2, negatives=50, verbose=0)
    assert found_in == {0, 1, 2, 4}  # The roots' rounds, and the first of each two with parts.


def test_boxes_are_predicted_better_than_the_windows(trained):
    model, _ = trained
    images, y = shapes(16, seed=1)
    labels = y["labels"]
    scores = ops.convert_to_numpy(model(images)["scores"])
    best = np.int32(
        [[one[:, label].argmax()] for one, (label,) in zip(scores, labels, strict=True)]
    )
    found = looked_up(model, images, best, labels)[2]["boxes"]
    windows = model.windows[best]
    boxes = found * np.tile(model._units[best], 2) + np.tile(windows[..., :2], 2)
    learned, window = (np.abs(b - y["boxes"]).mean() for b in (boxes, windows))
    assert learned < 0.9 * window


def test_parts_have_a_price_and_are_where_the_root_has_weight(trained):
    model, _ = trained
    prices = model.templates[2].get_weights()[0].reshape(2, 2, 2, 4)
    used = prices[[0, 1], [1, 0]]
    assert np.all(used[..., ::2] >= 0.01)
    square = model.templates[3][1].get_weights()[0][0]
    assert np.unique(square, axis=0).shape == (2, 2)


def test_parts_begin_as_the_roots():
    model = make(parts=1)
    root = model.templates[0][1]
    kernel = np.zeros(root.kernel.shape, "float32")
    # Blocks of the cells 2 and 3 of the window, and one cell of margin.
    kernel[3, 4, 5, 0] = 2.0
    kernel[0, 0, :, 0] = -9.0
    root.set_weights([kernel, np.zeros(2)])
    model._place_parts()
    anchor = model.templates[3][1].get_weights()[0][0, 0]
    # The block between the cells 2 and 3, and between 3 and 4, is the middle of the part.
    assert anchor.tolist() == [2, 3]
    filters = model.templates[1].get_weights()[0][..., 2]
    np.testing.assert_allclose(np.linalg.norm(filters), 0.1, rtol=1e-5)
    expected = np.outer([1, 2, 1], [1, 2, 1]) / 6 * 0.1
    np.testing.assert_allclose(filters[:, :, 5], expected, rtol=1e-5)


def test_objects_are_turned_the_same_way():
    rng = np.random.default_rng(0)
    objects = np.repeat(rng.random((1, 3, 4, 36)), 10, axis=0)
    turned = rng.random(10) < 0.5
    objects[turned] = _mirrored(objects[turned], 9)
    objects = _one_way(objects + 0.1 * rng.random(objects.shape), 9)
    assert np.ptp(objects, axis=0).max() < 0.11


@pytest.mark.parametrize("count", [60, 8])
def test_machine_is_the_one_of_scikit_learn(count):
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((count, 20)).astype("float32"), np.repeat([-1, 1], count // 2)
    x[:, 0] += y
    expected = LinearSVC(C=0.1, fit_intercept=False, tol=1e-6).fit(x, y).coef_[0]
    free = np.full(20, -np.inf)
    np.testing.assert_allclose(_machine(x, y, 0.1, np.zeros(20), free), expected, atol=1e-3)
    bounded = np.append(free[:19], expected[19] + 0.5)
    found = _machine(x, y, 0.1, np.zeros(20), bounded)
    assert found[19] == bounded[19]
    # The others are those of what that weight leaves to do.
    margins = y * (x @ found)
    slope = found - 0.2 * (y * np.maximum(0, 1 - margins)) @ x
    np.testing.assert_allclose(slope[:19], 0, atol=2e-3)


def test_class_without_examples_is_never_detected():
    model = make(ratios=(1,))
    images, y = shapes(4)
    y["labels"][y["labels"] == 1] = -1
    model.fit(images, y, rounds=0, latent=1, mining=1, negatives=50, verbose=0)
    assert set(np.unique(model.predict(images)["labels"])) <= {-1, 0}


def test_objects_smaller_than_any_window_are_no_examples():
    images, y = shapes(4)
    y["boxes"][..., 2:] = y["boxes"][..., :2] + 1
    model = make(ratios=(1,))
    history = model.fit(images, y, rounds=0, latent=1, mining=1, negatives=50, verbose=0).history
    assert history["examples"] == [0, 0] and history["loss"] == [0.0, 0.0]


def test_other_scales_share_the_templates(trained):
    model, _ = trained
    other = model.slide(size=(48, 96))
    assert other.templates[1] is model.templates[1]
    # Of either size, the 48 rows in the middle of the image are the same cells.
    images, _ = shapes(1)
    wide = np.zeros((1, 48, 96, 3), "uint8")
    wide[:, :, :64] = images[:, :48]
    outputs = [ops.convert_to_numpy(m(x)["scores"]) for m, x in ((model, images), (other, wide))]
    rows, columns = model.grids[0]
    wider = other.grids[0][1]
    row = 3 * columns + 4, 3 * wider + 4
    np.testing.assert_allclose(outputs[0][0, row[0]], outputs[1][0, row[1]], rtol=1e-4, atol=1e-4)


def test_template_larger_than_the_image():
    with pytest.raises(ValueError, match="64x64 at scale 0.25 is 16x16, smaller than the window"):
        make(scales=(1, 0.25))
    with pytest.raises(ValueError, match="A part of 7 cells is larger than windows of 4x8 and 6x6"):
        make(part_side=7)
