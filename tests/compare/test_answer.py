import dataclasses

import pytest
from synthetic_studies import run_record

from moe_jax.compare.analysis import compare
from moe_jax.compare.answer import answer
from moe_jax.compare.records import StudyPlan
from moe_jax.compare.results import Estimate, SpeedUp

PLAN = StudyPlan("", "switch", {"switch": "Switch"}, True, (1,), "slots")


def with_speed_ups(unit="slots", **estimates):
    """Returns the arms of a comparison with these speed-ups."""
    baseline = compare(PLAN, [run_record()]).baseline
    arms = {"switch": baseline}
    for name, estimate in estimates.items():
        speed_up = SpeedUp(estimate, {}, 0, 3.0)
        arms[name] = dataclasses.replace(baseline, speed_ups={"causal": {unit: speed_up}})
    return arms


def estimate(value, low, high, p_holm, seeds=5):
    return Estimate(value, low, high, seeds, p_holm, p_holm)


FASTER = estimate(1.35, 1.2, 1.52, 0.001)
SLOWER = estimate(0.8, 0.7, 0.9, 0.01)
EQUAL = estimate(1.02, 0.95, 1.1, 0.4)
ONE_SEED = estimate(1.35, None, None, None, 1)


@pytest.mark.parametrize(
    ("found", "unit", "expected"),
    [
        (
            FASTER,
            "slots",
            "To the same held-out causal loss, ec needs 26% fewer computed expert slots than "
            "switch (speed-up 1.35, 95% interval 1.20 to 1.52, 5 seeds).",
        ),
        (
            SLOWER,
            "seconds",
            "To the same held-out causal loss, ec needs 25% more wall time than switch (speed-up "
            "0.80, 95% interval 0.70 to 0.90, 5 seeds).",
        ),
        (
            EQUAL,
            "steps",
            "No difference was found between ec and switch in the training steps needed for the "
            "same held-out causal loss (speed-up 1.02, 95% interval 0.95 to 1.10, 5 seeds).",
        ),
        (
            ONE_SEED,
            "seconds",
            "In the one seed that was run, to the same held-out causal loss, ec needs 26% less "
            "wall time than switch (speed-up 1.35; one seed gives no interval).",
        ),
    ],
)
def test_one_arm(found, unit, expected):
    plan = dataclasses.replace(PLAN, matched_by=unit)
    assert answer(plan, with_speed_ups(unit, ec=found), None) == expected


def test_several_arms_in_the_order_of_their_speed_ups():
    arms = with_speed_ups(slow=SLOWER, ec=FASTER, same=EQUAL)
    assert answer(PLAN, arms, None) == (
        "To the same held-out causal loss as switch, in computed expert slots: ec needs 26% fewer "
        "(1.35, 1.20 to 1.52), same shows no difference (1.02, 0.95 to 1.10), slow needs 25% more "
        "(0.80, 0.70 to 0.90) (speed-ups in brackets; 95% intervals, 5 seeds; differences "
        "corrected for 3 comparisons)."
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
    assert "speed-ups in brackets; 1 seed, no intervals" in found
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
