import math

import numpy as np
import pytest
from scipy import stats
from synthetic_studies import run_record

from moe_jax.compare.analysis import compare
from moe_jax.compare.not_shown import not_shown
from moe_jax.compare.records import StepTimes, StudyPlan
from moe_jax.compare.step_costs import PairedTimes, log_time_ratio, paired_times, step_cost

RUNS = [run_record(arm) for arm in ("switch", "a", "b")]
EIGHT = (1.0,) * 8


def times(arm, session, seconds=EIGHT, device="1 x cpu"):
    return StepTimes(arm, f"{arm}-comparison-1", tuple(seconds), device, session)


def paired(*records):
    return paired_times([*RUNS, *records], ["switch", "a", "b"], "switch")


def test_the_last_complete_session_counts():
    first = [times(arm, "1") for arm in ("switch", "a", "b")]
    second = [times(arm, "2") for arm in ("switch", "a", "b")]
    found, lines = paired(*first, *second)
    assert found["a"] == PairedTimes(second[1], second[0])
    # A process that was killed before its last record.
    found, lines = paired(*first, *second[:2])
    assert found["b"] == PairedTimes(first[2], first[0])
    assert found["a"] == PairedTimes(first[1], first[0])
    assert lines == []


def test_times_of_several_sessions_are_not_paired():
    """As those of two studies, or of a study whose second timing was killed."""
    first = [times("switch", "1"), times("a", "1")]
    found, lines = paired(*first, times("switch", "2"), times("b", "3"))
    assert found["a"] == PairedTimes(first[1], first[0])
    assert "b" not in found
    assert lines == ["b: wall time not compared, switch was not timed in the same session"]


def test_times_without_a_session():
    """A new one begins with an arm that the last one has."""
    first = [times(arm, "") for arm in ("switch", "a", "b")]
    second = [times(arm, "", (2.0,) * 8) for arm in ("switch", "a")]
    assert paired(*first, *second)[0]["a"] == PairedTimes(first[1], first[0])


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
def test_times_are_positive_and_finite(wrong):
    found, lines = paired(times("switch", "1"), times("a", "1", (*EIGHT, wrong)))
    assert set(found) == {"switch"}
    assert lines == ["step times of a: not used, they are not all positive and finite"]


def test_the_ratio_is_the_mean_over_blocks_of_their_medians():
    rng = np.random.default_rng(0)
    arm, baseline = np.exp(rng.standard_t(2, (2, 20)))
    pair = PairedTimes(times("a", "1", arm), times("switch", "1", baseline))
    medians = np.median(np.log(baseline / arm).reshape(5, 4), axis=1)
    expected = stats.ttest_1samp(medians, 0)
    found = log_time_ratio(pair)
    assert found.value == pytest.approx(medians.mean())
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))
    # The cost shows the same number.
    ratio = step_cost(RUNS, pair).seconds_ratio
    assert ratio.value == pytest.approx(math.exp(-found.value))
    assert ratio.p == pytest.approx(expected.pvalue)
    assert ratio.seeds == 5


def test_few_rounds_have_no_interval():
    found, lines = paired(times("switch", "1", [1.0] * 7), times("a", "1", [2.0] * 7))
    assert log_time_ratio(found["a"]).interval() == (None, None)
    assert log_time_ratio(found["a"]).value == pytest.approx(-math.log(2))
    assert lines[0].startswith("wall time: 7 rounds of timing give no interval; 8 are needed")


def test_the_same_ratio_everywhere():
    """The ratio of the medians is 1 here, that of most rounds is 2."""
    baseline = [1.0, 1.0, 1.0, 2.0, 4.0] * 4
    arm = [2.0, 2.0, 1.0, 4.0, 1.0] * 4
    plan = StudyPlan("", "switch", {"switch": "", "a": ""}, False, (1,), "seconds")
    records = [*RUNS[:2], times("switch", "1", baseline), times("a", "1", arm)]
    found = compare(plan, records)
    ratio = found.arms["a"].cost.seconds_ratio.value
    assert ratio != pytest.approx(np.median(arm) / np.median(baseline), rel=0.1)
    in_seconds = found.arms["a"].speed_ups["causal"]["seconds"].estimate.value
    in_steps = found.arms["a"].speed_ups["causal"]["steps"].estimate.value
    assert in_steps / in_seconds == pytest.approx(ratio)
    lines = " ".join(not_shown(found.arms, "switch", "seconds"))
    assert f"wall time (1.00 to {ratio:.2f} times" in lines
