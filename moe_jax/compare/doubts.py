"""What makes the answer of a study doubtful, one line each."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moe_jax import strict_json
from moe_jax.compare.arm_results import Curves
from moe_jax.compare.records import RunRecord, StudyPlan
from moe_jax.compare.results import ArmResult, Estimate

FEW_SEEDS = 3


def aa_estimate(aa: ArmResult | None) -> Estimate | None:
    """Returns the speed-up in steps of the baseline over itself; None if it is not known."""
    if aa is None or not aa.speed_ups:
        return None
    found = aa.speed_ups["causal"]["steps"].estimate
    return None if found.low is None else found


def contains_one(found: Estimate | None) -> bool:
    """Returns False only for an estimate whose interval does not contain 1."""
    if found is None or found.low is None or found.high is None:
        return True
    return found.low <= 1 <= found.high


def on_aa(plan: StudyPlan, aa: ArmResult | None) -> list[str]:
    """Returns a line if the A/A runs contradict the study, or are missing."""
    found = aa_estimate(aa)
    if not contains_one(found):
        assert found is not None
        return [
            f"This study cannot tell: {plan.baseline} differs from itself with other initial "
            f"parameters (A/A speed-up {found.value:.2f}, 95% interval {found.low:.2f} to "
            f"{found.high:.2f}, which does not contain 1; 5% of sound studies show this by chance)"
        ]
    if found is None and aa is not None:
        return ["A/A: with one pair of runs there is no interval, so the study is not checked"]
    if found is None:
        return [
            f"no A/A runs: {plan.baseline} was not compared with itself, so the study is not "
            "checked"
        ]
    return []


def on_seeds(arms: Mapping[str, ArmResult], baseline: str) -> list[str]:
    """Returns lines on arms that have fewer than three pairs of runs."""
    others = [arm for name, arm in arms.items() if name != baseline]
    by_count: dict[int, list[str]] = {}
    for arm in others:
        seeds = arm.difference.seeds if arm.difference is not None else 0
        if seeds < FEW_SEEDS:
            by_count.setdefault(seeds, []).append(arm.name)
    effects = {
        0: f"no seed in common with {baseline}, so there is no comparison",
        1: "one seed, so there is no interval",
        2: "two seeds, so the interval is wide",
    }
    return [f"{', '.join(names)}: {effects[seeds]}" for seeds, names in sorted(by_count.items())]


def on_rates(plan: StudyPlan, arms: Mapping[str, ArmResult]) -> list[str]:
    """Returns lines on learning rates that may not be the best ones of their arms."""
    lines = []
    for name, arm in arms.items():
        if arm.rate is None:
            continue
        if arm.rate.at_edge:
            end, beyond = (
                ("highest", "higher")
                if arm.rate.chosen == max(arm.rate.losses)
                else ("lowest", "lower")
            )
            lines.append(
                f"{name}: the chosen learning rate {arm.rate.chosen:g} is the {end} that was "
                f"tried; a {beyond} one may be better"
            )
        used = {run.learning_rate for run in arm.runs.values()} - {arm.rate.chosen, None}
        if used:
            rates = ", ".join(f"{rate:g}" for rate in sorted(r for r in used if r is not None))
            lines.append(
                f"{name}: trained with the learning rate {rates}, though {arm.rate.chosen:g} has "
                "the lowest loss of the trials"
            )
    untried = [name for name, arm in arms.items() if arm.rate is None]
    if untried and len(untried) < len(arms):
        lines.append(f"{', '.join(untried)}: no learning rate was tried, unlike for the others")
    if plan.rate_seed is not None and plan.rate_seed in plan.seeds:
        lines.append(
            f"seed {plan.rate_seed} chose the learning rates and is in the comparison as well"
        )
    return lines


def distinct_environments(runs: Iterable[RunRecord]) -> tuple[Mapping[str, Any], ...]:
    """Returns the different environments of runs, in the order in which they occur."""
    found = {strict_json.dumps(sorted(_flat(run.environment).items())): run for run in runs}
    return tuple(run.environment for run in found.values())


def on_environments(environments: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a line with what differs between environments."""
    if len(environments) < 2:
        return []
    flat = [_flat(environment) for environment in environments]
    differing = []
    for key in dict.fromkeys(key for environment in flat for key in environment):
        values = dict.fromkeys(str(environment.get(key, "unknown")) for environment in flat)
        if len(values) > 1:
            differing.append(f"{key} {', '.join(values)}")
    return [f"the runs come from {len(environments)} environments: {'; '.join(differing)}"]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def on_leaks(arms: Mapping[str, ArmResult]) -> list[str]:
    """Returns lines on arms that read the future in training."""
    lines = []
    for name, arm in arms.items():
        if arm.leak_test is not None and arm.leak_test.leaks:
            test = arm.leak_test
            claim = "although it is declared causal, " if arm.is_causal else ""
            lines.append(
                f"{name}: {claim}training reads the future (random tokens: loss {test.loss:.4f} "
                f"below ln V = {test.floor:.4f}), so only its causal loss can be compared"
            )
    return lines


def on_curves(
    curves: Mapping[str, Curves], runs: Mapping[str, Mapping[int, RunRecord]]
) -> list[str]:
    """Returns lines on losses that rise at the end, and on runs of different lengths."""
    lines = []
    for name, by_routing in curves.items():
        rising = [curve for curve in by_routing["causal"].values() if curve.rises]
        if rising:
            lines.append(
                f"{name}: the held-out causal loss rises at the end of {len(rising)} of "
                f"{len(by_routing['causal'])} runs; the loss at the end is above the lowest one"
            )
    lengths = {
        name: {run.planned_steps for run in of_arm.values()} for name, of_arm in runs.items()
    }
    if len(set().union(*lengths.values())) > 1:
        shown = ", ".join(
            f"{name} {'/'.join(f'{steps:,}' for steps in sorted(found))}"
            for name, found in lengths.items()
        )
        lines.append(f"the runs differ in their planned steps: {shown}")
    return lines
