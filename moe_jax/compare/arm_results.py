"""The result of one arm: its losses, its comparison with the baseline, and its health."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from moe_jax.compare import intervals
from moe_jax.compare.intervals import Mean
from moe_jax.compare.learning_rates import choose_rate
from moe_jax.compare.records import Health, RunRecord
from moe_jax.compare.results import (
    ArmResult,
    MeanCurve,
    RateChoice,
    Routing,
    SpeedUp,
    StepCost,
    TargetCost,
    Unit,
)
from moe_jax.compare.smoothing import SmoothCurve, smooth
from moe_jax.compare.speed_up import Pair, speed_up, speed_up_curve
from moe_jax.compare.step_costs import cost_ratios

ROUTINGS: tuple[Routing, ...] = ("causal", "trained")
UNITS: tuple[Unit, ...] = ("steps", "tokens", "slots", "flops", "seconds")
Curves = Mapping[Routing, Mapping[int, SmoothCurve]]


def smooth_curves(runs: Mapping[int, RunRecord]) -> Curves:
    """Returns the smoothed losses of runs, by routing and data seed."""
    return {
        "causal": {s: smooth(run.curve.steps, run.curve.causal_loss) for s, run in runs.items()},
        "trained": {s: smooth(run.curve.steps, run.curve.loss) for s, run in runs.items()},
    }


@dataclasses.dataclass(frozen=True)
class Arm:
    """What an arm's result is computed from.

    Attributes:
        name: name of the arm.
        description: what it is, in a few words.
        runs: its runs by data seed.
        cost: cost of a step.
        curves: smoothed losses of its runs.
        trials: trials of learning rates.
    """

    name: str
    description: str
    runs: Mapping[int, RunRecord]
    cost: StepCost
    curves: Curves
    trials: Sequence[RunRecord] = ()


def arm_result(
    arm: Arm, baseline: Arm, log_time_ratio: Mean | None, targets: Sequence[float]
) -> ArmResult:
    """Returns the result of an arm, or of the baseline if both are the same object.

    Args:
        arm: the arm.
        baseline: the baseline.
        log_time_ratio: logarithm of the baseline's seconds per step over the arm's.
        targets: losses to report the cost of.
    """
    is_baseline = arm is baseline
    paired = [] if is_baseline else [seed for seed in arm.runs if seed in baseline.runs]
    pairs = {
        routing: {
            seed: Pair(
                arm.curves[routing][seed],
                baseline.curves[routing][seed],
                cost_ratios(arm.runs[seed], baseline.runs[seed]),
            )
            for seed in paired
        }
        for routing in ROUTINGS
    }
    causal, trained = (arm.curves[routing].values() for routing in ROUTINGS)
    differences = [pair.arm.final - pair.baseline.final for pair in pairs["causal"].values()]
    return ArmResult(
        name=arm.name,
        description=arm.description,
        runs=dict(arm.runs),
        loss=intervals.estimate([curve.final for curve in trained]),
        causal_loss=intervals.estimate([curve.final for curve in causal]),
        gap=intervals.estimate([c.final - t.final for c, t in zip(causal, trained, strict=True)]),
        difference=intervals.difference(differences) if differences else None,
        speed_ups={r: _speed_ups(pairs[r], log_time_ratio) for r in ROUTINGS} if paired else {},
        curve=mean_curve(list(causal)),
        speed_up_curve=speed_up_curve(list(pairs["causal"].values())),
        targets=_targets(arm, baseline, targets),
        cost=arm.cost,
        rate=_rate(arm.trials),
        health=median_health([run.health for run in arm.runs.values()]),
        is_causal=all(run.is_causal for run in arm.runs.values()),
    )


def _speed_ups(pairs: Mapping[int, Pair], log_time_ratio: Mean | None) -> dict[Unit, SpeedUp]:
    found = {unit: speed_up(pairs, unit, log_time_ratio) for unit in UNITS}
    return {unit: value for unit, value in found.items() if value is not None}


def mean_curve(curves: Sequence[SmoothCurve]) -> MeanCurve:
    """Returns the mean of smoothed curves with t-intervals.

    Its steps are those of the first curve between the first and last steps that all curves have.
    """
    first = max(float(curve.log_steps[0]) for curve in curves)
    last = min(float(curve.log_steps[-1]) for curve in curves)
    inside = [x for x in curves[0].log_steps if first <= x <= last]
    steps = np.exp(inside or [last])
    means = [intervals.estimate([float(curve.loss_at(step)) for curve in curves]) for step in steps]
    return MeanCurve(
        steps=tuple(steps.tolist()),
        loss=tuple(mean.value for mean in means),
        low=tuple(mean.low for mean in means),
        high=tuple(mean.high for mean in means),
    )


def _targets(arm: Arm, baseline: Arm, targets: Sequence[float]) -> tuple[TargetCost, ...]:
    """Returns the cost of the baseline's final loss, of each pair its own, and of the targets."""
    curves, of_baseline = arm.curves["causal"], baseline.curves["causal"]
    finals = {seed: of_baseline[seed].final for seed in curves if seed in of_baseline}
    goals = [finals] if finals else []
    goals += [dict.fromkeys(curves, target) for target in targets]
    costs = []
    for goal in goals:
        steps = [curves[seed].step_at(loss) for seed, loss in goal.items()]
        reached = [step for step in steps if step is not None]
        censored = sum(curves[seed].is_censored(loss) for seed, loss in goal.items())
        mean = intervals.geometric_mean(reached) if reached else None
        if mean is not None and censored:
            mean = dataclasses.replace(mean, low=None, high=None)
        costs.append(
            TargetCost(
                loss=float(np.mean(list(goal.values()))),
                steps=mean,
                reached=len(reached),
                seeds=len(steps),
                censored=censored,
            )
        )
    return tuple(costs)


def _rate(trials: Sequence[RunRecord]) -> RateChoice | None:
    try:
        return choose_rate(trials)
    except ValueError:
        return None


def median_health(records: Sequence[Health]) -> Health:
    """Returns the median over runs of every quantity that some run has."""
    medians: dict[str, Any] = {}
    for field in dataclasses.fields(Health):
        values = [getattr(record, field.name) for record in records]
        known = [value for value in values if value is not None]
        # The higher of two middle counts, which stay whole.
        whole = field.name in ("skipped_updates", "memory_bytes")
        median: Callable = statistics.median_high if whole else statistics.median
        medians[field.name] = median(known) if known else None
    return Health(**medians)
