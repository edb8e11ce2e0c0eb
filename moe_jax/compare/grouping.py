"""Group runs that belong to no study into arms, and make a plan of their comparison.

Runs of an arm have the same settings except the seeds and what does not decide the trained model.
Settings that only some runs with the same components have are not compared, as another version of
the program may have added them.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, get_args

from moe_jax.compare.arm_names import describe_groups, name_groups
from moe_jax.compare.fingerprints import LOSS_WEIGHTS, decides
from moe_jax.compare.not_shown import UNIT_WORDS
from moe_jax.compare.records import RunRecord, StudyPlan
from moe_jax.compare.results import Unit
from moe_jax.errors import UserError, nearest

MATCHED_BY: tuple[str, ...] = get_args(Unit)
# Routers whose arm is the baseline unless one is chosen, in this order.
_BASELINES = ("gshard_top2", "switch")
# Besides the seeds: data, evaluation, and how the step is computed.
_NOT_THE_ARM = re.compile(
    r"(Train|Data)\.seed"
    r"|Train\.(eval_every|compiler_options)"
    r"|Data\.(eval_.*|task|vocabulary)"
    r"|Model\.(attention|remat|remat_names|scan_layers|dispatch)"
    r"|Loss\.chunk"
    r"|Mesh\..*"
)

Key = tuple[Any, ...]


def group_into_arms(records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """Assigns runs to arms by their settings, with names made of their directories' or settings.

    Runs of one arm and one `Data.seed` differ in their initial parameters: if that holds for all
    runs of the arms, they are paired by `Train.seed` instead.

    Args:
        records: runs; their `arm` is ignored.

    Returns:
        the runs with their arms, and lines on what was decided.
    """
    groups = list(_groups(records).values())
    names = name_groups(groups)
    named = {
        id(record): dataclasses.replace(record, arm=name)
        for name, group in zip(names, groups, strict=True)
        for record in group
    }
    arms = [named[id(record)] for record in records]
    if not _has_one_data_order(groups):
        return arms, []
    paired = [dataclasses.replace(record, data_seed=record.seed) for record in arms]
    return paired, [
        f"all runs of an arm have the same Data.seed, such as {records[0].data_seed}: runs are "
        "paired by Train.seed, and the interval does not contain the effect of the data's order"
    ]


def make_plan(
    records: Sequence[RunRecord], baseline: str | None = None, matched_by: str = "steps"
) -> StudyPlan:
    """Returns the plan of a comparison of runs that exist.

    Args:
        records: the runs, with their arms.
        baseline: name of the arm that the others are compared with; None for the arm of GShard's
            top-2 router, else of Switch, else the first.
        matched_by: the cost in which the answer is given.

    Raises:
        UserError: for an unknown arm or cost, or if there is nothing to compare.
    """
    arms = list(dict.fromkeys(record.arm for record in records if record.role == "comparison"))
    if len(arms) < 2:
        found = f"there is only {arms[0]!r}" if arms else "there is none"
        raise UserError(
            f"a comparison needs two arms, and {found}: give run directories that differ in more "
            "than their seeds, each trained to its end"
        )
    if baseline is None:
        baseline = _default_baseline(records, arms)
    groups = [[r for r in records if r.arm == arm and r.role == "comparison"] for arm in arms]
    plan = StudyPlan(
        question=f"How much less than {baseline} do the other arms need for the same loss?",
        baseline=baseline,
        arms=dict(zip(arms, describe_groups(groups), strict=True)),
        aa=any(record.role == "aa" and record.arm == baseline for record in records),
        seeds=tuple(sorted({record.data_seed for group in groups for record in group})),
        matched_by=matched_by,
    )
    return change_plan(plan, baseline, matched_by)


def change_plan(
    plan: StudyPlan, baseline: str | None = None, matched_by: str | None = None
) -> StudyPlan:
    """Returns a plan with another baseline or another cost; None keeps that of the plan.

    The question of the plan may not be that of another comparison, which is asked in words of its
    own.

    Raises:
        UserError: for an unknown arm or cost.
    """
    check_choice("baseline", baseline, tuple(plan.arms))
    check_choice("matched_by", matched_by, MATCHED_BY)
    changed = dataclasses.replace(
        plan, baseline=baseline or plan.baseline, matched_by=matched_by or plan.matched_by
    )
    if changed == plan:
        return plan
    unit: Any = changed.matched_by
    return dataclasses.replace(
        changed,
        question=f"How do the arms compare with {changed.baseline}, in {UNIT_WORDS[unit]}?",
        aa=plan.aa and changed.baseline == plan.baseline,
    )


def check_choice(name: str, value: str | None, known: Sequence[str]) -> None:
    """Checks a choice of the command line; None is no choice.

    Raises:
        UserError: if it is not one of the known ones, which the message names.
    """
    if value is not None and value not in known:
        raise UserError(
            f"--{name}={value} is unknown; known: {', '.join(known)}." + nearest(value, known)
        )


def arm_settings(record: RunRecord) -> dict[str, str]:
    """Returns the settings of a run that its arm may differ in from others.

    Task and vocabulary are not among them: runs with other data are not compared
    (`moe_jax.compare.compatibility`), and the same files may lie elsewhere.
    """
    return {
        name: value
        for name, value in record.settings.items()
        if decides(name) and not _NOT_THE_ARM.fullmatch(name)
    }


def _groups(records: Sequence[RunRecord]) -> dict[Key, list[RunRecord]]:
    """Returns the runs by arm, arms and runs in the order given."""
    components: dict[Key, list[RunRecord]] = {}
    for record in records:
        key = tuple(sorted(item for item in arm_settings(record).items() if item[1][:1] == "@"))
        components.setdefault(key, []).append(record)
    keys: dict[int, Key] = {}
    for key, runs in components.items():
        settings = [arm_settings(record) for record in runs]
        shared = set(settings[0]).intersection(*settings)
        weights = {n for found in settings for n in found if n.startswith(LOSS_WEIGHTS)}
        for record, found in zip(runs, settings, strict=True):
            values = [(n, found.get(n, "default")) for n in sorted(shared | weights)]
            keys[id(record)] = (key, tuple(values))
    groups: dict[Key, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(keys[id(record)], []).append(record)
    return groups


def _has_one_data_order(groups: Sequence[Sequence[RunRecord]]) -> bool:
    """Returns True if the runs of each arm differ only in `Train.seed`, and there are several."""
    several = [group for group in groups if len({r.seed for r in group}) > 1]
    return bool(several) and all(len({r.data_seed for r in g}) == 1 for g in groups)


def _default_baseline(records: Sequence[RunRecord], arms: Sequence[str]) -> str:
    for router in _BASELINES:
        found = [r.arm for r in records if r.router == router and r.role == "comparison"]
        if found:
            return found[0]
    return arms[0]
