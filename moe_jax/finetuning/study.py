"""Runs a fine-tuning study: trains what is missing, one run per model, task and seed."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from moe_jax.compare.children import Start, find_devices, starter
from moe_jax.compare.journal import Journal
from moe_jax.compare.run_study import StudyOptions
from moe_jax.compare.scheduler import Observer, Scheduler, failed
from moe_jax.compare.task_records import FinetuningPlan, TaskBaseline
from moe_jax.errors import Interrupted, UserError
from moe_jax.finetuning import jobs
from moe_jax.finetuning.baselines import measure_baselines
from moe_jax.finetuning.directory import FinetuningDirectory
from moe_jax.finetuning.jobs import TaskJob
from moe_jax.finetuning.models import PretrainedModel
from moe_jax.finetuning.plan import LoadedFinetuning
from moe_jax.training.run_directory.directory_lock import DirectoryLock
from moe_jax.waiting import waiting

Say = Callable[[str], None]


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


def missing_commands(study: PlannedFinetuning, cache_flags: Sequence[str] = ()) -> list[str]:
    """Returns the command line of every run that has not ended.

    Runs that have ended are recorded first.

    Raises:
        UserError: if the configuration of a run has changed since it was trained.
    """
    Scheduler(study.directory, starter(())).check(study.jobs)
    for job in study.jobs:
        record = study.directory.read(job)
        if record is not None and record.outcome != "unfinished":
            study.directory.append_plan(study.plan)
            study.directory.append(record)
    runs = study.directory.runs()
    return [
        job.command(study.directory.path, cache_flags)
        for job in study.jobs
        if job.name not in runs or runs[job.name].outcome == "unfinished"
    ]


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
    journal = Journal(study.directory, study.plan, lambda: study.jobs, observe)
    scheduler = Scheduler(
        study.directory,
        start or starter(find_devices(options.parallel)),
        options.parallel,
        journal.note,
        options.cache_flags,
    )
    study.directory.append_plan(study.plan)
    try:
        scheduler.run(study.jobs)
        _measure_baselines(study, say)
    except Interrupted as error:
        message = "Stopped; what was running is saved. To go on, run the same command again:"
        raise Interrupted(error.args[0], f"{message}\n  {options.command}") from None
    finally:
        journal.note(scheduler.progress)
    return failed(scheduler.progress)


def _measure_baselines(study: PlannedFinetuning, say: Say) -> None:
    """Scores the yardsticks of the tasks where that is not recorded.

    An error of these does not end the study, whose runs are done.
    """
    if not study.loaded.finetuning.baselines:
        return
    known = {
        record.task for record in study.directory.records() if isinstance(record, TaskBaseline)
    }
    first: Mapping[str, TaskJob] = {job.task: job for job in reversed(study.jobs)}
    missing = [job for task, job in first.items() if task not in known]
    if not missing:
        return
    try:
        # Of several machines one measures.
        with DirectoryLock(study.directory.path, ["moe-jax", "finetune"], say):
            for job in missing:
                with waiting(f"scoring the most frequent class and a bag of words on {job.task}"):
                    found = measure_baselines(job.source, job.task)
                for record in found:
                    study.directory.append(record)
    except UserError as error:
        say(f"not measured: {error}")
