"""Figures as people read them."""

import pytest

from moe_jax.formatting import count, decimal, printable


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (640, "640"),
        (10_240, "10,240"),
        (960_000, "960,000"),
        (999_950, "1.0M"),
        (13_107_200, "13.1M"),
        (143_437_200_000, "143.4B"),
        (1e12, "1.0T"),
        (2.5e15, "2,500.0T"),
    ],
)
def test_counts(number, text):
    assert count(number) == text


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        (0, 2, "0.00"),
        (5.004, 2, "5.00"),
        (0.004, 2, "0.004"),
        (0.4, 0, "0.4"),
        (-0.0004, 1, "-0.0004"),
        (0.06, 1, "0.1"),
        (31_200.4, 0, "31,200"),
        (2e-9, 3, "2e-09"),
    ],
)
def test_what_is_not_zero_is_not_shown_as_zero(number, digits, text):
    assert decimal(number, digits) == text


def test_a_name_is_one_line_that_gives_no_commands():
    text = "two\nlines \x1b[2J caf\u00e9 \u202etxt"
    assert printable(text) == "two\\nlines \\x1b[2J caf\u00e9 \\u202etxt"
