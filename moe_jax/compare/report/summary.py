"""The result of a comparison as a JSON object, for other programs."""

from typing import Any

from moe_jax.compare.report import digits, units
from moe_jax.compare.report.arms import aa_speed_up
from moe_jax.compare.results import ArmResult, Comparison, Estimate


def json_summary(comparison: Comparison) -> dict[str, Any]:
    """Returns losses and speed-ups of all arms; what is unknown is None.

    Returns:
        `routers`: for each arm `loss`, `loss_low`, `loss_high` (routed as trained),
            `causal_loss`, `causal_loss_low`, `causal_loss_high`, `speedup`, `speedup_low`,
            `speedup_high` (by the causal loss, in the unit of `matched_by`) and `seeds`. The
            speed-up of the baseline is 1 without an interval.
        `baseline`, `matched_by`: as in the plan.
        `aa`: `speedup`, `speedup_low`, `speedup_high` in steps of the baseline over itself.
        `can_tell`: False if the interval of `aa` does not contain 1.
        `answer`, `warnings`: as in the report.
    """
    plan, same = comparison.plan, aa_speed_up(comparison)
    routers = {name: _arm(comparison, arm) for name, arm in comparison.arms.items()}
    return {
        "routers": routers,
        "baseline": plan.baseline,
        "matched_by": plan.matched_by,
        "aa": _ends("speedup", None if same is None else same.estimate),
        "can_tell": comparison.can_tell,
        "answer": comparison.answer,
        "warnings": list(comparison.warnings),
    }


def _arm(comparison: Comparison, arm: ArmResult) -> dict[str, Any]:
    speed_up = units.speed_up(arm, comparison.plan.matched_by)
    estimate = None if speed_up is None else speed_up.estimate
    if arm.name == comparison.plan.baseline:
        estimate = Estimate(1.0, None, None, len(arm.runs))
    return {
        **_ends("loss", arm.loss),
        **_ends("causal_loss", arm.causal_loss),
        **_ends("speedup", estimate),
        "seeds": len(arm.runs),
    }


def _ends(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    values = (None,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)
    names = (name, f"{name}_low", f"{name}_high")
    return {
        key: value if digits.is_finite(value) else None
        for key, value in zip(names, values, strict=True)
    }
