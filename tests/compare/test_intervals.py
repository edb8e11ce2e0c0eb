import math

import numpy as np
import pytest
from scipy import stats

from moe_jax.compare import intervals
from moe_jax.compare.intervals import Mean


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


def test_sum_of_means_is_welchs_test():
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 1, 4), rng.normal(0, 3, 12)
    expected = stats.ttest_ind(a, b, equal_var=False)
    found = intervals.mean_of(a.tolist()) + intervals.mean_of((-b).tolist())
    assert found.degrees == pytest.approx(expected.df)
    assert found.p() == pytest.approx(expected.pvalue)


def test_a_factor_widens_the_interval():
    values = [1.2, 1.3, 1.25]
    exact = intervals.ratio(values, Mean(math.log(2), 0.0, math.inf))
    uncertain = intervals.ratio(values, Mean(math.log(2), 0.01, 5))
    assert exact.value == uncertain.value == pytest.approx(2 * intervals.ratio(values).value)
    assert exact.low == pytest.approx(2 * intervals.ratio(values).low)
    assert uncertain.high / uncertain.low > exact.high / exact.low
    assert intervals.ratio(values, Mean(0.0, None, 0)).low is None


def test_holm_by_hand():
    """The example of Holm's procedure: 4 x 0.005, 3 x 0.01, 2 x 0.03, and no less after it."""
    assert intervals.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert intervals.holm([0.6, 0.7]) == [1.0, 1.0]
    assert intervals.holm([]) == []
