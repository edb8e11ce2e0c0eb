import dataclasses

import pytest
from synthetic_studies import run_record

from moe_jax.compare.analysis import compare
from moe_jax.compare.answer import answer
from moe_jax.compare.records import StudyPlan
from moe_jax.compare.results import Estimate, SpeedUp

PLAN = StudyPlan("", "switch", {"switch": "Switch"}, True, (1,), "slots")


def with_speed_ups(unit="slots", **found):
    """Returns the arms of a comparison with these speed-ups, or estimates of them."""
    baseline = compare(PLAN, [run_record()]).baseline
    arms = {"switch": baseline}
    for name, value in found.items():
        if isinstance(value, Estimate):
            value = SpeedUp(value, {}, value.seeds * (value.value >= 1), 3.0)
        arms[name] = dataclasses.replace(baseline, speed_ups={"causal": {unit: value}})
    return arms


def estimate(value, low, high, p_holm, seeds=5):
    return Estimate(value, low, high, seeds, p_holm, p_holm)


FASTER = estimate(1.35, 1.2, 1.52, 0.001)
SLOWER = estimate(0.8, 0.7, 0.9, 0.01)
EQUAL = estimate(1.02, 0.95, 1.1, 0.4)
ONE_SEED = estimate(1.35, None, None, None, 1)
UNCORRECTED = estimate(1.15, 1.02, 1.3, 0.06)
START = "Speed-up over switch to equal held-out causal loss, in "


@pytest.mark.parametrize(
    ("found", "unit", "expected"),
    [
        (FASTER, "slots", "expert slots (95% interval, 5 paired seeds): ec 1.35× [1.20, 1.52]."),
        (
            SLOWER,
            "seconds",
            "wall time (95% interval, 5 paired seeds): ec 0.80× [0.70, 0.90]: it did not reach "
            "switch's final loss in any seed.",
        ),
        (
            SpeedUp(SLOWER, {}, 2, 3.0),
            "flops",
            "FLOPs (95% interval, 5 paired seeds): ec 0.80× [0.70, 0.90]: it reached switch's "
            "final loss in 2 of 5 seeds.",
        ),
        (
            EQUAL,
            "steps",
            "training steps (95% interval, 5 paired seeds): ec 1.02× [0.95, 1.10], no difference "
            "detected.",
        ),
        (ONE_SEED, "seconds", "wall time (no interval, 1 paired seed): ec 1.35×, no interval."),
        (
            SpeedUp(estimate(15.0, None, None, None), {}, 5, 3.0, 5, "lower"),
            "steps",
            "training steps (no interval, 5 paired seeds): ec at least 15.00×: its first "
            "evaluation is below the compared loss.",
        ),
        (
            SpeedUp(estimate(0.07, None, None, None), {}, 0, 3.0, 5, "upper"),
            "steps",
            "training steps (no interval, 5 paired seeds): ec at most 0.07×: switch's first "
            "evaluation is below the compared loss.",
        ),
    ],
)
def test_one_arm(found, unit, expected):
    plan = dataclasses.replace(PLAN, matched_by=unit)
    assert answer(plan, with_speed_ups(unit, ec=found), None) == START + expected


def test_several_arms_in_the_order_of_their_speed_ups():
    arms = with_speed_ups(slow=SLOWER, ec=FASTER, same=EQUAL, close=UNCORRECTED)
    assert answer(PLAN, arms, None) == (
        START + "expert slots (95% interval, 5 paired seeds): ec 1.35× [1.20, 1.52]; close 1.15× "
        "[1.02, 1.30], not a difference once corrected for 4 comparisons; same 1.02× [0.95, "
        "1.10], no difference detected; slow 0.80× [0.70, 0.90]: it did not reach switch's final "
        "loss in any seed. Differences are corrected for 4 comparisons (Holm), the intervals are "
        "not."
    )


def test_many_arms():
    many = {f"arm{i}": estimate(1 + i / 10, 0.9, 2, 0.5) for i in range(7)}
    found = answer(PLAN, with_speed_ups(**many), None)
    assert "arm6" in found
    assert "arm0" in found
    assert "arm1" not in found
    assert "3 more arms are in the table" in found


def test_several_arms_with_one_seed():
    found = answer(PLAN, with_speed_ups(a=ONE_SEED, b=ONE_SEED), None)
    assert "(no interval, 1 paired seed): a 1.35×, no interval; b 1.35×" in found
    assert "corrected" not in found


def test_cannot_tell():
    arms = with_speed_ups(ec=FASTER)
    speed_up = SpeedUp(estimate(1.1, 1.05, 1.15, None), {}, 0, 3.0)
    aa = dataclasses.replace(arms["switch"], speed_ups={"causal": {"steps": speed_up}})
    assert answer(PLAN, arms, aa) == (
        "This study cannot tell whether an arm differs from switch: that one differs from itself "
        "with other initial parameters (speed-up 1.10, 95% interval 1.05 to 1.15, 5 seeds)."
    )


def test_nothing_to_compare():
    assert answer(PLAN, with_speed_ups(), None).startswith("This study has no answer yet")
