"""What a training step of an arm costs, and the ratio of wall times of two arms."""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from moe_jax.compare import intervals
from moe_jax.compare.intervals import Mean
from moe_jax.compare.records import Record, RunRecord, StepTimes
from moe_jax.compare.results import StepCost, Unit

# The least number of rounds in a block of the timing.
BLOCK = 4


@dataclasses.dataclass(frozen=True)
class PairedTimes:
    """Times of an arm and of the baseline from one session: equal indices are the same round."""

    arm: StepTimes
    baseline: StepTimes


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


def paired_times(
    records: Sequence[Record], arms: Iterable[str], baseline: str
) -> tuple[dict[str, PairedTimes], list[str]]:
    """Returns the interleaved times of arms with those of the baseline in the same session.

    The last session that timed all the arms counts; without one, for each arm the last that timed
    it and the baseline. Times count only if they are those of a configuration that some run of the
    arm had, and positive.

    Args:
        records: runs and step times.
        arms: names of the arms that are compared, the baseline among them.
        baseline: name of the baseline.

    Returns:
        the times by arm, those of the baseline among them, and lines on times that are not used.
    """
    names = list(arms)
    usable, lines = _usable(records)
    sessions = _sessions(usable)
    complete = [session for session in sessions if all(name in session for name in names)]
    times: dict[str, PairedTimes] = {}
    for name in names:
        found = [s for s in complete[-1:] or sessions if name in s and baseline in s]
        if not found:
            if any(name in session for session in sessions):
                lines.append(
                    f"{name}: wall time not compared, {baseline} was not timed in the same session"
                )
            continue
        pair = PairedTimes(found[-1][name], found[-1][baseline])
        if pair.arm.device != pair.baseline.device:
            lines.append(
                f"{name}: wall time not compared, it was timed on {pair.arm.device} and "
                f"{baseline} on {pair.baseline.device}"
            )
        else:
            times[name] = pair
    rounds = min((_rounds(pair) for pair in times.values()), default=2 * BLOCK)
    if rounds < 2 * BLOCK:
        lines.append(
            f"wall time: {rounds} round{'s' * (rounds > 1)} of timing give no interval; "
            f"{2 * BLOCK} are needed, 20 are better (Study.timing_rounds)"
        )
    return times, lines


def log_time_ratio(times: PairedTimes | None) -> Mean | None:
    """Returns the logarithm of the baseline's seconds per step over the arm's.

    In a round both ran one after the other, so that slow changes of a shared machine cancel. What
    is left of them makes neighbouring rounds alike, and single rounds are far off: the value is
    the mean over blocks of 4 to 7 consecutive rounds (4 or 5 if there are 12 or more) of the
    median in each, and its error that of a mean of as many independent values. With fewer than 8
    rounds the error is unknown.

    Args:
        times: times of one session; None if the arm was not timed.
    """
    if times is None:
        return None
    rounds = _rounds(times)
    ratios = np.log(times.baseline.seconds[:rounds]) - np.log(times.arm.seconds[:rounds])
    blocks = np.array_split(ratios, max(1, rounds // BLOCK))
    return intervals.mean_of([float(np.median(block)) for block in blocks])


def step_cost(runs: Sequence[RunRecord], times: PairedTimes | None) -> StepCost:
    """Returns the costs of a step of an arm: medians over its runs, and its wall time."""
    costs = [cost_of_step(run) for run in runs]
    found = log_time_ratio(times)
    ratio = None
    if times is not None and found is not None:
        inverse = Mean(-found.value, found.errors)
        ratio = intervals.exponential(inverse, max(1, _rounds(times) // BLOCK))
    return StepCost(
        tokens=statistics.median(cost["tokens"] for cost in costs),
        slots=statistics.median(cost["slots"] for cost in costs),
        flops=statistics.median(cost["flops"] for cost in costs),
        seconds=None if times is None else statistics.median(times.arm.seconds),
        seconds_ratio=ratio,
    )


def _usable(records: Sequence[Record]) -> tuple[list[StepTimes], list[str]]:
    """Returns the times that may be used, and a line for each arm that has only others."""
    fingerprints = {(r.arm, r.fingerprint) for r in records if isinstance(r, RunRecord)}
    usable: list[StepTimes] = []
    reasons: dict[str, str] = {}
    for record in records:
        if not isinstance(record, StepTimes) or not record.seconds:
            continue
        if (record.arm, record.fingerprint) not in fingerprints:
            reasons[record.arm] = "none of its runs has their configuration"
        elif not all(math.isfinite(seconds) and seconds > 0 for seconds in record.seconds):
            reasons[record.arm] = "they are not all positive and finite"
        else:
            usable.append(record)
    left = sorted(set(reasons) - {record.arm for record in usable})
    return usable, [f"step times of {arm}: not used, {reasons[arm]}" for arm in left]


def _sessions(times: Sequence[StepTimes]) -> list[Mapping[str, StepTimes]]:
    """Returns the times by arm of each session, in order of their last record.

    Where the session is not known, it ends before an arm that it has already.
    """
    sessions: dict[tuple[str, int], dict[str, StepTimes]] = {}
    number = 0
    for record in times:
        if not record.session and record.arm in sessions.get(("", number), {}):
            number += 1
        key = (record.session, 0 if record.session else number)
        sessions[key] = {**sessions.pop(key, {}), record.arm: record}
    return list(sessions.values())


def _rounds(times: PairedTimes) -> int:
    return min(len(times.arm.seconds), len(times.baseline.seconds))
