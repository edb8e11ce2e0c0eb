"""What makes the answer of a study doubtful, one line each."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moe_jax import strict_json
from moe_jax.compare.arm_results import ROUTINGS, Curves
from moe_jax.compare.records import RunRecord, StudyPlan
from moe_jax.compare.results import ArmResult, Estimate

FEW_SEEDS = 3
# Below this number of evaluations, a run's smoothing is linear at most.
FEW_EVALUATIONS = 5
# FLOPs that differ by less count as equal.
_EQUAL_FLOPS = 0.01
# Schedules whose rate depends on the length of the run.
_DECAYS_TO_THE_END = ("WarmupCosine",)
_DIRTY = "-dirty"
_MOST_NAMED = 4


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
    speed_ups = {} if aa is None else aa.speed_ups.get("causal", {})
    if speed_ups and speed_ups["steps"].bound is not None:
        return ["A/A: its speed-up has no interval, so the study is not checked"]
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


def on_bounds(arms: Iterable[ArmResult], baseline: str) -> list[str]:
    """Returns lines on speed-ups that are bounds, for lack of an early evaluation."""
    lines = []
    for arm in arms:
        by_routing = [(arm.speed_ups[r]["steps"], r) for r in ROUTINGS if arm.speed_ups]
        censored = [(found, routing) for found, routing in by_routing if found.bound is not None]
        if not censored:
            continue
        found, routing = censored[0]
        who, what = {
            "lower": (arm.name, "a lower bound"),
            "upper": (baseline, "an upper bound"),
        }.get(found.bound or "", ("a run", "not known"))
        by_loss = "" if routing == "causal" else " by the loss as trained"
        lines.append(
            f"{arm.name}: in {found.censored} of {len(found.by_seed)} pairs {who} passed the "
            f"compared loss before its first evaluation, so the speed-up{by_loss} is {what}, "
            "without an interval; evaluate earlier and more often (Train.eval_every)"
        )
    return lines


def on_flops(plan: StudyPlan, arms: Mapping[str, ArmResult]) -> list[str]:
    """Returns a line on arms whose FLOPs an answer in steps or tokens does not account for."""
    if plan.matched_by not in ("steps", "tokens"):
        return []
    is_by_token = plan.matched_by == "tokens"
    cost = {
        name: arm.cost.flops / (arm.cost.tokens if is_by_token else 1) for name, arm in arms.items()
    }
    ratios = {name: value / cost[plan.baseline] for name, value in cost.items()}
    differing = [
        f"{name} ({ratio:.2f} times)"
        for name, ratio in ratios.items()
        if not 1 / (1 + _EQUAL_FLOPS) <= ratio <= 1 + _EQUAL_FLOPS
    ]
    if not differing:
        return []
    return [
        f"the FLOPs of a {plan.matched_by.removesuffix('s')} differ from {plan.baseline}'s: "
        f"{_first(differing, ', ')}; the answer in {plan.matched_by} does not account for it, one "
        "in FLOPs does (matched_by = 'flops')"
    ]


def decaying_schedules(runs: Iterable[RunRecord]) -> list[str]:
    """Returns the names of the runs' schedules that decay to the end of the run."""
    found = {
        name
        for run in runs
        for key, value in run.settings.items()
        for name in _DECAYS_TO_THE_END
        if key.endswith(".learning_rate")
        and name in value
        and run.settings.get(f"{name}.final_fraction") not in ("1", "1.0")
    }
    return sorted(found)


def on_schedules(runs: Iterable[RunRecord]) -> list[str]:
    """Returns a line on the effect of schedules that decay to the end of the run."""
    if not decaying_schedules(runs):
        return []
    return ["the learning rate decays to the end of each run, which pulls speed-ups towards 1"]


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
    found = {_environment_key(run): run for run in runs}
    return tuple(run.environment for run in found.values())


def on_environments(runs: Mapping[str, Mapping[int, RunRecord]], baseline: str) -> list[str]:
    """Returns lines on runs from different environments, and from source that was not committed.

    Args:
        runs: runs by arm (A/A on its own) and data seed.
        baseline: name of the arm that the others are paired with.
    """
    keys = {
        arm: {seed: _environment_key(run) for seed, run in of_arm.items()}
        for arm, of_arm in runs.items()
    }
    every = [run for of_arm in runs.values() for run in of_arm.values()]
    found = {_environment_key(run): _flat(run.environment) for run in every}
    lines = _uncommitted(every)
    if len(found) < 2:
        return lines
    parts = []
    for key, environment in found.items():
        members = {arm: [s for s, k in of_arm.items() if k == key] for arm, of_arm in keys.items()}
        parts.append(f"{_differing(environment, list(found.values()))}: {_named(members)}")
    mixed = {
        arm: [s for s, key in of_arm.items() if keys[baseline].get(s, key) != key]
        for arm, of_arm in keys.items()
    }
    end = f"; pairs across environments: {_named(mixed)}" if any(mixed.values()) else ""
    return [
        f"the runs come from {len(found)} environments ({_first(parts, '; ')}){end}",
        *lines,
    ]


def _environment_key(run: RunRecord) -> str:
    return strict_json.dumps(sorted(_flat(run.environment).items()))


def _differing(environment: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """Returns the values of an environment that not all have."""
    keys = dict.fromkeys(key for other in others for key in other)
    differing = [key for key in keys if len({str(other.get(key)) for other in others}) > 1]
    values = [f"{key} {_shown(key, environment.get(key, 'unknown'))}" for key in differing]
    return _first(values, ", ")


def _uncommitted(runs: Sequence[RunRecord]) -> list[str]:
    """Returns a line if a run's source had changes that its commit does not contain."""
    commits = dict.fromkeys(str(run.environment.get("commit", "")) for run in runs)
    dirty = [_shown("commit", commit) for commit in commits if commit.endswith(_DIRTY)]
    if not dirty:
        return []
    return [
        f"commit {_first(dirty, ', ')}: the source had changes that were not committed, so the "
        "commit does not say what was run"
    ]


def _shown(key: str, value: Any) -> str:
    """Returns a value of an environment; a commit with 8 digits and its mark."""
    text = str(value)
    if key != "commit" or text == "unknown":
        return text
    return text.removesuffix(_DIRTY)[:8] + _DIRTY * text.endswith(_DIRTY)


def _named(seeds: Mapping[str, Sequence[int]]) -> str:
    """Returns, for example, "switch 1-3, a 1/5"; arms without seeds are left out."""
    names = [f"{arm} {_ranges(of_arm)}" for arm, of_arm in seeds.items() if of_arm]
    return _first(names, ", ")


def _ranges(seeds: Sequence[int]) -> str:
    """Returns, for example, "1-3/7"."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return "/".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _first(parts: Sequence[str], separator: str) -> str:
    """Returns the first parts as one text, and how many more there are."""
    rest = len(parts) - _MOST_NAMED
    more = [f"{rest} more"] if rest > 0 else []
    return separator.join([*parts[:_MOST_NAMED], *more])


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
    """Returns lines on few evaluations, rising losses at the end, and different lengths."""
    few = [
        name
        for name, by_routing in curves.items()
        if any(len(c.log_steps) < FEW_EVALUATIONS for c in by_routing["causal"].values())
    ]
    lines = []
    if few:
        lines.append(
            f"{', '.join(few)}: fewer than {FEW_EVALUATIONS} evaluations in a run, so the step at "
            "which it reaches a loss is uncertain; evaluate more often (Train.eval_every)"
        )
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
