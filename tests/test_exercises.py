import keras
import numpy as np
import pytest
from keras import ops

from cvlib.exercises import check


@pytest.mark.parametrize(
    "answer, expected, verdict",
    [
        (None, 3, "to do"),
        (3.0004, 3, "right"),
        (3.1, 3, "not yet"),
        (True, True, "right"),
        ([1, 2], [1, 2], "right"),
        ((1, 2, 3), [1, 2], "the shape is (3,), not (2,)"),
        (np.eye(2), np.zeros((2, 2)), "not yet, 50% of the values differ"),
        ([np.nan], [1.0], "not yet, 100% of the values differ"),
    ],
)
def test_an_answer_is_compared(capsys, answer, expected, verdict):
    check("mean IoU", answer, expected)
    assert capsys.readouterr().out == f"mean IoU: {verdict}\n"


def test_a_tensor_that_is_learnt_is_an_answer(capsys):
    weight = keras.Variable([1.0, 2.0])
    check("weights", ops.convert_to_tensor(weight), [1.0, 2.0])
    check("weights", [1.0, 2.0], 1.0 * weight)
    assert capsys.readouterr().out == "weights: right\nweights: right\n"
