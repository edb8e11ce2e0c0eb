"""Runs a study: trains what is missing, then times the arms' steps and tests them for leaks."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from moe_jax.compare import jobs as study_jobs
from moe_jax.compare.arms import Arm, load_arms, matching_notes
from moe_jax.compare.children import Start, device_variables, find_devices
from moe_jax.compare.jobs import Job
from moe_jax.compare.leak_test import describe, run_leak_test
from moe_jax.compare.learning_rates import choose_rate
from moe_jax.compare.planned_runs import Say, StudyOptions, measure, training
from moe_jax.compare.records import LeakTest, RunRecord, StudyPlan
from moe_jax.compare.scheduler import Observer, failed
from moe_jax.compare.step_times import are_missing, measure_step_times
from moe_jax.compare.study import LoadedStudy
from moe_jax.compare.study_directory import StudyDirectory
from moe_jax.errors import UserError
from moe_jax.routing.router import Router
from moe_jax.waiting import waiting


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
    # The trials (None), and the runs of the comparison by the learning rates of the arms: making
    # them may load a configuration for each.
    _jobs: dict[Any, list[Job]] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def trials(self) -> list[Job]:
        """Returns the trials of learning rates."""
        if None not in self._jobs:
            self._jobs[None] = study_jobs.rate_jobs(self.loaded.study, self.arms)
        return self._jobs[None]

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
        key = tuple(sorted(chosen.items()))
        if key not in self._jobs:
            study = self.loaded.study
            self._jobs[key] = study_jobs.comparison_jobs(study, self.arms, chosen)
        return self._jobs[key]

    def expected_jobs(self) -> list[Job]:
        """Returns all jobs, with the learning rates that are chosen so far."""
        return [*self.trials(), *self.comparison({})]

    def known_jobs(self) -> list[Job]:
        """Returns the jobs whose configuration is known: of the comparison, those with a rate."""
        return [*self.trials(), *self.known_comparison()]

    def known_comparison(self) -> list[Job]:
        """Returns the runs of the comparison whose learning rate is known, or not to be chosen."""
        chosen = self.chosen_rates()
        unknown = {job.arm for job in self.trials()} - chosen.keys()
        return [job for job in self.comparison(chosen) if job.arm not in unknown]


def plan_study(loaded: LoadedStudy, options: StudyOptions) -> PlannedStudy:
    """Checks the arms of a study and makes its directory.

    Raises:
        UserError: for all mistakes in all arms; if the directory cannot be written to.
    """
    arms = load_arms(loaded)
    return PlannedStudy(
        loaded, arms, StudyDirectory(options.directory), loaded.plan(options.command)
    )


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
    with training(study, options, observe, start) as scheduler:
        for note in matching_notes(list(study.arms.values()), study.loaded.study.matched_by):
            say(note)
        scheduler.check(study.known_jobs())
        scheduler.run(study.trials())
        # Without the arms of which a trial has failed.
        scheduler.run(study.known_comparison())
        _measure(study, find_devices(options.parallel), say)
    return failed(scheduler.progress)


def _measure(study: PlannedStudy, devices: Sequence[str], say: Say) -> None:
    """Times the steps and tests the routers for leaks, where that is not recorded."""
    if not _first_jobs_to_time(study) and not _routers_to_test(study):
        return

    def take() -> None:
        _time_steps(study, devices)
        _test_leaks(study, say)

    # On one machine: times of arms are compared round by round.
    measure(study, "compare", say, take)


def _first_jobs_to_time(study: PlannedStudy) -> list[Job]:
    """Returns a recorded run of each arm; none if all arms are timed, or are not to be."""
    first: dict[str, Job] = {}
    runs = study.directory.runs()
    for job in study.known_comparison():
        if job.role == "comparison" and job.name in runs:
            first.setdefault(job.arm, job)
    jobs = list(first.values())
    is_due = study.loaded.study.timing_rounds > 0
    missing = are_missing(jobs, _fingerprints(study, jobs), study.directory.comparison_records())
    return jobs if is_due and missing else []


def _fingerprints(study: PlannedStudy, jobs: Sequence[Job]) -> dict[str, str]:
    runs = study.directory.runs()
    return {job.arm: runs[job.name].fingerprint for job in jobs}


def _time_steps(study: PlannedStudy, devices: Sequence[str]) -> None:
    if not (jobs := _first_jobs_to_time(study)):
        return
    rounds, variables = study.loaded.study.timing_rounds, device_variables(devices, 0)
    with waiting("timing the steps of the arms in turn") as wait:
        times = measure_step_times(jobs, _fingerprints(study, jobs), rounds, wait.say, variables)
    for record in times:
        study.directory.append(record)


def _routers_to_test(study: PlannedStudy) -> dict[str, Router]:
    """Returns the routers by arm that are not tested yet."""
    steps, records = study.loaded.study.leak_test_steps, study.directory.records()
    known = {(r.arm, r.router, r.steps) for r in records if isinstance(r, LeakTest)}
    routers = {name: arm.experiment.active_router for name, arm in study.arms.items()}
    return {
        name: router
        for name, router in routers.items()
        if steps and router is not None and (name, describe(router), steps) not in known
    }


def _test_leaks(study: PlannedStudy, say: Say) -> None:
    """Tests each distinct router once, on the host: the model is so small."""
    steps, seed = study.loaded.study.leak_test_steps, study.loaded.study.rate_seed
    tested: dict[Router, LeakTest | None] = {}
    for name, router in _routers_to_test(study).items():
        if router not in tested:
            try:
                with waiting(f"random-token test of {describe(router)}"):
                    tested[router] = run_leak_test(router, steps, seed)
            except UserError as error:
                tested[router] = None
                say(f"not measured: {error}")
        if (result := tested[router]) is not None:
            study.directory.append(dataclasses.replace(result, arm=name))
