import itertools
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from cvlib import masks as rle
from cvlib.data import load
from cvlib.data.augment import Augment
from cvlib.data.pipeline import arrays, batches, to_original
from cvlib.data.sample import DataError, Dataset
from cvlib.proposals import Proposals, SlidingWindows, propose

ALL = Augment(flip=0.5, scale=(0.5, 1.4), aspect=(0.7, 1.4))
JOINTS = 4  # left, right, left, right: the flip exchanges neighbours


def painted(i, height=60, width=90):
    """A picture in which each annotation can be found again by its colour.

    On a grey ramp lie one to three rectangles, in red the first, then green, blue; joint k of
    object 0 is the corner k of its box.
    """
    rng = np.random.default_rng(i)
    boxes, image = [], np.full((height, width, 3), 90, np.uint8)
    image += np.linspace(0, 60, width, dtype=np.uint8)[:, None]
    for k in range(1 + i % 3):
        x, y = 2 + 28 * k + rng.integers(0, 6), rng.integers(2, 20)
        box = x, y, x + rng.integers(10, 20), y + rng.integers(12, 36)
        image[box[1] : box[3], box[0] : box[2]] = np.eye(3)[k] * 255
        boxes.append(box)
    boxes = np.array(boxes, np.float32)
    segmentation = np.zeros((height, width), np.uint8)
    masks = []
    for k, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
        segmentation[y1:y2, x1:x2] = k + 1
        mask = np.zeros((height, width), bool)
        mask[y1:y2, x1 : (x1 + x2) // 2] = True  # the left half
        masks.append(rle.encode(mask))
    x1, y1, x2, y2 = boxes.T
    corners = np.stack([[x1, y1], [x2, y1], [x1, y2], [x2, y2]])  # (4, 2, N)
    visible = np.full((len(boxes), JOINTS, 1), 2)
    return {
        "image": image,
        "image_id": f"picture {i}",
        "size": (height, width),
        "label": i % 3,
        "boxes": boxes,
        "labels": np.arange(len(boxes), dtype=np.int32),
        "difficult": np.arange(len(boxes)) == 1,
        "crowd": np.arange(len(boxes)) == 2,
        "masks": masks,
        "keypoints": np.concatenate([corners.transpose(2, 0, 1), visible], -1).astype(np.float32),
        "segmentation": segmentation,
    }


def dataset(length=7, read=painted, **kwargs):
    ids = [f"picture {i}" for i in range(length)]
    kwargs = {"flip_keypoints": (1, 0, 3, 2), **kwargs}
    return Dataset("painted", "train", "abc", ids, read, lambda: "", **kwargs)


def one_by_one(data, count):
    """(image, y) of single samples from a batched stream."""
    for x, y in itertools.islice(data, count):
        for i in range(len(x)):
            yield x[i], {key: value[i] for key, value in y.items()}


def extent(inside):
    """The box around the pixels that are at least half of one colour."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def colour_share(image, k):
    """How much of each pixel has object k's colour: its channel stands out over the others."""
    image = image.astype(float)
    return (image[..., k] - np.delete(image, k, -1).max(-1)) / 255


@pytest.mark.parametrize("resize", ["stretch", "pad"])
@pytest.mark.parametrize("augment", [None, ALL])
def test_boxes_lie_where_the_pixels_do(resize, augment):
    data = batches(dataset(), 5, (120, 100), max_objects=3, augment=augment, resize=resize)
    objects = 0
    for image, y in one_by_one(data, 12):
        for box, label in zip(y["boxes"], y["labels"], strict=True):
            if label >= 0:
                found = extent(colour_share(image, label) > 0.45)
                np.testing.assert_allclose(box, found, atol=1.0)
                objects += 1
    assert objects > 60


def test_padding_keeps_proportions_and_centres():
    x, y = next(iter(batches(dataset(), 7, (90, 90), resize="pad", shuffle=False)))
    np.testing.assert_allclose(y["geometry"], np.tile([1, 1, 0, 15], (7, 1)))
    assert (x[:, :15] == (124, 116, 104)).all() and (x[:, 75:] == (124, 116, 104)).all()
    np.testing.assert_array_equal(x[0, 15:75], painted(0)["image"])


def test_joints_follow_and_flips_exchange_left_and_right():
    data = batches(dataset(), 7, (120, 100), "keypoints", max_objects=3, augment=ALL)
    seen = {"mirrored": 0, "cut": 0}
    for _, y in one_by_one(data, 12):
        mirrored = y["geometry"][0] < 0
        for k in np.flatnonzero(y["labels"] >= 0):
            x1, y1, x2, y2 = y["boxes"][k]
            joints = y["keypoints"][k]
            # Left joints lie on the left edge, in a mirror image too, once they are exchanged.
            expected = [[x1, y1], [x2, y1], [x1, y2], [x2, y2]]
            for joint, corner in zip(joints, expected, strict=True):
                if joint[2]:
                    np.testing.assert_allclose(joint[:2], corner, atol=1e-3)
                else:
                    np.testing.assert_array_equal(joint, 0)
                    seen["cut"] += 1
            seen["mirrored"] += mirrored
    assert seen["mirrored"] > 20 and seen["cut"] > 20


def test_joints_outside_the_view_are_not_visible():
    sample = painted(0) | {"keypoints": np.array([[[0, 0, 2], [89, 59, 1], [95, 5, 2], [5, 5, 0]]])}
    data = batches(dataset(1, lambda i: sample), 1, (120, 180), "keypoints", max_objects=2)
    _, y = next(iter(data))
    expected = [[0, 0, 2], [178, 118, 1], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(y["keypoints"], [[expected, np.zeros((4, 3))]])


def test_masks_stay_in_the_frame_of_their_box():
    augment = Augment(flip=0.5, scale=(0.9, 1.5), min_visible=0.999)
    data = batches(dataset(), 7, (96, 96), "masks", 3, augment=augment, mask_size=8)
    halves = set()
    for _, y in one_by_one(data, 10):
        assert y["masks"].shape == (3, 8, 8)
        mirrored = y["geometry"][0] < 0
        for mask in y["masks"][y["labels"] >= 0]:
            expected = np.zeros(8)
            expected[4:] = mirrored
            expected[:4] = not mirrored
            # The columns beside the middle are blurred by the odd boxes' half pixels.
            np.testing.assert_allclose(
                np.delete(mask, [3, 4], 1), [np.delete(expected, [3, 4])] * 8
            )
            halves.add(bool(mirrored))
    assert halves == {True, False}


def test_masks_of_clipped_boxes_show_what_is_left_of_the_object():
    augment = Augment(flip=0.5, scale=(0.3, 0.6), min_visible=0.1)
    sample = painted(2)
    whole = rle.decode(sample["masks"])
    data = batches(dataset(4, lambda i: sample), 4, (240, 360), "masks", 3, augment, mask_size=12)
    clipped = 0
    for _, y in one_by_one(data, 10):
        boxes = to_original(y["boxes"], y["geometry"])
        for k in np.flatnonzero(y["labels"] >= 0):
            x1, y1, x2, y2 = boxes[k]
            clipped += np.abs(boxes[k] - sample["boxes"][y["labels"][k]]).max() > 1
            x = x1 + (np.arange(12) + 0.5) / 12 * (x2 - x1)
            columns = x[::-1] if y["geometry"][0] < 0 else x
            expected = whole[y["labels"][k], int((y1 + y2) / 2), columns.astype(int)]
            # A cell whose centre is at the mask's edge may fall on either side of it.
            assert ((y["masks"][k][6] > 0.5) != expected).sum() <= 1
    assert clipped > 10


def test_segmentation_is_nearest_and_padding_void():
    data = batches(dataset(), 7, (100, 70), "segmentation", augment=ALL, resize="pad")
    for image, y in one_by_one(data, 6):
        assert set(np.unique(y["segmentation"])) <= {0, 1, 2, 3, 255}
        void = y["segmentation"] == 255
        assert void.any()
        for k in range(3):
            share = colour_share(image, k)
            assert (y["segmentation"][share > 0.9] == k + 1).all()
            assert (y["segmentation"][share < 0.02] != k + 1).all()


def test_geometry_maps_back_to_the_original():
    augment = Augment(flip=0.5, scale=(1, 1.5))  # no box is cut
    data = batches(dataset(), 7, (50, 70), max_objects=3, augment=augment, shuffle=False)
    for x, y in itertools.islice(data, 4):
        original = to_original(y["boxes"], y["geometry"])
        assert x.shape == (7, 50, 70, 3)
        for i in range(7):
            expected = painted(i)["boxes"]
            np.testing.assert_allclose(original[i, : len(expected)], expected, atol=1e-3)


def test_flags_and_areas_follow_their_objects():
    _, y = next(iter(batches(dataset(), 7, (120, 180), max_objects=4, shuffle=False)))
    np.testing.assert_array_equal(y["labels"][2], [0, 1, 2, -1])
    np.testing.assert_array_equal(y["difficult"][2], [False, True, False, False])
    np.testing.assert_array_equal(y["crowd"][2], [False, False, True, False])
    x1, y1, x2, y2 = painted(2)["boxes"].T
    np.testing.assert_allclose(y["area"][2], [*(2 * (x2 - x1) * 2 * (y2 - y1)), 0])


def test_objects_that_are_cut_off_are_dropped_and_one_always_stays():
    augment = Augment(flip=0, scale=(0.3, 0.6), min_visible=0.5)
    data = batches(dataset(), 7, (60, 90), max_objects=3, augment=augment, shuffle=False)
    counts = []
    for _, y in itertools.islice(data, 6):
        boxes = to_original(y["boxes"], y["geometry"])
        for i in range(7):
            n = (y["labels"][i] >= 0).sum()
            counts.append((len(painted(i)["boxes"]), n))
            for k in range(n):
                x1, y1, x2, y2 = boxes[i, k]
                a, b, c, d = painted(i)["boxes"][y["labels"][i, k]]
                assert (x2 - x1) * (y2 - y1) >= 0.49 * (c - a) * (d - b)
    assert min(left for _, left in counts) == 1
    assert any(left < total for total, left in counts)


@pytest.mark.parametrize(
    ("targets", "shapes"),
    [
        ("labels", {}),
        ("segmentation", {"segmentation": (3, 40, 50)}),
        ("boxes", {"boxes": (3, 5, 4), "labels": (3, 5), "area": (3, 5)}),
        ("masks", {"boxes": (3, 5, 4), "masks": (3, 5, 14, 14)}),
        ("keypoints", {"boxes": (3, 5, 4), "keypoints": (3, 5, JOINTS, 3)}),
    ],
)
def test_shapes_are_static(targets, shapes):
    def read(i):
        return painted(i, height=60 + i, width=90 - 3 * i) if i else empty()

    data = batches(dataset(read=read), 3, (40, 50), targets, 5, augment=ALL, mask_size=14)
    shapes = {"geometry": (3, 4), "label": (3,), **shapes}
    for x, y in itertools.islice(data, 6):
        assert x.shape == (3, 40, 50, 3) and x.dtype == np.uint8
        assert {key: y[key].shape for key in shapes} == shapes
        types = {key: value.dtype.name for key, value in y.items()}
        expected = {"label": "int32", "labels": "int32", "segmentation": "uint8"}
        expected |= {"difficult": "bool", "crowd": "bool"}
        assert types == {key: expected.get(key, "float32") for key in y}


def empty():
    sample = painted(0)
    none = {key: sample[key][:0] for key in ("boxes", "labels", "difficult", "crowd", "masks")}
    return sample | none | {"keypoints": sample["keypoints"][:0]}


def test_an_image_without_objects_is_all_padding():
    _, y = next(iter(batches(dataset(1, lambda i: empty()), 1, (8, 8), "masks", 2)))
    assert (y["boxes"] == -1).all() and (y["labels"] == -1).all() and not y["masks"].any()


def test_epochs_differ_in_order_and_cover_every_sample():
    data = batches(dataset(6, numbered), 2, (2, 2), "labels", seed=3)
    stream = np.concatenate([y["label"] for _, y in itertools.islice(data, 12)])
    epochs = stream.reshape(4, 6)
    np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(6), (4, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other = batches(dataset(6, numbered), 6, (2, 2), "labels", seed=4)
    assert not np.array_equal(next(iter(other))[1]["label"], epochs[0])
    assert (data.num_samples, data.steps_per_epoch) == (6, 3)


def numbered(i):
    return {"image": np.full((2, 2, 3), i, np.uint8), "image_id": str(i), "label": i}


def test_batches_are_full_across_epochs():
    data = batches(dataset(7, numbered), 4, (2, 2), "labels")
    assert data.steps_per_epoch == 2
    assert [len(x) for x, _ in itertools.islice(data, 5)] == [4] * 5


def test_one_pass_in_order():
    data = batches(dataset(7, numbered), 3, (2, 2), "labels", shuffle=False, repeat=False)
    found = [(x[:, 0, 0, 0].tolist(), y["label"].tolist()) for x, y in data]
    assert found == [(rows, rows) for rows in ([0, 1, 2], [3, 4, 5], [6])]


def test_every_iteration_gives_the_same_batches_and_another_seed_others():
    def first(seed):
        augment = Augment(scale=(0.5, 1), brightness=0.3)
        data = batches(dataset(), 4, (20, 30), augment=augment, seed=seed)
        return [[x, *(y[key] for key in sorted(y))] for x, y in itertools.islice(data, 4)]

    for a, b in zip(first(1), first(1), strict=True):
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)
    assert not np.array_equal(first(1)[0][0], first(2)[0][0])


SCRIPT = """
import hashlib, itertools, sys
sys.path.insert(0, sys.argv[1])
from test_pipeline import ALL, batches, dataset
digest = hashlib.sha256()
for x, y in itertools.islice(batches(dataset(), 4, (20, 30), "keypoints", augment=ALL), 6):
    digest.update(x.tobytes() + b"".join(y[key].tobytes() for key in sorted(y)))
print(digest.hexdigest(), "tensorflow" in sys.modules)
"""


def test_batches_are_equal_in_other_processes_and_need_no_tensorflow():
    folder = os.path.dirname(__file__)
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, folder]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONHASHSEED": hash})
        for hash in ("1", "2")
    ]
    first, second = (run.communicate()[0].decode().split() for run in runs)
    assert first == second and first[1] == "False"


