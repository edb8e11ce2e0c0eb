import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from moe_jax.compare import intervals
from moe_jax.compare.intervals import Mean, StandardError


def test_difference_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 5), rng.normal(0, 1, 5)
    found, expected = intervals.difference((a - b).tolist()), stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.seeds == 5


def test_ratio_is_the_t_interval_of_the_logarithms():
    found = intervals.ratio([1.0, 2.0, 4.0])
    # Logarithms 0, 1, 2 times ln 2: mean 1, standard error 1 / sqrt 3, t of 2 degrees 4.302653.
    half = 4.302653 / math.sqrt(3)
    assert found.value == pytest.approx(2)
    assert (found.low, found.high) == pytest.approx((2 ** (1 - half), 2 ** (1 + half)), rel=1e-6)


def test_the_inverse_ratio_has_the_inverse_interval():
    values = [1.1, 1.4, 1.25]
    found, inverse = intervals.ratio(values), intervals.ratio([1 / value for value in values])
    assert (inverse.low, inverse.high) == pytest.approx((1 / found.high, 1 / found.low))
    assert inverse.p == pytest.approx(found.p)


def test_one_value_has_no_interval():
    found = intervals.ratio([1.5])
    assert (found.value, found.low, found.high, found.p) == (pytest.approx(1.5), None, None, None)
    with pytest.raises(ValueError, match="no values"):
        intervals.estimate([])


def test_equal_values():
    assert intervals.difference([0.0, 0.0]).p == 1
    assert intervals.difference([0.5, 0.5]).p == 0
    assert intervals.ratio([1.5, 1.5]).low == pytest.approx(1.5)


def test_sum_of_means_has_the_root_of_the_sum_of_squares_of_the_half_widths():
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 1, 4), rng.normal(0, 3, 12)
    found = intervals.mean_of(a.tolist()) + intervals.mean_of(b.tolist())
    widths = [np.diff(stats.ttest_1samp(v, 0).confidence_interval(0.95))[0] / 2 for v in (a, b)]
    low, high = found.interval()
    assert (high - low) / 2 == pytest.approx(math.hypot(*widths))
    assert (high + low) / 2 == pytest.approx(a.mean() + b.mean())


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
@pytest.mark.parametrize("timing", [0.0, 1e-6, 0.001, 0.01, 0.1, 1.0])
def test_a_sum_is_never_narrower_than_a_summand(seeds, timing):
    """With the degrees of freedom of Satterthwaite it is, for 3 seeds and a timing of 0.01."""
    of_seeds = Mean(0.2, (StandardError(0.02, seeds - 1),))
    found = of_seeds + Mean(-0.1, (StandardError(timing, 4),))
    width, narrow = (np.diff(mean.interval())[0] for mean in (found, of_seeds))
    assert width >= narrow * (1 - 1e-12)
    assert found.p() >= dataclasses.replace(of_seeds, value=0.1).p() * (1 - 1e-9)


@pytest.mark.parametrize("degrees", [1, 2, 4, 30])
def test_the_p_value_of_a_sum_is_005_where_the_interval_ends_at_0(degrees):
    errors = (StandardError(0.03, degrees), StandardError(0.02, 4))
    half = Mean(0.0, errors).interval()[1]
    assert Mean(half, errors).p() == pytest.approx(0.05)
    assert Mean(-half, errors).p() == pytest.approx(0.05)
    assert Mean(1.01 * half, errors).p() < 0.05 < Mean(0.99 * half, errors).p()
    assert Mean(0.0, errors).p() == 1
    # Equal degrees of freedom are those of a single t-test.
    same = Mean(0.1, (StandardError(0.03, degrees), StandardError(0.04, degrees)))
    assert same.p() == pytest.approx(2 * stats.t.sf(2, degrees))


def test_a_factor_widens_the_interval():
    values = [1.2, 1.3, 1.25]
    exact = intervals.ratio(values, Mean(math.log(2), ()))
    uncertain = intervals.ratio(values, Mean(math.log(2), (StandardError(0.1, 5),)))
    assert exact.value == uncertain.value == pytest.approx(2 * intervals.ratio(values).value)
    assert exact.low == pytest.approx(2 * intervals.ratio(values).low)
    assert uncertain.high / uncertain.low > exact.high / exact.low
    assert intervals.ratio(values, Mean(0.0, None)).low is None


def test_holm_by_hand():
    """The example of Holm's procedure: 4 x 0.005, 3 x 0.01, 2 x 0.03, and no less after it."""
    assert intervals.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert intervals.holm([0.6, 0.7]) == [1.0, 1.0]
    assert intervals.holm([]) == []
