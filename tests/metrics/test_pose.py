import keras
import numpy as np
import pytest

from cvlib.metrics import NME, PCK, PCP

LIMBS = [(0, 1), (1, 2), (3, 1)]


def joints(count=40, num_joints=4, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, 60, (count, num_joints, 3)).astype("float32")
    true[..., 2] = rng.choice([0, 1, 2], (count, num_joints), p=[0.2, 0.1, 0.7])
    true[..., :2] *= true[..., 2:] > 0
    found = true[..., :2] + rng.normal(0, 9, (count, num_joints, 2))
    return true, found.astype("float32")


def pcp_naively(true, found, limbs, threshold):
    result = []
    for a, b in limbs:
        right = []
        for t, f in zip(true, found, strict=True):
            if t[a, 2] > 0 and t[b, 2] > 0:
                length = np.hypot(*(t[a, :2] - t[b, :2]))
                ends = [np.hypot(*(t[i, :2] - f[i])) for i in (a, b)]
                right.append(max(ends) <= threshold * length)
        result.append(np.mean(right))
    return result


def pck_naively(true, found, torso, threshold):
    result = []
    for k in range(true.shape[1]):
        right = []
        for t, f in zip(true, found, strict=True):
            if t[k, 2] > 0 and all(t[i, 2] > 0 for i in torso):
                diameter = np.hypot(*(t[torso[0], :2] - t[torso[1], :2]))
                right.append(np.hypot(*(t[k, :2] - f[k])) <= threshold * diameter)
        result.append(np.mean(right))
    return result


def nme_naively(true, found, reference):
    errors = []
    for t, f in zip(true, found, strict=True):
        if all(t[i, 2] > 0 for i in reference):
            unit = np.hypot(*(t[reference[0], :2] - t[reference[1], :2]))
            labelled = [k for k in range(len(t)) if t[k, 2] > 0]
            errors.append(np.mean([np.hypot(*(t[k, :2] - f[k])) for k in labelled]) / unit)
    return np.mean(errors)


def test_pcp_by_hand():
    """One limb of length 10: both ends within 5 pixels, 5 being still right."""
    true = np.float32([[[0, 0, 2], [10, 0, 2]]] * 3)
    found = np.float32([[[0, 5], [10, 0]], [[0, 5.1], [10, 0]], [[0, 4.9], [10, -5.1]]])
    metric = PCP([(0, 1)])
    metric.update_state(true, found)
    assert float(metric.result()) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "metric, expected",
    [
        (PCP(LIMBS, threshold=0.4), lambda t, f: pcp_naively(t, f, LIMBS, 0.4)),
        (PCK(4, (0, 2), threshold=0.3), lambda t, f: pck_naively(t, f, (0, 2), 0.3)),
    ],
)
def test_parts_against_a_loop_over_two_batches(metric, expected):
    true, found = joints()
    for part in (slice(0, 7), slice(7, None)):
        metric.update_state(true[part], found[part])
    expected = expected(true, found)
    per_part = keras.ops.convert_to_numpy(metric.per_part())
    np.testing.assert_allclose(per_part, expected, rtol=1e-5)
    assert float(metric.result()) == pytest.approx(np.mean(expected), rel=1e-5)
    metric.reset_state()
    assert float(metric.result()) == 0


def test_nme_against_a_loop_over_two_batches():
    true, found = joints()
    metric = NME(reference=(0, 3))
    for part in (slice(0, 7), slice(7, None)):
        metric.update_state(true[part], found[part])
    assert float(metric.result()) == pytest.approx(nme_naively(true, found, (0, 3)), rel=1e-5)


def test_a_third_number_of_the_prediction_is_ignored():
    true, found = joints()
    with_third = np.concatenate([found, np.zeros((*found.shape[:2], 1), "float32")], axis=-1)
    for metric in (PCP(LIMBS), PCK(4, (0, 2)), NME((0, 3))):
        values = []
        for y_pred in (found, with_third):
            metric.reset_state()
            metric.update_state(true, y_pred)
            values.append(float(metric.result()))
        assert values[0] == values[1] > 0


def test_what_no_image_has_is_left_out_of_the_mean():
    true, found = joints()
    true[:, 3] = 0
    metric = PCP(LIMBS)
    metric.update_state(true, found)
    expected = np.mean(pcp_naively(true, found, LIMBS[:2], 0.5))
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)
    nothing = NME((0, 3))
    nothing.update_state(true, found)
    assert float(nothing.result()) == 0


def test_reference_points_that_coincide_do_not_count():
    true, found = joints(2)
    true[..., 2] = 2
    true[0, 0] = true[0, 3]
    metric = NME((0, 3))
    metric.update_state(true, found)
    assert float(metric.result()) == pytest.approx(nme_naively(true[1:], found[1:], (0, 3)))


@pytest.mark.parametrize("metric", [PCP(LIMBS, 0.4, "legs"), PCK(4, (0, 2), 0.1), NME((1, 2))])
def test_config_round_trip_and_no_sample_weights(metric):
    again = type(metric).from_config(metric.get_config())
    true, found = joints()
    for m in (metric, again):
        m.update_state(true, found)
    assert again.name == metric.name and float(again.result()) == float(metric.result()) > 0
    with pytest.raises(ValueError, match="takes no sample weights"):
        metric.update_state(true, found, sample_weight=np.ones(40))


def test_in_a_compiled_graph():
    true, found = joints(32)
    inputs = keras.Input((4, 2))
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    metrics = [PCP(LIMBS), PCK(4, (0, 2)), NME((0, 3))]
    model.compile("sgd", lambda t, p: keras.ops.sum(0 * p), metrics=metrics)
    measured = model.evaluate(found, true, batch_size=8, verbose=0, return_dict=True)
    expected = np.mean(pcp_naively(true, found, LIMBS, 0.5))
    assert measured["pcp"] == pytest.approx(expected, rel=1e-5)
    assert measured["nme"] == pytest.approx(nme_naively(true, found, (0, 3)), rel=1e-5)
    assert 0 < measured["pck@0.2"] < 1
