"""What a training step of an arm costs, and the ratio of wall times of two arms."""

import statistics
from collections.abc import Sequence

import numpy as np

from moe_jax.compare import intervals
from moe_jax.compare.intervals import Mean
from moe_jax.compare.records import Record, RunRecord, StepTimes
from moe_jax.compare.results import StepCost, Unit


def cost_of_step(run: RunRecord) -> dict[Unit, float]:
    """Returns the costs of a step of a run in all units but seconds."""
    tokens = run.tokens_per_step
    return {
        "steps": 1.0,
        "tokens": float(tokens),
        "slots": run.slots_per_token * tokens,
        "flops": run.flops_per_token * tokens,
    }


def cost_ratios(arm: RunRecord, baseline: RunRecord) -> dict[Unit, float]:
    """Returns the baseline's cost of a step over the arm's.

    A unit that one of them does not have is missing, such as the expert slots of a dense model.
    """
    of_arm, of_baseline = cost_of_step(arm), cost_of_step(baseline)
    return {
        unit: of_baseline[unit] / of_arm[unit]
        for unit in of_arm
        if of_arm[unit] > 0 and of_baseline[unit] > 0
    }


def times_by_arm(records: Sequence[Record]) -> tuple[dict[str, StepTimes], list[str]]:
    """Returns the interleaved times of each arm, and lines on those that are not used.

    Times count only if they are those of a configuration that some run of the arm had. The last
    ones of an arm count.
    """
    fingerprints = {(r.arm, r.fingerprint) for r in records if isinstance(r, RunRecord)}
    times: dict[str, StepTimes] = {}
    others: set[str] = set()
    for record in records:
        if isinstance(record, StepTimes) and record.seconds:
            if (record.arm, record.fingerprint) in fingerprints:
                times[record.arm] = record
            else:
                others.add(record.arm)
    lines = [
        f"step times of {arm}: not used, none of its runs has their configuration"
        for arm in sorted(others - set(times))
    ]
    return times, lines


def log_time_ratio(baseline: StepTimes | None, arm: StepTimes | None) -> Mean | None:
    """Returns the logarithm of the baseline's seconds per step over the arm's.

    It is the mean over the rounds of the timing, in which both ran one after the other, so that
    slow changes of a shared machine cancel.

    Returns:
        The mean; None if one was not timed, or on other devices.
    """
    if baseline is None or arm is None or baseline.device != arm.device:
        return None
    rounds = min(len(baseline.seconds), len(arm.seconds))
    ratios = np.log(baseline.seconds[:rounds]) - np.log(arm.seconds[:rounds])
    return intervals.mean_of(ratios.tolist())


def step_cost(
    runs: Sequence[RunRecord], times: StepTimes | None, baseline_times: StepTimes | None
) -> StepCost:
    """Returns the costs of a step of an arm: medians over its runs, and its wall time."""
    costs = [cost_of_step(run) for run in runs]
    ratio = None
    if times is not None and baseline_times is not None and times.device == baseline_times.device:
        rounds = zip(times.seconds, baseline_times.seconds, strict=False)
        ratio = intervals.ratio([seconds / baseline for seconds, baseline in rounds])
    return StepCost(
        tokens=statistics.median(cost["tokens"] for cost in costs),
        slots=statistics.median(cost["slots"] for cost in costs),
        flops=statistics.median(cost["flops"] for cost in costs),
        seconds=None if times is None else statistics.median(times.seconds),
        seconds_ratio=ratio,
    )
