import numpy as np
import pytest

from benchmarks.report import bootstrap_interval, interval, markdown_table, number, t_interval


def test_t_interval_agrees_with_the_printed_table():
    # Student's t at 0.975: 12.706 for 1 degree of freedom, 4.303 for 2, 2.776 for 4.
    assert t_interval([0, 2]) == pytest.approx((1 - 12.706, 1 + 12.706), abs=1e-3)
    assert t_interval([1, 2, 3]) == pytest.approx(
        (2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=1e-3
    )
    values = [0.0, 1.0, 2.0, 3.0, 4.0]
    half = 2.776 * 2.5**0.5 / 5**0.5
    assert t_interval(values) == pytest.approx((2 - half, 2 + half), abs=1e-3)
    assert t_interval([0.5]) is None


def test_bootstrap_interval_is_the_normal_one_for_many_images():
    values = np.arange(1000) % 10 < 7
    low, high = bootstrap_interval(values)
    half = 1.96 * (0.7 * 0.3 / 1000) ** 0.5
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.002)
    assert bootstrap_interval(values) == (low, high)


def test_numbers_have_four_decimals_and_no_negative_zero():
    assert [number(v) for v in (None, 0.12345, 1, -0.00001)] == ["", "0.1235", "1.0000", "0.0000"]
    assert interval(None) == "" and interval((0.1, np.float64(0.25))) == "[0.1000, 0.2500]"


def test_a_bar_does_not_break_a_markdown_table():
    assert markdown_table(["a", "b"], [["x|y", 1]]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |\n"
