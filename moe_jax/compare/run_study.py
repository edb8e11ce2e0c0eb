"""Runs a study: trains what is missing, then times the arms' steps and tests them for leaks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from moe_jax.compare import jobs as study_jobs
from moe_jax.compare.arms import Arm, load_arms, matching_notes
from moe_jax.compare.children import Start, device_variables, find_devices, starter
from moe_jax.compare.jobs import Job
from moe_jax.compare.learning_rates import choose_rate
from moe_jax.compare.records import LeakTest, RunRecord, StudyPlan
from moe_jax.compare.scheduler import Observer, Progress, Scheduler, failed
from moe_jax.compare.step_times import are_missing, measure_step_times
from moe_jax.compare.study import LoadedStudy
from moe_jax.compare.study_directory import StudyDirectory
from moe_jax.errors import Interrupted, UserError
from moe_jax.routing.router import Router
from moe_jax.waiting import waiting

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


@dataclasses.dataclass(frozen=True)
class PlannedStudy:
    """A study whose arms are valid, with its directory.

    Attributes:
        loaded: the study.
        arms: its arms by name.
        directory: its directory.
        plan: what it compares.
    """

    loaded: LoadedStudy
    arms: Mapping[str, Arm]
    directory: StudyDirectory
    plan: StudyPlan

    def trials(self) -> list[Job]:
        """Returns the trials of learning rates."""
        return study_jobs.rate_jobs(self.loaded.study, self.arms)

    def chosen_rates(self) -> dict[str, float]:
        """Returns the learning rates of the arms; without those whose trials have not ended."""
        study, runs = self.loaded.study, self.directory.runs()
        trials: dict[str, list[RunRecord | None]] = {}
        for job in self.trials():
            record = runs.get(job.name)
            ended = record is not None and record.outcome != "unfinished"
            trials.setdefault(job.arm, []).append(record if ended else None)
        chosen = {
            arm: choose_rate([record for record in records if record is not None]).chosen
            for arm, records in trials.items()
            if None not in records
        }
        single = {arm: rates[0] for arm in self.arms if len(rates := study.rates(arm)) == 1}
        return {**single, **chosen}

    def comparison(self, chosen: Mapping[str, float]) -> list[Job]:
        """Returns the runs of the comparison with these learning rates."""
        return study_jobs.comparison_jobs(self.loaded.study, self.arms, chosen)

    def known_jobs(self) -> list[Job]:
        """Returns the jobs whose configuration is known: of the comparison, those with a rate."""
        chosen = self.chosen_rates()
        tried = {job.arm for job in self.trials()} - chosen.keys()
        return [
            *self.trials(),
            *(job for job in self.comparison(chosen) if job.arm not in tried),
        ]


def plan_study(loaded: LoadedStudy, options: StudyOptions) -> PlannedStudy:
    """Checks the arms of a study and makes its directory.

    Raises:
        UserError: for all mistakes in all arms; if the directory cannot be written to.
    """
    arms = load_arms(loaded)
    return PlannedStudy(
        loaded, arms, StudyDirectory(options.directory), loaded.plan(options.command)
    )


def missing_commands(study: PlannedStudy, cache_flags: Sequence[str] = ()) -> list[str]:
    """Returns the command line of every job that is not recorded or finished.

    Where learning rates are still to be chosen, only the trials are returned.

    Raises:
        UserError: if the configuration of a job has changed since it was trained.
    """
    runs = study.directory.runs()
    Scheduler(study.directory, starter(())).check(study.known_jobs())
    missing = []
    for job in study.known_jobs():
        record = runs.get(job.name) or study.directory.read(job)
        if record is None or record.outcome == "unfinished":
            missing.append(job.command(study.directory.path, cache_flags))
    return missing


def run_study(
    study: PlannedStudy,
    options: StudyOptions,
    observe: Observer,
    say: Say,
    start: Start | None = None,
) -> list[str]:
    """Trains the jobs of a study that are missing, and measures what the report needs besides.

    Args:
        study: the study.
        options: settings of this process.
        observe: shows the progress.
        say: prints a line.
        start: starts child processes; replaced in tests.

    Returns:
        a line for each job that failed.

    Raises:
        UserError: if the configuration of a job has changed since it was trained.
        Interrupted: after Ctrl-C or SIGTERM, once the running jobs have saved.
    """
    devices = find_devices(options.parallel)
    journal = _Journal(study, observe)
    scheduler = Scheduler(
        study.directory,
        start or starter(devices),
        options.parallel,
        journal.note,
        options.cache_flags,
    )
    _append_plan(study)
    for note in matching_notes(list(study.arms.values()), study.loaded.study.matched_by):
        say(note)
    try:
        scheduler.check(study.known_jobs())
        for jobs in (study.trials, lambda: study.comparison(study.chosen_rates())):
            scheduler.run(jobs())
            if errors := failed(scheduler.progress):
                return errors
        _measure(study, devices, say)
    except Interrupted as error:
        number = error.args[0]
        message = "Stopped; what was running is saved. To go on, run the same command again:"
        raise Interrupted(number, f"{message}\n  {options.command}") from None
    finally:
        journal.note(scheduler.progress)
    return []


def _measure(study: PlannedStudy, devices: Sequence[str], say: Say) -> None:
    """Times the steps and tests the routers for leaks, where that is not recorded.

    An error of these does not end the study, whose runs are done.
    """
    for measure in (_time_steps, _test_leaks):
        try:
            measure(study, devices)
        except UserError as error:
            say(f"not measured: {error}")


def _time_steps(study: PlannedStudy, devices: Sequence[str]) -> None:
    rounds, runs = study.loaded.study.timing_rounds, study.directory.runs()
    first: dict[str, Job] = {}
    for job in study.comparison(study.chosen_rates()):
        if job.role == "comparison" and job.name in runs:
            first.setdefault(job.arm, job)
    fingerprints = {arm: runs[job.name].fingerprint for arm, job in first.items()}
    jobs = list(first.values())
    if not rounds or not are_missing(jobs, fingerprints, study.directory.records()):
        return
    with waiting("timing the steps of the arms in turn") as wait:
        variables = device_variables(devices, 0)
        times = measure_step_times(jobs, fingerprints, rounds, wait.say, variables)
    for record in times:
        study.directory.append(record)


def _test_leaks(study: PlannedStudy, devices: Sequence[str]) -> None:
    del devices  # The model is so small that the host is fastest.
    from moe_jax.compare.leak_test import describe, run_leak_test

    steps = study.loaded.study.leak_test_steps
    records = [r for r in study.directory.records() if isinstance(r, LeakTest)]
    known = {(r.arm, r.router, r.steps) for r in records}
    tested: dict[Router, LeakTest] = {}
    for name, arm in study.arms.items():
        router = arm.experiment.active_router
        if not steps or router is None or (name, describe(router), steps) in known:
            continue
        if router not in tested:
            with waiting(f"random-token test of {describe(router)}"):
                tested[router] = run_leak_test(router, steps, study.loaded.study.rate_seed)
        study.directory.append(dataclasses.replace(tested[router], arm=name))


def _append_plan(study: PlannedStudy) -> None:
    plans = [record for record in study.directory.records() if isinstance(record, StudyPlan)]
    if study.plan not in plans[-1:]:
        study.directory.append(study.plan)


class _Journal:
    """Writes `study.json` whenever the state of a job changes, and shows the progress."""

    def __init__(self, study: PlannedStudy, observe: Observer):
        self._study, self._observe = study, observe
        self._written: dict[str, str] | None = None

    def note(self, progress: Progress) -> None:
        """Observes the progress."""
        self._observe(progress)
        if dict(progress.states) == self._written:
            return
        path, known = self._study.directory.path, self._study.known_jobs()
        entries = {
            job.name: {
                "state": progress.states.get(job.name, "waiting"),
                **study_jobs.as_json(job, path),
                "command": job.command(path),
                **({"error": progress.errors[job.name]} if job.name in progress.errors else {}),
            }
            for job in known
        }
        self._study.directory.write_study(self._study.plan, entries)
        self._written = dict(progress.states)
