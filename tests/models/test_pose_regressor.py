import keras
import numpy as np
import pytest
from keras import ops

from cvlib.layers import CropAndResize
from cvlib.models import PoseRegressor, backbone
from cvlib.models.pose_regressor import _displaced_crops, _jittered_boxes, _persons

from .training import Batches, compiled

SIZE = 64


def make(**arguments):
    keras.utils.set_random_seed(1)
    arguments = {"stages": 2, "crop_size": 64, "joint_crop_size": 32, "hidden": 64} | arguments
    return PoseRegressor(backbone("tiny", "scenes"), 3, **arguments)


def dots(count, seed=0):
    """Images with a red, a green and a blue dot, and the box around all three."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, SIZE, SIZE, 3)).astype("uint8")
    middle = rng.uniform(8, 56, (count, 3, 2))
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1) + 0.5
    for image, joints in zip(images, middle, strict=True):
        for channel, joint in enumerate(joints):
            image[np.hypot(*(grid - joint).transpose(2, 0, 1)) < 4, channel] = 255
    boxes = np.concatenate([middle.min(axis=1) - 4, middle.max(axis=1) + 4], axis=-1)
    joints = np.concatenate([middle, np.full((count, 3, 1), 2)], axis=-1)
    return images, {"boxes": np.float32(boxes)[:, None], "keypoints": np.float32(joints)[:, None]}


def mean_error(found, targets):
    return np.hypot(*(found - targets["keypoints"][:, 0])[..., :2].T).mean()


@pytest.mark.slow
@compiled
def test_learns_and_every_stage_comes_closer(tmp_path):
    images, targets = dots(192)
    pose = make(dropout=0.0)
    for stage in ("stage1", "stage2"):
        pose.compile(keras.optimizers.Adam(1e-3), train=stage)
        pose.fit(Batches(images, targets), joints_per_image=3, epochs=16, verbose=0)
    unseen, truth = dots(64, seed=9)
    boxes = truth["boxes"][:, 0]
    found = pose.predict(unseen, boxes)
    first, second = (mean_error(found["keypoints_by_stage"][:, s], truth) for s in range(2))
    start, end = targets["boxes"][..., :2], targets["boxes"][..., 2:]
    mean = ((targets["keypoints"][:, 0, :, :2] - start) / (end - start)).mean(axis=0)
    guess = boxes[:, None, :2] + mean * (boxes[:, None, 2:] - boxes[:, None, :2])
    assert first < 0.6 * mean_error(np.pad(guess, ((0, 0), (0, 0), (0, 1))), truth)
    assert second < 0.8 * first
    np.testing.assert_array_equal(found["keypoints"], found["keypoints_by_stage"][:, 1])

    pose.save(tmp_path / "pose.keras")
    again = PoseRegressor.load(tmp_path / "pose.keras").predict(unseen, boxes)
    for key in found:
        np.testing.assert_array_equal(again[key], found[key])


@pytest.mark.parametrize("trained", [1, 2])
@pytest.mark.slow
def test_one_stage_learns_while_the_other_rests(trained):
    images, targets = dots(32)
    pose = make()
    before = [network.get_weights() for network in pose.networks]
    pose.compile("adam", train=f"stage{trained}")
    pose.fit(Batches(images, targets), epochs=1, verbose=0)
    for s, (network, old) in enumerate(zip(pose.networks, before, strict=True), start=1):
        pairs = zip(network.get_weights(), old, strict=True)
        same = [np.array_equal(a, b) for a, b in pairs]
        assert not any(same[-4:]) if s == trained else all(same), s


@pytest.mark.slow
def test_joints_that_are_not_labelled_are_not_learnt():
    images, targets = dots(32)
    targets["keypoints"][:, 0, 1] = 1e4, 1e4, 0
    pose = make()
    for s, network in enumerate(pose.networks, start=1):
        before = network.get_weights()[-2]
        pose.compile("adam", train=f"stage{s}")
        history = pose.fit(Batches(images, targets), joints_per_image=3, epochs=1, verbose=0)
        moved = (network.get_weights()[-2] != before).any(axis=0).reshape(3, 2)
        np.testing.assert_array_equal(moved, [[True] * 2, [False] * 2, [True] * 2])
        assert history.history["loss"][0] < 1


@pytest.mark.slow
def test_prediction_against_the_stages_one_by_one():
    images, targets = dots(4)
    boxes = targets["boxes"][:, 0]
    pose = make(stages=3, box_scale=1.5, joint_scale=0.4)
    for network in pose.networks:  # So that the stages move the joints by much.
        *weights, kernel, bias = network.get_weights()
        network.set_weights([*weights, 100 * kernel, bias])
    found = pose.predict(images, boxes)["keypoints_by_stage"]

    def look(network, crops):
        side = network.input_shape[1]
        seen = ops.reshape(CropAndResize((side, side))(images, crops), (-1, side, side, 3))
        return ops.convert_to_numpy(network(seen, training=False))

    middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, 1.5 * (boxes[:, 2:] - boxes[:, :2])
    crops = np.concatenate([middle - sides / 2, middle + sides / 2], axis=1)[:, None]
    joints = middle[:, None] + look(pose.networks[0], crops) * sides[:, None]
    np.testing.assert_allclose(found[:, 0, :, :2], joints, atol=1e-3)
    side = 0.4 * np.hypot(*(boxes[:, 2:] - boxes[:, :2]).T)[:, None, None]
    for s in (1, 2):
        # From what the stage was given: these networks multiply a difference in rounding.
        joints = found[:, s - 1, :, :2]
        crops = np.concatenate([joints - side / 2, joints + side / 2], axis=-1)
        offsets = look(pose.networks[s], crops).reshape(4, 3, 3, 2)
        joints = joints + side * np.stack([offsets[:, k, k] for k in range(3)], axis=1)
        np.testing.assert_allclose(found[:, s, :, :2], joints, atol=1e-3)
    assert (found[..., 2] == 2).all()


@pytest.mark.slow
def test_the_whole_image_is_the_default_box_and_sizes_may_differ():
    pose = make()
    for size in ((48, 80), (96, 64)):
        images = dots(2)[0][:, :48]
        images = np.resize(images, (2, *size, 3))
        box = np.float32([[0, 0, size[1], size[0]]] * 2)
        given, default = pose.predict(images, box), pose.predict(images)
        np.testing.assert_array_equal(default["keypoints"], given["keypoints"])
        # Untrained outputs are small: the middle of the box.
        middle = np.array(size[::-1]) / 2
        assert abs(given["keypoints_by_stage"][:, 0, :, :2] - middle).max() < 8


def test_joints_come_back_from_the_crops_of_training():
    _, targets = dots(8)
    boxes, joints = _persons(targets)
    joints[0, 1] = 0
    rng = np.random.default_rng(0)
    errors = np.float32(np.stack([np.full((3, 2), 0.05), np.full((3, 2), 0.1)]))
    for crops, aims in (
        _jittered_boxes(boxes, joints, 1.25, 0.1, rng),
        _displaced_crops(boxes, joints, errors, 0.5, 2, 0.1, rng),
    ):
        middle = (crops[..., :2] + crops[..., 2:]) / 2
        sides = crops[..., 2:] - crops[..., :2]
        back = middle[:, :, None] + aims[..., :2] * sides[:, :, None]
        counted = aims[..., 2] == 1
        assert counted.any() and not counted[0, :, 1].any()
        desired = np.broadcast_to(joints[:, None, :, :2], back.shape)
        np.testing.assert_allclose(back[counted], desired[counted], atol=1e-3)


def test_without_jitter_stage_1_trains_on_the_crop_of_prediction():
    boxes = np.float32([[10, 20, 30, 60]])
    crops, aims = _jittered_boxes(
        boxes, np.float32([[[30, 60, 2]]]), 1.5, 0.0, np.random.default_rng(0)
    )
    np.testing.assert_allclose(crops, [[[5, 10, 35, 70]]])
    np.testing.assert_allclose(aims, [[[[1 / 3, 1 / 3, 1]]]], rtol=1e-6)


def test_displacements_follow_the_errors_of_each_joint():
    boxes = np.tile(np.float32([[0, 0, 30, 40]]), (20000, 1))  # the diagonal is 50
    joints = np.zeros((20000, 2, 3), "float32") + [20, 10, 2]
    errors = np.array([[[0.1, 0.0], [-0.2, 0.1]], [[0.05, 0.1], [0.1, 0.2]]])
    crops, aims = _displaced_crops(boxes, joints, errors, 0.5, 2, 0.0, np.random.default_rng(0))
    sides = crops[..., 2:] - crops[..., :2]
    np.testing.assert_allclose(sides, 25, rtol=1e-5)
    middle = (crops[..., :2] + crops[..., 2:]) / 2
    for k in range(2):
        of_joint = middle[aims[:, :, k, 2] == 1]
        assert len(of_joint) == 20000
        np.testing.assert_allclose(of_joint.mean(axis=0), [20, 10] + 50 * errors[0, k], atol=0.3)
        np.testing.assert_allclose(of_joint.std(axis=0), 50 * errors[1, k], rtol=0.03)


def test_the_errors_of_the_stage_before_are_those_of_its_predictions():
    images, targets = dots(32)
    targets["keypoints"][::3, 0, 0] = 0
    pose = make()
    pose.compile("adam", train="stage2")
    mean, deviation = pose._errors(Batches(images, targets, 8), images=32)
    boxes, joints = _persons(targets)
    found = pose.predict(images, boxes)["keypoints_by_stage"][:, 0]
    for k in range(3):
        known = joints[:, k, 2] > 0
        diagonal = np.hypot(*(boxes[known, 2:] - boxes[known, :2]).T)
        error = (found - joints)[known, k, :2] / diagonal[:, None]
        np.testing.assert_allclose(mean[k], error.mean(axis=0), atol=1e-4)
        np.testing.assert_allclose(deviation[k], error.std(axis=0), atol=1e-4)


def test_two_persons_in_an_image_are_refused():
    images, targets = dots(8)
    twice = {key: np.concatenate([value, value], axis=1) for key, value in targets.items()}
    pose = make()
    pose.compile("adam", train="stage2")
    with pytest.raises(ValueError, match="learns from one person an image: give max_objects=1"):
        pose.fit(Batches(images, twice), epochs=1, verbose=0)


def test_frozen_layers_stay_frozen_in_every_stage():
    # Two convolutions a stride, with three variables each, and two fully connected layers.
    networks = make(frozen_to="stride8").networks
    assert [len(n.trainable_variables) for n in networks] == [4 * 3 + 4, 2 * 3 + 4]
    networks = make().networks
    assert [len(n.trainable_variables) for n in networks] == [9 * 3 + 4, 7 * 3 + 4]


@pytest.mark.parametrize(
    "method, arguments, sentence",
    [
        ("init", {"stages": 0}, "`stages` is at least 1, not 0."),
        (
            "init",
            {"joint_map": "stride7"},
            "`joint_map` is one of stride2, stride4, stride8, stride16, stride32, not 'stride7'.",
        ),
        ("compile", {"train": "stage3"}, "`train` is one of stage1, stage2, not 'stage3'."),
        ("compile", {"loss": "l1"}, "`loss` is one of l2, smooth_l1, not 'l1'."),
    ],
)
def test_bad_arguments(method, arguments, sentence):
    with pytest.raises(ValueError) as error:
        make(**arguments) if method == "init" else make().compile(**arguments)
    assert str(error.value) == sentence


def test_validation_is_refused_in_one_sentence():
    pose = make()
    pose.compile()
    images, y = dots(2)
    with pytest.raises(ValueError, match="takes no `validation_data`: call `evaluate`"):
        pose.fit(images, y, validation_data=(images, y))
