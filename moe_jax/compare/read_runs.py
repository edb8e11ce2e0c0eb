"""Read what is to be compared: run directories, study directories and files of results."""

import dataclasses
import os
from collections.abc import Sequence

from etils import epath

from moe_jax.compare.compatibility import find_compatible
from moe_jax.compare.grouping import arm_settings, group_into_arms
from moe_jax.compare.jobs import RUNS
from moe_jax.compare.records import Record, RunRecord, StudyPlan
from moe_jax.compare.results_file import RESULTS_FILE, read_records
from moe_jax.compare.run_reader import read_run
from moe_jax.compare.study_directory import STUDY_FILE, absolute, holds_study
from moe_jax.compare.task_records import AnyRecord, FinetunedRun, FinetuningPlan, TaskBaseline
from moe_jax.errors import UserError, combined
from moe_jax.run_files import CHECKPOINTS, CONFIG_FILE, RUN_FILE
from moe_jax.waiting import waiting


@dataclasses.dataclass(frozen=True)
class ReadRuns:
    """What was read.

    Attributes:
        plan: the plan of the only study that was read; None otherwise, and then `make_plan` makes
            one of the records.
        records: the records of runs that belong together, with their arms, and of their step times
            and leak tests.
        left_out: a line for each run that was refused or marked.
    """

    plan: StudyPlan | None
    records: list[Record]
    left_out: list[str]


def read_inputs(paths: Sequence[str]) -> ReadRuns:
    """Reads runs and studies, and leaves out the runs that do not belong to the others.

    Args:
        paths: run directories, study directories (with a `results.jsonl`) or such files.

    Raises:
        UserError: for a path that is none of these, a file that cannot be read, and runs that do
            not belong together without a majority that does.
    """
    with waiting("reading the runs") as wait:
        located, left_out = _located(paths)
        studies: list[list[Record]] = []
        directories = []
        for path, file in located:
            wait.say(path)
            if file is None:
                directories.append(path)
            else:
                studies.append(_latest(_comparable(read_records(file), path)))
        loose, lines = _read_directories(directories)
        left_out += lines
    if not studies and not loose:
        raise combined(left_out or ["there is nothing to compare: give run directories"])
    arms, lines = group_into_arms(loose)
    left_out += lines
    records = _merged([*studies, list(arms)])
    plans = [record for record in records if isinstance(record, StudyPlan)]
    plan = plans[0] if len(plans) == 1 and not loose else None
    if plans and plan is None:
        left_out.append(
            "the study's own question, baseline and arms are not used, as other runs were added to "
            "it; --baseline and --matched_by choose"
        )
    runs = [record for record in records if isinstance(record, RunRecord)]
    compatible = find_compatible(
        runs if plan is not None else _with_aa(runs), is_planned=plan is not None
    )
    left_out += compatible.left_out
    # The arms are named again, without the runs that were refused.
    kept = compatible.records if studies else _renamed(compatible.records)
    arms_left = {run.arm for run in kept if run.role == "comparison"}
    if plan is None and len(arms_left) < 2 and left_out:
        raise combined(["there are no two arms to compare, after these runs:", *left_out])
    others = [record for record in records if not isinstance(record, RunRecord | StudyPlan)]
    return ReadRuns(plan, [*kept, *others], left_out)


def _comparable(records: Sequence[AnyRecord], path: str) -> list[Record]:
    """Returns the records of a comparison.

    Raises:
        UserError: for those of a fine-tuning study.
    """
    kept: list[Record] = []
    for record in records:
        if isinstance(record, FinetunedRun | TaskBaseline | FinetuningPlan):
            raise UserError(
                f"{path} is a fine-tuning study, which has scores of tasks: `moe-jax finetune "
                f"{path}` reports on it"
            )
        kept.append(record)
    return kept


def _located(
    paths: Sequence[str],
) -> tuple[list[tuple[str, epath.Path | None]], list[str]]:
    """Returns the paths, each with its file of results or None, and lines on those given twice."""
    located: dict[str, tuple[str, epath.Path | None]] = {}
    lines = dict[str, None]()
    for text in paths:
        path = text if "://" in text else os.path.normpath(text)
        file = _locate(path)
        where = str(absolute(path if file is None else str(file)))
        if where in located:
            lines[f"{path}: given more than once, and used once"] = None
        located.setdefault(where, (path, file))
    return list(located.values()), list(lines)


