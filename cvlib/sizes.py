"""Sizes and counts, as users give them."""

import numbers
import operator


def height_and_width(size):
    """(height, width), where one whole number stands for both, as in Keras's own layers.

    Raises:
        ValueError: `size` is neither one nor two whole numbers above 0.
    """
    try:
        sides = tuple(map(operator.index, size if hasattr(size, "__iter__") else (size, size)))
    except TypeError:
        sides = ()
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"`size` is (height, width), whole numbers above 0, not {size!r}.")
    return sides


def positive_integer(name, value):
    """`value`, of the argument `name`, as an integer of Python.

    Raises:
        ValueError: it is no whole number above 0.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"`{name}` must be a positive integer, not {value!r}.")
    return number


def positive_numbers(name, values):
    """`values`, of the argument `name`, as a tuple.

    Raises:
        ValueError: they are not numbers above 0, one at least.
    """
    try:
        found = tuple(values)
    except TypeError:
        found = ()
    if not found or not all(isinstance(x, numbers.Real) and x > 0 for x in found):
        raise ValueError(f"`{name}` are one or several numbers above 0, not {values!r}.")
    return found


def positive_stride(stride):
    """`stride`: pixels of the image between neighbouring cells of a map.

    Raises:
        ValueError: it is no number above 0.
    """
    if not isinstance(stride, numbers.Real) or not stride > 0:
        raise ValueError(f"A stride is a number of pixels above 0, not {stride!r}.")
    return stride
