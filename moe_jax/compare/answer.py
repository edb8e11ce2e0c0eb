"""The answer of a study in a sentence or two, with its intervals."""

from collections.abc import Mapping, Sequence

from moe_jax.compare.doubts import aa_estimate, contains_one
from moe_jax.compare.not_shown import UNIT_WORDS
from moe_jax.compare.records import StudyPlan
from moe_jax.compare.results import ArmResult, Estimate, SpeedUp, Unit

# Arms that the sentence names; the others are in the table.
_MOST = 4


def answer(plan: StudyPlan, arms: Mapping[str, ArmResult], aa: ArmResult | None) -> str:
    """Returns the answer, on the causal loss and in the unit of the plan.

    Args:
        plan: what was asked.
        arms: results by name.
        aa: the baseline against itself.
    """
    checked = aa_estimate(aa)
    if checked is not None and not contains_one(checked):
        return (
            f"This study cannot tell whether an arm differs from {plan.baseline}: that one "
            f"differs from itself with other initial parameters (speed-up {_numbers(checked)})."
        )
    unit: Unit = plan.matched_by  # type: ignore[assignment]
    found = {
        name: arm.speed_ups["causal"][unit]
        for name, arm in arms.items()
        if name != plan.baseline and unit in arm.speed_ups.get("causal", {})
    }
    found = dict(sorted(found.items(), key=lambda item: -item[1].estimate.value))
    if not found:
        return (
            f"This study has no answer yet: no arm can be compared with {plan.baseline} in "
            f"{UNIT_WORDS[unit]}."
        )
    compared = sum(arm.estimate.p is not None for arm in found.values())
    names = _main_arms(found)
    parts = [f"{name} {_of_arm(plan.baseline, found[name], compared)}" for name in names]
    rest = len(found) - len(names)
    if rest:
        parts.append(f"{rest} more arm{'s are' if rest > 1 else ' is'} in the table")
    end = ""
    if compared > 1:
        end = (
            f" Differences are corrected for {compared} comparisons (Holm), the intervals are not."
        )
    return (
        f"Speed-up over {plan.baseline} to equal held-out causal loss, in {UNIT_WORDS[unit]} "
        f"({_basis(found)}): {'; '.join(parts)}.{end}"
    )


def _basis(found: Mapping[str, SpeedUp]) -> str:
    """Returns, for example, "95% interval, 3 to 5 paired seeds"."""
    counts = sorted({arm.estimate.seeds for arm in found.values()})
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    has_interval = any(arm.estimate.low is not None for arm in found.values())
    seeds = f"{span} paired seed{'s' * (counts[-1] > 1)}"
    return f"95% interval, {seeds}" if has_interval else f"no interval, {seeds}"


def _of_arm(baseline: str, found: SpeedUp, compared: int) -> str:
    """Returns an arm's speed-up with what can be said of it.

    Args:
        baseline: name of the baseline.
        found: the speed-up.
        compared: number of comparisons that p-values are corrected for.
    """
    estimate = found.estimate
    value = f"{estimate.value:.2f}×"
    if found.bound == "lower":
        return f"at least {value}: its first evaluation is below the compared loss"
    if found.bound == "upper":
        return f"at most {value}: {baseline}'s first evaluation is below the compared loss"
    if found.bound is not None:
        return "not known: first evaluations are below the compared loss"
    if estimate.low is None:
        return f"{value}, no interval{_not_reached(baseline, found)}"
    interval = f"{value} [{estimate.low:.2f}, {estimate.high:.2f}]"
    if contains_one(estimate):
        return f"{interval}, no difference detected"
    if not estimate.is_difference:
        return f"{interval}, not a difference once corrected for {compared} comparisons"
    return interval + _not_reached(baseline, found)


def _not_reached(baseline: str, found: SpeedUp) -> str:
    pairs = found.estimate.seeds
    if found.reached == pairs:
        return ""
    if found.reached == 0:
        where = "in any seed" if pairs > 1 else "in its only seed"
        return f": it did not reach {baseline}'s final loss {where}"
    return f": it reached {baseline}'s final loss in {found.reached} of {pairs} seeds"


def _main_arms(found: Mapping[str, SpeedUp]) -> Sequence[str]:
    """Returns the arms to name, fastest first: all, or the fastest ones and the slowest."""
    names = list(found)
    return names if len(names) <= _MOST else [*names[: _MOST - 1], names[-1]]


def _numbers(found: Estimate) -> str:
    if found.low is None:
        return f"{found.value:.2f}"
    seeds = f"{found.seeds} seed{'s' * (found.seeds > 1)}"
    return f"{found.value:.2f}, 95% interval {found.low:.2f} to {found.high:.2f}, {seeds}"
