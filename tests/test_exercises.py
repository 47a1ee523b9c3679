import numpy as np
import pytest

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
