"""Runs a fine-tuning study: trains what is missing, one run per model, task and seed."""

import dataclasses
from collections.abc import Mapping, Sequence

from moe_jax.compare.children import Start
from moe_jax.compare.planned_runs import Say, StudyOptions, measure, training
from moe_jax.compare.scheduler import Observer, failed
from moe_jax.compare.task_records import FinetuningPlan, TaskBaseline
from moe_jax.finetuning import jobs
from moe_jax.finetuning.baselines import measure_baselines
from moe_jax.finetuning.directory import FinetuningDirectory
from moe_jax.finetuning.jobs import TaskJob
from moe_jax.finetuning.models import PretrainedModel
from moe_jax.finetuning.plan import LoadedFinetuning
from moe_jax.waiting import waiting


@dataclasses.dataclass(frozen=True)
class PlannedFinetuning:
    """A fine-tuning study whose runs are valid, with its directory.

    Attributes:
        loaded: the study.
        jobs: its runs, in their order.
        directory: its directory.
        plan: what it compares.
    """

    loaded: LoadedFinetuning
    jobs: Sequence[TaskJob]
    directory: FinetuningDirectory
    plan: FinetuningPlan

    def expected_jobs(self) -> Sequence[TaskJob]:
        """Returns all runs."""
        return self.jobs

    def known_jobs(self) -> Sequence[TaskJob]:
        """Returns all runs: none waits for another to choose its configuration."""
        return self.jobs


def plan_finetuning(
    loaded: LoadedFinetuning, models: Sequence[PretrainedModel], options: StudyOptions
) -> PlannedFinetuning:
    """Checks all runs of a study and makes its directory.

    Raises:
        UserError: for all mistakes in all runs; if the directory cannot be written to.
    """
    arms = jobs.find_arms(loaded.finetuning, models)
    found = jobs.make_jobs(loaded, arms)
    return PlannedFinetuning(
        loaded,
        found,
        FinetuningDirectory(options.directory),
        jobs.make_plan(loaded, arms, options.command),
    )


def run_finetuning(
    study: PlannedFinetuning,
    options: StudyOptions,
    observe: Observer,
    say: Say,
    start: Start | None = None,
) -> list[str]:
    """Trains the runs of a study that are missing, and scores the yardsticks.

    Args:
        study: the study.
        options: settings of this process.
        observe: shows the progress.
        say: prints a line.
        start: starts child processes; replaced in tests.

    Returns:
        a line for each run that failed.

    Raises:
        UserError: if the configuration of a run has changed since it was trained.
        Interrupted: after Ctrl-C or SIGTERM, once the running jobs have saved.
    """
    with training(study, options, observe, start) as scheduler:
        scheduler.run(study.jobs)
        _measure_baselines(study, say)
    return failed(scheduler.progress)


def _measure_baselines(study: PlannedFinetuning, say: Say) -> None:
    """Scores the yardsticks of the tasks where that is not recorded."""
    if not study.loaded.finetuning.baselines:
        return
    known = {
        record.task for record in study.directory.records() if isinstance(record, TaskBaseline)
    }
    first: Mapping[str, TaskJob] = {job.task: job for job in reversed(study.jobs)}
    missing = [job for task, job in first.items() if task not in known]
    if not missing:
        return

    def take() -> None:
        for job in missing:
            with waiting(f"scoring the most frequent class and a bag of words on {job.task}"):
                found = measure_baselines(job.source, job.task)
            for record in found:
                study.directory.append(record)

    measure(study, "finetune", say, take)
