import numpy as np
import pytest

from benchmarks.report import (
    bootstrap_interval,
    interval,
    markdown_table,
    number,
    pooled,
    t_interval,
)


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


def test_seeds_of_several_processors_are_of_one_device_unless_one_ran_on_two(measured):
    runs = [measured(0), measured(1, device="another")]
    assert [run["device"] for run in pooled(runs)] == ["a processor, another"] * 2
    assert [run["seed"] for run in pooled(runs)] == [0, 1]
    for apart in (
        measured(1, device="another", resolution=[64, 64]),
        measured(1, device="another", settings={"trunk": "frozen"}),
        measured(1, device="a card", peak_memory_mib={"host": 100, "device": 10}),
    ):
        assert pooled([runs[0], apart]) == [runs[0], apart]
    cards = [measured(i, device=f"card {i}", peak_memory_mib={"device": 10}) for i in range(2)]
    assert pooled(cards) == cards
    twice = [*runs, measured(0, device="another")]
    assert pooled(twice) == twice
