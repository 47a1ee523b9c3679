"""Sizes, as users give them."""

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
