"""The course's exercises."""

import numpy as np
from keras import ops


def check(question, answer, expected, tolerance=1e-3):
    """Prints whether an exercise's answer is right.

    Args:
        question: its name, which the line begins with.
        answer: a number, truth value or array of these, or a tensor; None while it is missing.
        expected: the right answer.
        tolerance: by how much a number may differ, absolute.
    """
    answer, expected = (
        ops.convert_to_numpy(x) if ops.is_tensor(x) else x for x in (answer, expected)
    )
    if answer is None:
        verdict = "to do"
    elif np.shape(answer) != np.shape(expected):
        verdict = f"the shape is {np.shape(answer)}, not {np.shape(expected)}"
    elif np.allclose(answer, expected, rtol=1e-5, atol=tolerance):
        verdict = "right"
    else:
        wrong = ~np.isclose(answer, expected, rtol=1e-5, atol=tolerance)
        verdict = f"not yet, {np.mean(wrong):.0%} of the values differ" if wrong.ndim else "not yet"
    print(f"{question}: {verdict}")