def test_more_objects_than_there_is_room_for_are_counted_and_said_once():
    data = batches(dataset(6), 6, (60, 90), max_objects=1, shuffle=False, num_threads=0)
    with pytest.warns(UserWarning, match="picture 1 has 1 objects more than max_objects=1") as said:
        _, y = next(iter(data))
    assert len(said) == 1
    assert data.left_out == {"picture 1": 1, "picture 2": 2, "picture 4": 1, "picture 5": 2}
    for i, label in enumerate(y["labels"][:, 0]):
        x1, y1, x2, y2 = painted(i)["boxes"].T
        assert label == np.argmax((x2 - x1) * (y2 - y1))


@pytest.mark.filterwarnings("ignore:picture 2 has 1 objects more")
def test_what_stays_keeps_its_order():
    _, y = next(iter(batches(dataset(1, lambda i: grown()), 1, (60, 90), max_objects=2)))
    np.testing.assert_array_equal(y["labels"], [[1, 2]])


def grown():
    boxes = np.array([[0, 0, 5, 5], [10, 0, 30, 20], [40, 0, 80, 40]], np.float32)
    return painted(2) | {"boxes": boxes}


def test_a_cache_reads_every_sample_once():
    reads = []

    def read(i):
        reads.append(i)
        return numbered(i)

    data = batches(dataset(4, read), 2, (2, 2), "labels", cache=True, num_threads=0)
    list(itertools.islice(data, 6))
    assert sorted(reads) == [0, 1, 2, 3]