def _locate(text: str) -> epath.Path | None:
    """Returns the file of results of a path; None for a run directory.

    Raises:
        UserError: if it is neither.
    """
    path = epath.Path(text).expanduser()
    if not path.exists():
        raise UserError(f"there is no run directory and no file {text}")
    if (study := _study_around(path)) is not None:
        raise UserError(f"{text} is part of the study {study}: give {study}")
    if not path.is_dir():
        if path.name == STUDY_FILE:
            raise UserError(
                f"{text} has no records: give {path.parent} or {path.parent / RESULTS_FILE}"
            )
        return path
    if (path / RESULTS_FILE).exists():
        return path / RESULTS_FILE
    if any((path / name).exists() for name in (CONFIG_FILE, RUN_FILE, CHECKPOINTS)):
        return None
    if not (below := _runs_below(path)):
        raise UserError(f"there are no runs below {text}: give run directories, or a study's")
    raise UserError(
        f"{text} is neither a run directory (with a {CONFIG_FILE}) nor a study's (with a "
        f"{RESULTS_FILE}); give run directories, such as {os.path.join(text, below)}"
    )


def _study_around(path: epath.Path) -> epath.Path | None:
    """Returns the study whose runs a path is, or is among; None if it is not of a study."""
    for place in (absolute(str(path)), *absolute(str(path)).parents):
        if place.name == RUNS and holds_study(place.parent):
            is_below = "://" not in str(path) and not os.path.isabs(path)
            return epath.Path(os.path.relpath(place.parent)) if is_below else place.parent
    return None


def _runs_below(path: epath.Path) -> str:
    """Returns `*` or `*/*` if these are run directories, else an empty text."""
    for pattern in ("*", "*/*"):
        if any(path.glob(f"{pattern}/{CONFIG_FILE}")):
            return pattern
    return ""


def _read_directories(paths: Sequence[str]) -> tuple[list[RunRecord], list[str]]:
    """Returns the runs, and a line for each that cannot be read."""
    records, lines = [], []
    for path, name in zip(paths, _short_names(paths), strict=True):
        try:
            records.append(dataclasses.replace(read_run(path), name=name))
        except UserError as error:
            lines.append(f"{name}: refused: {error}")
    return records, lines


def _short_names(paths: Sequence[str]) -> list[str]:
    """Returns the shortest ends of the paths, of equally many parts, that tell them apart."""
    parts = [os.path.normpath(path).split(os.sep) for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def _latest(records: Sequence[Record]) -> list[Record]:
    """Returns the records of a study without those that later records replace."""
    found: dict[tuple[str, str, str], Record] = {}
    for record in records:
        name = record.name if isinstance(record, RunRecord) else getattr(record, "arm", "")
        # A later session of the timing may be incomplete: the analysis chooses.
        found[record.kind, name, getattr(record, "session", "")] = record
    return list(found.values())


def _renamed(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Returns runs with the names of arms that these runs give."""
    arms, _ = group_into_arms(records)
    return [
        dataclasses.replace(record, arm=named.arm)
        for record, named in zip(records, arms, strict=True)
    ]


def _merged(groups: Sequence[Sequence[Record]]) -> list[Record]:
    """Returns the records of several studies; an arm whose name another has is renamed."""
    merged: list[Record] = []
    known: dict[str, RunRecord] = {}
    for records in groups:
        renamed = {}
        for arm, run in _runs_by_arm(records).items():
            name, number = arm, 1
            while name in known and arm_settings(known[name]) != arm_settings(run):
                number += 1
                name = f"{arm} #{number}"
            renamed[arm] = name
        known |= {renamed[arm]: run for arm, run in _runs_by_arm(records).items()}
        merged += [
            record
            if isinstance(record, StudyPlan)
            else dataclasses.replace(record, arm=renamed.get(record.arm, record.arm))
            for record in records
        ]
    return merged


def _runs_by_arm(records: Sequence[Record]) -> dict[str, RunRecord]:
    """Returns a run of each arm, one of the comparison if there is one."""
    found: dict[str, RunRecord] = {}
    for record in records:
        if isinstance(record, RunRecord) and (
            record.arm not in found or found[record.arm].role != "comparison"
        ):
            found[record.arm] = record
    return found


def _with_aa(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Returns the runs, those that repeat an arm's data order with another `Train.seed` as A/A."""
    seeds: dict[tuple[str, int], int] = {}
    for record in records:
        key = record.arm, record.data_seed
        seeds[key] = min(seeds.get(key, record.seed), record.seed)
    return [
        dataclasses.replace(record, role="aa")
        if record.role == "comparison" and record.seed > seeds[record.arm, record.data_seed]
        else record
        for record in records
    ]
