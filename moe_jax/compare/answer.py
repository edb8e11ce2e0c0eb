"""The answer of a study in one sentence, with its interval."""

from collections.abc import Mapping, Sequence

from moe_jax.compare.doubts import aa_estimate, contains_one
from moe_jax.compare.not_shown import UNIT_WORDS
from moe_jax.compare.records import StudyPlan
from moe_jax.compare.results import ArmResult, Estimate, Unit
from moe_jax.formatting import decimal

# Arms that the sentence names; the others are in the table.
_MOST = 4


def answer(plan: StudyPlan, arms: Mapping[str, ArmResult], aa: ArmResult | None) -> str:
    """Returns the answer in one sentence, on the causal loss and in the unit of the plan.

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
        name: arm.speed_ups["causal"][unit].estimate
        for name, arm in arms.items()
        if name != plan.baseline and unit in arm.speed_ups.get("causal", {})
    }
    found = dict(sorted(found.items(), key=lambda item: -item[1].value))
    if not found:
        return (
            f"This study has no answer yet: no arm can be compared with {plan.baseline} in "
            f"{UNIT_WORDS[unit]}."
        )
    if len(found) == 1:
        return _of_one(plan.baseline, unit, *next(iter(found.items())))
    return _of_several(plan.baseline, unit, found)


def _of_one(baseline: str, unit: Unit, name: str, found: Estimate) -> str:
    words, numbers = UNIT_WORDS[unit], _numbers(found)
    if found.low is not None and not found.is_difference:
        return (
            f"No difference was found between {name} and {baseline} in the {words} needed for the "
            f"same held-out causal loss (speed-up {numbers})."
        )
    only = "In the one seed that was run, to" if found.low is None else "To"
    end = "; one seed gives no interval" if found.low is None else ""
    return (
        f"{only} the same held-out causal loss, {name} needs {_share(unit, found.value)} {words} "
        f"than {baseline} (speed-up {numbers}{end})."
    )


def _of_several(baseline: str, unit: Unit, found: Mapping[str, Estimate]) -> str:
    names = _main_arms(found)
    parts = [f"{name} {_short(unit, found[name])}" for name in names]
    rest = len(found) - len(names)
    more = f"; {rest} more arm{'s are' if rest > 1 else ' is'} in the table" if rest else ""
    counts = sorted({found[name].seeds for name in names})
    notes = "1 seed, no intervals"
    if counts != [1]:
        span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        notes = f"95% intervals, {span} seeds; differences corrected for {len(found)} comparisons"
    return (
        f"To the same held-out causal loss as {baseline}, in {UNIT_WORDS[unit]}: "
        f"{', '.join(parts)}{more} (speed-ups in brackets; {notes})."
    )


def _main_arms(found: Mapping[str, Estimate]) -> Sequence[str]:
    """Returns the arms to name, fastest first: all, or the fastest ones and the slowest."""
    names = list(found)
    return names if len(names) <= _MOST else [*names[: _MOST - 1], names[-1]]


def _short(unit: Unit, found: Estimate) -> str:
    numbers = f"{found.value:.2f}"
    if found.low is not None:
        numbers += f", {found.low:.2f} to {found.high:.2f}"
        if not found.is_difference:
            return f"shows no difference ({numbers})"
    return f"needs {_share(unit, found.value)} ({numbers})"


def _share(unit: Unit, speed_up: float) -> str:
    """Returns, for example, "26% fewer"."""
    if speed_up >= 1:
        fewer = "less" if unit == "seconds" else "fewer"
        return f"{decimal(100 * (1 - 1 / speed_up), 0)}% {fewer}"
    return f"{decimal(100 * (1 / speed_up - 1), 0)}% more"


def _numbers(found: Estimate) -> str:
    if found.low is None:
        return f"{found.value:.2f}"
    seeds = f"{found.seeds} seed{'s' * (found.seeds > 1)}"
    return f"{found.value:.2f}, 95% interval {found.low:.2f} to {found.high:.2f}, {seeds}"