def test_a_whole_set_is_two_arrays():
    x, y = arrays(dataset(250, numbered), (2, 2), "labels")
    np.testing.assert_array_equal(x[:, 0, 0, 0], np.arange(250))
    np.testing.assert_array_equal(y["label"], np.arange(250))
    x, y = arrays(dataset(), (20, 30), max_objects=3, proposals=[[[1, 2, 3, 4]]] * 7)
    assert x["images"].shape == (7, 20, 30, 3) and x["proposals"].shape == (7, 1000, 4)
    assert y["boxes"].shape == (7, 3, 4)


def as_proposals(i):
    """The picture's boxes, then one that is out of most views."""
    boxes = np.concatenate([painted(i)["boxes"], [[85, 55, 90, 60]]]).astype(np.float32)
    return Proposals(boxes, np.arange(len(boxes))[::-1].astype(np.float32))


@pytest.mark.parametrize("resize", ["stretch", "pad"])
def test_proposals_follow_the_image_as_boxes_do(resize):
    found = [as_proposals(i) for i in range(7)]
    data = batches(
        dataset(),
        7,
        (120, 100),
        augment=Augment(flip=0.5, scale=(0.4, 1.4), min_visible=0.05),
        resize=resize,
        proposals=found,
        max_proposals=5,
    )
    corners = []
    for x, y in itertools.islice(data, 8):
        assert x["images"].shape == (7, 120, 100, 3) and x["images"].dtype == np.uint8
        assert x["proposals"].shape == (7, 5, 4) and x["proposals"].dtype == np.float32
        for proposals, boxes in zip(x["proposals"], y["boxes"], strict=True):
            objects, kept = (rows[rows[:, 0] >= 0] for rows in (boxes, proposals))
            np.testing.assert_array_equal(kept[: len(objects)], objects)
            np.testing.assert_array_equal(proposals[len(kept) :], -1)
            corners.append(len(kept) - len(objects))
    assert set(corners) == {0, 1}


