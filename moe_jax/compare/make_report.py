"""The report of a study or of existing runs, from their records."""

import dataclasses
from collections.abc import Sequence

from etils import epath

from moe_jax.compare.analysis import compare
from moe_jax.compare.grouping import change_plan, make_plan
from moe_jax.compare.read_runs import read_inputs
from moe_jax.compare.records import RunRecord
from moe_jax.compare.report import ReportFiles, write_report
from moe_jax.compare.results import Comparison
from moe_jax.compare.results_file import RESULTS_FILE
from moe_jax.compare.study_directory import absolute, holds_study, keep_records
from moe_jax.waiting import waiting


@dataclasses.dataclass(frozen=True)
class ReportChoices:
    """What a report compares, where that differs from the study's plan; None to leave it.

    Attributes:
        baseline: the arm that the others are compared with.
        matched_by: the cost in which the answer is given.
        command: the command line that made the report, unless the study's plan is as it was.
    """

    baseline: str | None = None
    matched_by: str | None = None
    command: str = ""


def make_report(
    paths: Sequence[str], directory: epath.Path, choices: ReportChoices
) -> tuple[Comparison, ReportFiles]:
    """Compares runs or studies and writes the report.

    Unless the directory holds a study, the plan and the records are written beside the report, so
    that it can be made again without the runs.

    Args:
        paths: run directories, study directories or files of results.
        directory: where the report is written, an absolute path or a remote one.
        choices: what is to be compared.

    Raises:
        UserError: for a path that cannot be read, runs that do not belong together, and an unknown
            baseline or cost.
    """
    found = read_inputs(paths)
    runs = [record for record in found.records if isinstance(record, RunRecord)]
    if found.plan is None:
        plan = make_plan(runs, choices.baseline, choices.matched_by or "steps")
        plan = dataclasses.replace(plan, command=choices.command)
    else:
        plan = change_plan(found.plan, choices.baseline, choices.matched_by)
        if plan != found.plan:
            plan = dataclasses.replace(plan, command=choices.command)
    with waiting("writing the report"):
        comparison = compare(plan, found.records, found.left_out)
        own = (directory, directory / RESULTS_FILE)
        if not holds_study(directory) and not any(absolute(path) in own for path in paths):
            keep_records(directory, plan, found.records)
        return comparison, write_report(comparison, directory)
