"""Which runs of a study are compared, and which are left out, each in one line."""

import dataclasses
from collections.abc import Sequence

from moe_jax.compare.learning_rates import has_evaluations
from moe_jax.compare.records import Record, RunRecord, StudyPlan
from moe_jax.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Selection:
    """The runs of a comparison.

    Attributes:
        runs: finished runs by arm, in the order of the plan, and data seed.
        aa: finished runs of the baseline with other initial parameters, by data seed.
        trials: trials of learning rates by arm.
        left_out: lines on runs that are not used.
        warnings: lines on runs whose absence makes the answer doubtful.
    """

    runs: dict[str, dict[int, RunRecord]]
    aa: dict[int, RunRecord]
    trials: dict[str, list[RunRecord]]
    left_out: list[str]
    warnings: list[str]


def select(plan: StudyPlan, records: Sequence[Record]) -> Selection:
    """Returns the runs that are compared; of several with the same arm and seed, the last.

    Raises:
        UserError: if the plan has no such baseline, or the baseline no finished run.
    """
    if plan.baseline not in plan.arms:
        raise UserError(
            f"the baseline {plan.baseline!r} is not one of the arms "
            f"({', '.join(plan.arms)}).{nearest(plan.baseline, plan.arms)}"
        )
    selection = Selection({arm: {} for arm in plan.arms}, {}, {}, [], [])
    for record in records:
        if isinstance(record, RunRecord):
            _sort(record, plan, selection)
    _report_missing(plan, selection)
    if not selection.runs.get(plan.baseline):
        raise UserError(
            f"the baseline {plan.baseline!r} has no finished run with evaluations: without one "
            "there is nothing to compare with. Finish one, or name another baseline"
        )
    return selection


def _sort(run: RunRecord, plan: StudyPlan, selection: Selection) -> None:
    """Puts a run where it belongs."""
    if run.arm not in plan.arms:
        selection.left_out.append(f"{run.name}: its arm {run.arm!r} is not in the study")
    elif run.role == "rate_trial":
        selection.trials.setdefault(run.arm, []).append(run)
    elif plan.seeds and run.data_seed not in plan.seeds:
        selection.left_out.append(
            f"{run.name}: its data seed {run.data_seed} is not in the study ({_seeds(plan.seeds)})"
        )
    elif run.role == "aa" and run.arm != plan.baseline:
        selection.left_out.append(f"{run.name}: an A/A run of {run.arm!r}, not of the baseline")
    elif run.outcome == "diverged":
        selection.warnings.append(
            f"{run.name} diverged and is left out; the other seeds of {run.arm} show it better "
            "than it is"
        )
    elif run.outcome == "unfinished":
        selection.left_out.append(
            f"{run.name}: unfinished, last evaluation at step {run.last_step:,} of "
            f"{run.planned_steps:,}"
        )
    elif not has_evaluations(run):
        selection.left_out.append(f"{run.name}: no evaluation with a finite loss")
    else:
        place = selection.aa if run.role == "aa" else selection.runs[run.arm]
        earlier = place.pop(run.data_seed, None)
        if earlier is not None:
            selection.left_out.append(
                f"{earlier.name}: another run of {run.arm} has data seed {run.data_seed} as well "
                f"and was read later ({run.name})"
            )
        place[run.data_seed] = run


def _report_missing(plan: StudyPlan, selection: Selection) -> None:
    """Adds lines on arms and seeds without a finished run, and sorts the runs by seed."""
    baseline = selection.runs[plan.baseline]
    for arm in list(selection.runs):
        runs = selection.runs[arm] = dict(sorted(selection.runs[arm].items()))
        if not runs:
            selection.warnings.append(f"{arm} has no finished run and is not in the comparison")
            del selection.runs[arm]
            continue
        missing = sorted(set(plan.seeds) - set(runs))
        if missing:
            selection.left_out.append(f"{arm}: no finished run for {_seeds(missing)}")
            selection.warnings.append(
                f"{arm}: {len(missing)} of {len(plan.seeds)} runs are left out or missing"
            )
        alone = sorted(set(runs) - set(baseline))
        if baseline and alone:
            selection.left_out.append(
                f"{arm}: {_seeds(alone)} not compared, the baseline has no such run"
            )
    ordered = dict(sorted(selection.aa.items()))
    selection.aa.clear()
    selection.aa.update(ordered)


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
