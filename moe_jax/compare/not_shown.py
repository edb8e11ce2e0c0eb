"""What a study does not show, from what its runs have in common and where its arms differ."""

from collections.abc import Iterable, Mapping, Sequence

from moe_jax.compare.doubts import decaying_schedules, distinct_environments
from moe_jax.compare.records import RunRecord
from moe_jax.compare.results import ArmResult, Unit
from moe_jax.formatting import count

UNIT_WORDS: Mapping[Unit, str] = {
    "steps": "training steps",
    "tokens": "training tokens",
    "slots": "expert slots",
    "flops": "FLOPs",
    "seconds": "wall time",
}
# Costs that differ by less count as equal.
_EQUAL = 0.01


def not_shown(arms: Mapping[str, ArmResult], baseline: str, matched_by: str) -> tuple[str, ...]:
    """Returns sentences on what the study does not show.

    Args:
        arms: results by name.
        baseline: name of the baseline.
        matched_by: the unit in which the answer is given.
    """
    runs = [run for arm in arms.values() for run in arm.runs.values()]
    lines = [
        *_data(runs),
        _scale(runs),
        *_schedule(runs),
        *_rates(arms),
        *_hardware(runs, arms),
        *_unmatched(arms, arms[baseline], matched_by),
    ]
    return tuple(lines)


def _data(runs: Sequence[RunRecord]) -> list[str]:
    tasks = _distinct(run.settings.get("Data.task", str(run.data.get("task", ""))) for run in runs)
    names = ", ".join(task.strip("'\"") for task in tasks if task)
    tokens = _distinct(f"{run.eval_tokens:,}" for run in runs)
    first = f"One data set ({names})" if names else "One data set"
    if len(tasks) > 1:
        first = f"{len(tasks)} data sets ({names})"
    return [
        f"{first} with one tokenizer: whether it holds for other data is open.",
        f"One held-out set of {' or '.join(tokens)} tokens: the intervals are over seeds and do "
        "not contain the choice of these tokens. No downstream task was evaluated.",
    ]


def _scale(runs: Sequence[RunRecord]) -> str:
    parameters = _range(run.parameters for run in runs)
    active = _range(run.active_parameters for run in runs)
    tokens = _range(run.last_step * run.tokens_per_step for run in runs)
    return (
        f"Models of {parameters} parameters ({active} active), trained on {tokens} tokens: it says "
        "nothing about larger models or longer training."
    )


def _schedule(runs: Sequence[RunRecord]) -> list[str]:
    schedules = decaying_schedules(runs)
    if not schedules:
        return []
    return [
        f"The learning rate decays to the end of the run ({', '.join(schedules)}): a loss "
        "in the middle of a run is not the final loss of a shorter run, so a speed-up is not the "
        "ratio of the lengths of two complete runs."
    ]


def _rates(arms: Mapping[str, ArmResult]) -> list[str]:
    if all(arm.rate is None for arm in arms.values()):
        return ["No learning rates were tried: an arm may do better with one of its own."]
    most = max(len(arm.rate.losses) for arm in arms.values() if arm.rate is not None)
    return [
        f"Up to {most} learning rates per arm were tried on one seed; no other setting was tuned "
        "for an arm."
    ]


def _hardware(runs: Sequence[RunRecord], arms: Mapping[str, ArmResult]) -> list[str]:
    if all(arm.cost.seconds is None for arm in arms.values()):
        return ["Wall time was not compared: the arms' steps were not timed in turn."]
    devices = _distinct(
        f"{found.get('count', '?')} x {found.get('kind', 'unknown device')}"
        for environment in distinct_environments(runs)
        if isinstance(found := environment.get("devices"), Mapping)
    )
    on = f" ({', '.join(devices)})" if devices else ""
    return [f"Wall times hold for the hardware of this study{on} and this implementation only."]


def _unmatched(arms: Mapping[str, ArmResult], baseline: ArmResult, matched_by: str) -> list[str]:
    """Returns a sentence on the costs of a step in which the arms differ from the baseline."""
    differing = []
    units: tuple[Unit, ...] = ("slots", "flops", "seconds", "tokens")
    for unit in units:
        known = _over_baseline(arms, baseline, unit)
        if known and (max(known) > 1 + _EQUAL or min(known) < 1 - _EQUAL):
            words = UNIT_WORDS[unit]
            is_matched = ", which the answer accounts for" if unit == matched_by else ""
            differing.append(
                f"{words} ({min(known):.2f} to {max(known):.2f} times the baseline's per step"
                f"{is_matched})"
            )
    parameters = [run.parameters for arm in arms.values() for run in arm.runs.values()]
    if max(parameters) > (1 + _EQUAL) * min(parameters):
        differing.append(f"parameters ({_range(parameters)})")
    return [f"The arms differ in {', '.join(differing)}."] if differing else []


def _over_baseline(arms: Mapping[str, ArmResult], baseline: ArmResult, unit: Unit) -> list[float]:
    """Returns the costs of a step over the baseline's, of the arms that have both."""
    if unit == "seconds":
        ratios = [arm.cost.seconds_ratio for arm in arms.values()]
        return [ratio.value for ratio in ratios if ratio is not None]
    reference = getattr(baseline.cost, unit)
    values = [getattr(arm.cost, unit) for arm in arms.values()]
    return [value / reference for value in values if reference and value]


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _range(values: Iterable[float]) -> str:
    known = list(values)
    low, high = count(min(known)), count(max(known))
    return low if low == high else f"{low} to {high}"
