"""Numbers as texts."""

import math

import pytest

from moe_jax.compare.report import digits
from moe_jax.compare.results import Estimate


@pytest.mark.parametrize(
    ("function", "number", "text"),
    [
        (digits.loss, 3.21449, "3.214"),
        (digits.loss, -0.0001, "0.000"),
        (digits.ratio, 1.4249, "1.42×"),
        (digits.ratio, 0.0123, "0.012×"),
        (digits.ratio, 1234.5, "1,234×"),
        (digits.p_value, 0.0004, "< 0.001"),
        (digits.p_value, 0.0312, "0.031"),
        (digits.p_value, 0.0997, "0.10"),
        (digits.p_value, 1.0, "1.00"),
        (digits.steps, 12345.6, "12,346"),
        (digits.flops, 1.8e11, "1.80e+11"),
        (digits.seconds, 0.4123, "412 ms"),
        (digits.seconds, 2.5, "2.50 s"),
        (digits.share, 0.013, "1.30%"),
        (digits.share, 0.0, "0%"),
        (digits.share, 1e-6, "< 0.01%"),
        (digits.memory, 2**31, "2.0 GiB"),
        (digits.memory, 300 * 2**20, "300 MiB"),
        (digits.learning_rate, 0.003, "0.003"),
    ],
)
def test_a_number_has_sensible_digits(function, number, text):
    assert function(number) == text


@pytest.mark.parametrize("number", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name", ["loss", "ratio", "p_value", "steps", "flops", "seconds", "share", "learning_rate"]
)
def test_what_is_no_number_is_a_dash(name, number):
    assert getattr(digits, name)(number) == "-"


def test_a_narrow_interval_has_a_digit_more():
    assert digits.ratio_estimate(Estimate(1.0042, 1.0012, 1.0072, 5)) == (
        "1.004×",
        "[1.001, 1.007]",
    )
    assert digits.ratio_estimate(Estimate(1.42, 1.31, 1.54, 5)) == ("1.42×", "[1.31, 1.54]")
    assert digits.loss_estimate(Estimate(3.21, 3.2096, 3.2104, 5))[1] == "[3.2096, 3.2104]"


def test_without_an_interval_there_are_no_brackets():
    assert digits.ratio_estimate(Estimate(1.42, None, None, 1)) == ("1.42×", "")
    assert digits.loss_estimate(Estimate(3.0, math.nan, math.inf, 2)) == ("3.000", "")
