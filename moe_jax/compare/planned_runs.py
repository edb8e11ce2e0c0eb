"""What one process does of a planned study, whether it compares routers or fine-tunes models."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from moe_jax.compare.children import Start, find_devices, starter
from moe_jax.compare.jobs import Job
from moe_jax.compare.journal import Journal
from moe_jax.compare.scheduler import Observer, Scheduler
from moe_jax.compare.study_directory import Plan, StudyDirectory
from moe_jax.errors import Interrupted, UserError
from moe_jax.training.run_directory.directory_lock import DirectoryLock

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class StudyOptions:
    """Settings of one process that runs a study.

    Attributes:
        directory: the directory of the study.
        command: the command line of this process, for messages and the report.
        parallel: number of jobs at a time.
        cache_flags: flags of the compilation cache, passed on to the children.
    """

    directory: str
    command: str = ""
    parallel: int = 1
    cache_flags: tuple[str, ...] = ()


class PlannedRuns(Protocol):
    """A study whose jobs are valid, with its directory."""

    @property
    def directory(self) -> StudyDirectory:
        """The directory of the study."""

    @property
    def plan(self) -> Plan:
        """What the study compares."""

    def expected_jobs(self) -> Sequence[Job]:
        """Returns all jobs, those whose configuration is not known yet included."""

    def known_jobs(self) -> Sequence[Job]:
        """Returns the jobs whose configuration is known."""


def missing_commands(study: PlannedRuns, cache_flags: Sequence[str] = ()) -> list[str]:
    """Returns the command line of every job that has not ended, as far as it is known.

    Jobs that have ended are recorded first. Where learning rates are still to be chosen, only the
    trials are returned.

    Raises:
        UserError: if the configuration of a job has changed since it was trained.
    """
    Scheduler(study.directory, starter(())).check(study.known_jobs())
    jobs: Sequence[Job] = ()
    # Trials that are recorded make the jobs known that they choose the rate of.
    while len(known := study.known_jobs()) > len(jobs):
        jobs = known
        _record_ended(study, jobs)
    runs = study.directory.runs()
    return [
        job.command(study.directory.path, cache_flags)
        for job in jobs
        if job.name not in runs or runs[job.name].outcome == "unfinished"
    ]


def _record_ended(study: PlannedRuns, jobs: Sequence[Job]) -> None:
    """Records the jobs that have ended and are not recorded, as another scheduler leaves them."""
    runs = study.directory.runs()
    for job in jobs:
        if job.name in runs and runs[job.name].outcome != "unfinished":
            continue
        try:
            record = study.directory.read(job)
        except UserError:  # Training may still read it, and says why if not.
            continue
        if record is not None and record.outcome != "unfinished":
            study.directory.append_plan(study.plan)
            study.directory.append(record)


@contextlib.contextmanager
def training(
    study: PlannedRuns, options: StudyOptions, observe: Observer, start: Start | None = None
) -> Iterator[Scheduler]:
    """Records the plan and gives the scheduler of the study's jobs, which keeps `study.json`.

    Args:
        study: the study.
        options: settings of this process.
        observe: shows the progress.
        start: starts child processes; replaced in tests.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with how to go on.
    """
    journal = Journal(study.directory, study.plan, study.known_jobs, observe)
    scheduler = Scheduler(
        study.directory,
        start or starter(find_devices(options.parallel)),
        options.parallel,
        journal.note,
        options.cache_flags,
    )
    study.directory.append_plan(study.plan)
    try:
        yield scheduler
    except Interrupted as error:
        message = "Stopped; what was running is saved. To go on, run the same command again:"
        raise Interrupted(error.args[0], f"{message}\n  {options.command}") from None
    finally:
        journal.note(scheduler.progress)


def measure(study: PlannedRuns, verb: str, say: Say, take: Callable[[], None]) -> None:
    """Takes measurements that the report needs besides the runs, on one of several machines.

    An error is printed and does not end the study, whose runs are done.

    Args:
        study: the study.
        verb: the verb of this process, for the lock.
        say: prints a line.
        take: takes the measurements and records them.
    """
    try:
        with DirectoryLock(study.directory.path, ["moe-jax", verb], say):
            take()
    except UserError as error:
        say(f"not measured: {error}")
