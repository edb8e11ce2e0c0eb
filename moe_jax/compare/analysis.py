"""The comparison of the arms of a study, from its records alone."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from moe_jax.compare import doubts, intervals
from moe_jax.compare.answer import answer
from moe_jax.compare.arm_results import ROUTINGS, UNITS, Arm, arm_result, smooth_curves
from moe_jax.compare.intervals import Mean
from moe_jax.compare.not_shown import UNIT_WORDS, not_shown
from moe_jax.compare.records import LeakTest, Record, RunRecord, StudyPlan
from moe_jax.compare.results import ArmResult, Comparison, Estimate
from moe_jax.compare.selection import Selection, select
from moe_jax.compare.step_costs import PairedTimes, log_time_ratio, paired_times, step_cost
from moe_jax.errors import UserError, nearest

# Two runs of one configuration cost the same, without any uncertainty.
_SAME_TIME = Mean(0.0, ())


def compare(plan: StudyPlan, records: Sequence[Record], left_out: Sequence[str] = ()) -> Comparison:
    """Compares the arms of a study with its baseline.

    Runs of two arms with the same data seed are paired. A run that diverged or is unfinished drops
    only its own pair. The causal loss decides; results for the loss as trained are beside it.
    P-values are corrected over all arms (A/A excluded), for each unit and routing on its own.

    Args:
        plan: what is compared.
        records: runs, step times and leak tests.
        left_out: lines on runs that were refused before.

    Raises:
        UserError: if the baseline has no finished run, or `plan.matched_by` is no unit.
    """
    if plan.matched_by not in UNITS:
        raise UserError(
            f"matched_by = {plan.matched_by!r} is not one of {', '.join(UNITS)}."
            f"{nearest(plan.matched_by, UNITS)}"
        )
    selection = select(plan, records)
    times, time_lines = paired_times(records, selection.runs, plan.baseline)
    arms = _arms(plan, selection, times)
    baseline = arms[plan.baseline]
    leaks = {record.arm: record for record in records if isinstance(record, LeakTest)}
    results = {}
    for name, arm in arms.items():
        found = arm_result(arm, baseline, log_time_ratio(times.get(name)), plan.targets)
        results[name] = dataclasses.replace(found, leak_test=leaks.get(name))
    results = corrected(results)
    aa = _aa(plan, selection, baseline)
    by_arm = {name: arm.runs for name, arm in arms.items()}
    with_aa = {**by_arm, _aa_name(plan): selection.aa}
    runs = [run for of_arm in with_aa.values() for run in of_arm.values()]
    warnings = [
        *doubts.on_aa(plan, aa),
        *selection.warnings,
        *doubts.on_seeds(results, plan.baseline),
        *doubts.on_leaks(results),
        *doubts.on_rates(plan, results),
        *doubts.on_environments(with_aa, plan.baseline),
        *doubts.on_bounds([*results.values(), *([] if aa is None else [aa])], plan.baseline),
        *doubts.on_curves({name: arm.curves for name, arm in arms.items()}, by_arm),
        *doubts.on_flops(plan, results),
        *doubts.on_schedules(runs),
        *time_lines,
        *_without_unit(plan, results),
    ]
    return Comparison(
        plan=plan,
        answer=answer(plan, results, aa),
        arms=results,
        aa=aa,
        can_tell=doubts.contains_one(doubts.aa_estimate(aa)),
        warnings=tuple(warnings),
        left_out=(*left_out, *selection.left_out),
        not_shown=not_shown(results, plan.baseline, plan.matched_by),
        environments=doubts.distinct_environments(runs),
        all_runs=tuple(record for record in records if isinstance(record, RunRecord)),
    )


def _arms(
    plan: StudyPlan, selection: Selection, times: Mapping[str, PairedTimes]
) -> dict[str, Arm]:
    """Returns the arms that have runs."""
    return {
        name: Arm(
            name=name,
            description=plan.arms[name],
            runs=runs,
            cost=step_cost(list(runs.values()), times.get(name)),
            curves=smooth_curves(runs),
            trials=selection.trials.get(name, []),
        )
        for name, runs in selection.runs.items()
    }


def _aa_name(plan: StudyPlan) -> str:
    return f"{plan.baseline} (A/A)"


def _aa(plan: StudyPlan, selection: Selection, baseline: Arm) -> ArmResult | None:
    """Returns the baseline against itself; None without runs for it."""
    if not selection.aa:
        return None
    again = Arm(
        name=_aa_name(plan),
        description=f"{plan.baseline} again, with other initial parameters",
        runs=selection.aa,
        cost=baseline.cost,
        curves=smooth_curves(selection.aa),
    )
    ratio = None if baseline.cost.seconds is None else _SAME_TIME
    return arm_result(again, baseline, ratio, plan.targets)


def _without_unit(plan: StudyPlan, results: Mapping[str, ArmResult]) -> list[str]:
    """Returns a line on arms that the answer leaves out because they do not have its unit."""
    missing = [
        name
        for name, arm in results.items()
        if arm.speed_ups and plan.matched_by not in arm.speed_ups["causal"]
    ]
    if not missing:
        return []
    words = UNIT_WORDS[plan.matched_by]  # type: ignore[index]
    return [f"{', '.join(missing)}: not in the answer, which is in {words}; see the other costs"]


def corrected(results: Mapping[str, ArmResult]) -> dict[str, ArmResult]:
    """Returns the results with p-values corrected over the arms (Holm 1979).

    Each family holds the comparisons of all arms with the baseline by one quantity: a speed-up by
    routing and unit, the difference of the losses, the ratio of wall times.
    """
    arms = dict(results)
    for routing in ROUTINGS:
        for unit in UNITS:
            family = {
                name: arm.speed_ups[routing][unit]
                for name, arm in arms.items()
                if unit in arm.speed_ups.get(routing, {})
            }
            for name, found in _holm({n: s.estimate for n, s in family.items()}).items():
                by_unit = dict(arms[name].speed_ups[routing])
                by_unit[unit] = dataclasses.replace(family[name], estimate=found)
                speed_ups = {**arms[name].speed_ups, routing: by_unit}
                arms[name] = dataclasses.replace(arms[name], speed_ups=speed_ups)
    differences = _holm(_estimates(arms, lambda arm: arm.difference))
    for name, found in differences.items():
        arms[name] = dataclasses.replace(arms[name], difference=found)
    compared = {name: arm for name, arm in arms.items() if arm.speed_ups}
    for name, found in _holm(_estimates(compared, lambda arm: arm.cost.seconds_ratio)).items():
        cost = dataclasses.replace(arms[name].cost, seconds_ratio=found)
        arms[name] = dataclasses.replace(arms[name], cost=cost)
    return arms


def _estimates(
    arms: Mapping[str, ArmResult], of: Callable[[ArmResult], Estimate | None]
) -> dict[str, Estimate]:
    return {name: found for name, arm in arms.items() if (found := of(arm)) is not None}


def _holm(family: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Returns the estimates that have a p-value, with the corrected one."""
    known = {name: found.p for name, found in family.items() if found.p is not None}
    pairs = zip(known, intervals.holm(list(known.values())), strict=True)
    return {name: dataclasses.replace(family[name], p_holm=p) for name, p in pairs}