def test_the_first_proposals_stay():
    boxes = np.array([[0, 0, 90, 60], [3, 4, 5, 6], [-10, -10, 10, 10], [1, 1, 2, 2]])
    data = batches(dataset(1), 1, (60, 90), proposals=[boxes], max_proposals=3, shuffle=False)
    x, _ = next(iter(data))
    np.testing.assert_array_equal(x["proposals"], [[*boxes[:2], [0, 0, 10, 10]]])


def test_proposals_in_every_form_are_the_same():
    pictures, method = dataset().some(5), SlidingWindows(overlaps=(0.2,))
    found = propose(pictures, method, workers=1)
    options = dict(batch_size=5, size=(30, 45), cache=True, max_proposals=30)
    forms = [
        found,
        [proposals.boxes for proposals in found],
        dict(zip(pictures.image_ids, found, strict=True)),
        method,
    ]
    first, *others = (next(iter(batches(pictures, **options, proposals=form))) for form in forms)
    assert (first[0]["proposals"][..., 2] > 0).sum() > 50
    for x, _ in others:
        np.testing.assert_array_equal(x["proposals"], first[0]["proposals"])


@pytest.mark.parametrize(
    ("proposals", "fault"),
    [
        ({"picture 1": []}, "there are no proposals for the image"),
        ([[[1, 2, 1, 4]]], "a proposal has no area"),
        ([[[1, 2, np.nan, 4]]], r"the proposals are not \(N, 4\) finite numbers"),
        ([[1, 2, 3, 4]], r"the proposals are not \(N, 4\) finite numbers"),
        ([np.ones((4, 5))], r"the proposals are not \(N, 4\) finite numbers"),
        (["wheel"], r"the proposals are not \(N, 4\) finite numbers"),
    ],
)
def test_faulty_proposals(proposals, fault):
    data = batches(dataset(1), 1, (8, 8), proposals=proposals, num_threads=0)
    with pytest.raises(DataError, match=rf"^picture 0: {fault}\.(?=\n|$)"):
        next(iter(data))


