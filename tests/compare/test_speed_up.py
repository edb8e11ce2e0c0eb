import math

import numpy as np
import pytest
from interval_coverage import DECAYING, POWER_LAW, SEEDS, SPEED_UPS, SPREADS, Case, measure
from scipy import stats
from synthetic_studies import Law, arm_with, true_speed_up

from moe_jax.compare.intervals import Mean, StandardError
from moe_jax.compare.smoothing import smooth
from moe_jax.compare.speed_up import Pair, speed_up, speed_up_curve

STEPS = np.arange(50, 2001, 50)


def curve(pace, shift=0.0):
    return smooth(STEPS, Law(pace=pace).loss(STEPS, 2000) + shift)


def pairs(pace, count=3, **costs):
    return {s: Pair(curve(pace), curve(1.0), {"steps": 1.0, **costs}) for s in range(count)}


@pytest.mark.parametrize("pace", [0.6, 0.8, 1.0, 1.3, 2.0, 5.0])
def test_planted_speed_up_without_noise(pace):
    """L(pace t) is at every loss `pace` times as fast."""
    found = speed_up(pairs(pace))
    assert found.estimate.value == pytest.approx(pace, rel=0.01)
    assert found.reached == (3 if pace >= 1 else 0)
    higher = Law(pace=min(pace, 1.0)).loss(2000, 2000)
    assert found.loss == pytest.approx(higher, abs=1e-3)


def test_the_inverse_comparison_has_the_inverse_speed_up():
    forth = Pair(curve(1.4, 0.01), curve(1.0))
    back = Pair(curve(1.0), curve(1.4, 0.01))
    assert back.final_ratio == pytest.approx(1 / forth.final_ratio)


def test_units():
    both = pairs(1.5, slots=2.0)
    steps, slots = speed_up(both), speed_up(both, "slots")
    assert slots.estimate.value == pytest.approx(2 * steps.estimate.value)
    assert slots.by_seed[1] == pytest.approx(2 * steps.by_seed[1])
    assert speed_up(both, "flops") is None
    assert speed_up(both, "seconds") is None
    assert speed_up({}) is None


def test_seconds_add_the_uncertainty_of_the_ratio_of_times():
    both = {s: Pair(curve(1.5, 0.002 * s), curve(1.0)) for s in range(4)}
    factor = Mean(math.log(0.8), (StandardError(0.03, 9),))
    found = speed_up(both, "seconds", factor).estimate
    logs = np.log([pair.final_ratio for pair in both.values()])
    own = stats.t.ppf(0.975, 3) * np.std(logs, ddof=1) / 2
    half = math.hypot(own, stats.t.ppf(0.975, 9) * 0.03)
    centre = logs.mean() + math.log(0.8)
    assert (found.low, found.high) == pytest.approx((np.exp(centre - half), np.exp(centre + half)))


def test_a_loss_that_is_passed_before_the_first_evaluation_gives_a_bound():
    """An arm 60 times as fast passes the baseline's final loss at step 33."""
    early, late = Pair(curve(60.0), curve(1.0)), Pair(curve(1.5), curve(1.0))
    assert (early.bound, late.bound) == ("lower", None)
    assert Pair(curve(1.0), curve(60.0)).bound == "upper"
    found = speed_up({1: early, 2: early, 3: late})
    assert (found.bound, found.censored) == ("lower", 2)
    assert (found.estimate.low, found.estimate.high, found.estimate.p) == (None, None, None)
    assert found.by_seed[1] == pytest.approx(2000 / 50)
    both = speed_up({1: early, 2: Pair(curve(1.0), curve(60.0))})
    assert (both.bound, both.censored) == ("neither", 2)
    assert (speed_up({1: late}).bound, speed_up({1: late}).censored) == (None, 0)


def test_speed_up_curve():
    both = [Pair(curve(1.5), curve(1.0)), Pair(curve(1.5, 0.05), curve(1.0, 0.05))]
    found = speed_up_curve(both)
    assert list(found.losses) == sorted(found.losses, reverse=True)
    assert found.pairs[0] == 1
    assert found.pairs[-1] == 1
    assert 2 in found.pairs
    assert found.low[0] is None
    # Away from the first evaluations, whose distances in ln step are large.
    late = [r for loss, r in zip(found.losses, found.ratios, strict=True) if loss < 4]
    np.testing.assert_allclose(late, 1.5, rtol=0.02)
    assert speed_up_curve([]) is None


def test_the_truth_of_synthetic_studies():
    """Against the closed form: L(pace t) needs 1 / pace of the steps."""
    assert true_speed_up(Law(pace=1.7), Law(), 2000) == pytest.approx(1.7)
    assert true_speed_up(Law(pace=0.5), Law(), 2000) == pytest.approx(0.5)
    for law in (POWER_LAW, DECAYING):
        for planted in SPEED_UPS:
            assert true_speed_up(arm_with(planted, law, 2000), law, 2000) == pytest.approx(planted)


STUDIES = 100


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("planted", SPEED_UPS)
def test_coverage(planted, seeds):
    """scripts/coverage.py with fewer studies.

    The bound is the count that a method of exactly 93% would be below in one of 10,000 tests.
    """
    law = DECAYING if planted in (0.8, 1.2) else POWER_LAW
    found = measure(Case(planted, seeds, law), STUDIES)
    assert round(found.covered * STUDIES) >= stats.binom.ppf(1e-4, STUDIES, 0.93)
    if planted == 1:
        assert round(found.different * STUDIES) <= stats.binom.ppf(1 - 1e-4, STUDIES, 0.07)


@pytest.mark.parametrize("spread", SPREADS)
def test_coverage_in_seconds(spread):
    found = measure(Case(1.2, 3, spread=spread, is_shared=spread == 0.1), STUDIES)
    assert round(found.covered * STUDIES) >= stats.binom.ppf(1e-4, STUDIES, 0.93)