def test_an_image_without_proposals_is_all_padding():
    x, _ = next(iter(batches(dataset(1), 1, (8, 8), proposals=[[]], max_proposals=2)))
    np.testing.assert_array_equal(x["proposals"], np.full((1, 2, 4), -1))


def test_some_samples_are_evenly_spaced():
    whole = dataset(10, numbered)
    assert [sample["label"] for sample in whole.some(4)] == [0, 2, 5, 7]
    assert [sample["label"] for sample in whole[2:8].some(2)] == [2, 5]
    assert len(whole.some(None)) == len(whole.some(11)) == 10
    assert whole.some(10).digest == whole.digest
    assert len(whole.some(0)) == len(whole[:0].some(3)) == 0


def test_objects_of_some_classes():
    whole = load("scenes", "train").some(8)
    names = (whole.classes[5], whole.classes[1])
    view = whole.of_classes(names)
    assert view.classes == names
    assert view.digest != whole.digest != whole.of_classes(names[::-1]).digest != view.digest
    for before, after in zip(whole, view, strict=True):
        order = np.flatnonzero(np.isin(before["labels"], (5, 1)))
        expected = [whole.classes[label] for label in before["labels"][order]]
        assert [names[label] for label in after["labels"]] == expected
        for key in ("boxes", "difficult", "crowd", "area"):
            assert np.array_equal(after[key], before[key][order]), key
        assert after["masks"] == [before["masks"][k] for k in order]
        assert after.keys() == before.keys() - {"label", "segmentation"}
    for bad in (("cat", "no such"), (names[0], names[0])):
        with pytest.raises(ValueError, match="scenes has no class"):
            whole.of_classes(bad)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (dict(targets="polygons"), "targets must be one of .*, not 'polygons'."),
        (dict(resize="crop"), "resize must be 'stretch' or 'pad', not 'crop'."),
        (dict(proposals=[np.zeros((0, 4))] * 6), "there are 6 proposals for 7 images."),
        (dict(dataset=dataset(0)), "painted has no samples in its split 'train'."),
        (
            dict(dataset=dataset(flip_keypoints=()), targets="keypoints", augment=Augment()),
            "painted does not say which keypoints a flip exchanges: name them left and right, or "
            r"give `Augment\(flip=0\)`.",
        ),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        batches(**{"dataset": dataset(), "batch_size": 2, "size": (8, 8), **arguments})


def test_faults_of_samples_reach_the_reader():
    data = batches(dataset(1, numbered), 1, (8, 8), "masks")
    with pytest.raises(DataError) as error:
        next(iter(data))
    assert str(error.value) == "0: the sample has no 'masks'."


def test_fit_takes_the_batches_with_all_their_keys():
    keras = pytest.importorskip("keras")

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(4)

        def call(self, x):
            return self.dense(keras.ops.mean(keras.ops.cast(x, "float32") / 255, (1, 2)))

        def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
            assert tuple(y["boxes"].shape[1:]) == (3, 4)
            return keras.ops.mean(keras.ops.square(y_pred - y["boxes"][:, 0] / 90))

    data = batches(dataset(), 4, (60, 90), max_objects=3, augment=Augment())
    model = Model()
    model.compile("adam")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*ran out of data.*")
        options = dict(steps_per_epoch=data.steps_per_epoch, shuffle=False, verbose=0)
        history = model.fit(data, epochs=3, **options)
    assert len(history.history["loss"]) == 3 and np.isfinite(history.history["loss"]).all()

    # Compiled losses want the structure of the outputs.
    model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = data.map(lambda batch: (batch[0], batch[1]["label"]))
    model.fit(labels, **options)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_each_part_of_a_held_out_set_has_a_sample(count):
    for fraction in (0.0, 0.15, 1.0):
        kept, held = dataset(count).hold_out(fraction)
        assert len(kept) and len(held) and len(kept) + len(held) == count


def test_a_fault_in_the_reading_is_kept():
    def broken(i):
        raise DataError("picture 3: cannot be read.")

    data = batches(dataset(read=broken), 2, (64, 64))
    with pytest.raises(Exception, match="picture 3"):
        next(iter(data))
    assert str(data.faults[0]) == "picture 3: cannot be read."
