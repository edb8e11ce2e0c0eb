"""Trains the jobs of a study in child processes, and records each as it ends."""

import dataclasses
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from etils import epath

from moe_jax.compare.children import Child, Start, last_error
from moe_jax.compare.jobs import Job, check_unchanged
from moe_jax.compare.study_directory import StudyDirectory
from moe_jax.errors import Interrupted, UserError
from moe_jax.run_files import CONFIG_FILE
from moe_jax.training.run_directory.lock_file import LockSnapshot, owner_is_running, read_lock

# `elsewhere`: another process trains it.
State = Literal["waiting", "running", "elsewhere", "finished", "diverged", "failed"]
POLL_SECONDS = 0.2
# Between two looks at jobs that are trained elsewhere.
_LOOK_SECONDS = 5.0
# A lock of another machine whose owner gives no sign of life for this long is stale.
_STALE_SECONDS = 120.0


@dataclasses.dataclass
class Progress:
    """Where the jobs stand; shown while they run.

    Attributes:
        states: state of every job, by name.
        errors: why jobs failed, by name, with the paths of their logs.
        seconds: wall time of each job that this process has finished.
        began: when the running jobs began, by name, seconds of the monotonic clock.
    """

    states: dict[str, State] = dataclasses.field(default_factory=dict)
    errors: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    began: dict[str, float] = dataclasses.field(default_factory=dict)


# Called after each change of a state, and a few times a second.
Observer = Callable[[Progress], None]


class Scheduler:
    """Trains jobs, some at a time, until each is finished, diverged or failed.

    Args:
        study: the directory of the study.
        start: starts a child process.
        parallel: number of jobs at a time.
        observe: shows the progress.
        cache_flags: flags of the compilation cache, passed on to the children.
    """

    def __init__(
        self,
        study: StudyDirectory,
        start: Start,
        parallel: int = 1,
        observe: Observer = lambda progress: None,
        cache_flags: Sequence[str] = (),
    ):
        self._study, self._start, self._parallel = study, start, parallel
        self._observe, self._cache_flags = observe, cache_flags
        self.progress = Progress()
        self._running: dict[int, tuple[Job, Child]] = {}
        self._locks: dict[str, tuple[LockSnapshot, float]] = {}
        self._unreadable: dict[str, str] = {}
        self._looked = 0.0

    def run(self, jobs: Sequence[Job]) -> None:
        """Trains the jobs in their order; those that another process trains are looked at again.

        Raises:
            UserError: if the configuration of a job has changed since it was trained.
            Interrupted: after Ctrl-C or SIGTERM, once the running jobs have saved.
        """
        self.check(jobs)
        self.progress.states |= {job.name: "waiting" for job in jobs}
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            while self._is_open(jobs):
                self._fill_places(jobs)
                self._collect()
                self._observe(self.progress)
                if self._running or self._is_open(jobs):
                    time.sleep(POLL_SECONDS)
        except KeyboardInterrupt as error:
            self._stop()
            number = getattr(error, "number", signal.SIGINT)
            raise Interrupted(int(number), "") from None
        except BaseException:
            self._stop()
            raise
        finally:
            signal.signal(signal.SIGTERM, previous)

    def _is_open(self, jobs: Sequence[Job]) -> bool:
        ended = ("finished", "diverged", "failed")
        return any(self.progress.states[job.name] not in ended for job in jobs)

    def check(self, jobs: Sequence[Job]) -> None:
        """Refuses jobs whose configuration has changed since they were trained.

        Raises:
            UserError: in one line, naming the settings that differ.
        """
        from moe_jax.compare.fingerprints import resolved_settings

        trained: dict[str, Mapping[str, str]] = {}
        for job in jobs:
            config = job.directory(self._study.path) / CONFIG_FILE
            if config.exists():
                trained[job.name] = resolved_settings(config.read_text())
        trained |= {name: record.settings for name, record in self._study.runs().items()}
        check_unchanged(jobs, trained)

    def _fill_places(self, jobs: Sequence[Job]) -> None:
        free = [place for place in range(self._parallel) if place not in self._running]
        states = self.progress.states
        for job in jobs:
            if not free:
                return
            if states[job.name] == "waiting" and self._settle(job):
                self._train(job, free.pop(0))
        elsewhere = [job for job in jobs if states[job.name] == "elsewhere"]
        if not elsewhere or not free or time.monotonic() < self._looked + _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for job in elsewhere:
            if free and self._settle(job):
                self._train(job, free.pop(0))

    def _settle(self, job: Job) -> bool:
        """Sets the state of a job that needs no training here; returns True if it is to be trained.

        A run that is finished but not recorded is recorded.
        """
        record = self._study.runs().get(job.name)
        if record is not None and record.outcome != "unfinished":
            self.progress.states[job.name] = record.outcome
            return False
        directory = job.directory(self._study.path)
        if self._is_locked(directory):
            self.progress.states[job.name] = "elsewhere"
            return False
        return not self._record(job)

    def _record(self, job: Job) -> bool:
        """Records a run that has ended; returns False if it has not."""
        try:
            record = self._study.read(job)
        except UserError as error:
            # Training may still read it, and says why if not.
            self._unreadable[job.name] = str(error)
            return False
        if record is None or record.outcome == "unfinished":
            return False
        self._study.append(record)
        self.progress.states[job.name] = record.outcome
        return True

    def _is_locked(self, directory: epath.Path) -> bool:
        """Returns whether another process trains in a directory."""
        snapshot = read_lock(directory)
        runs = False if snapshot is None else owner_is_running(snapshot, directory)
        if snapshot is None or runs is not None:
            return bool(runs)
        # On another machine: its heartbeats decide.
        before, since = self._locks.get(str(directory), (None, 0.0))
        if snapshot != before:
            self._locks[str(directory)] = (snapshot, time.monotonic())
            return True
        return time.monotonic() < since + _STALE_SECONDS

    def _train(self, job: Job, place: int) -> None:
        command = job.child(self._study.path, self._cache_flags)
        child = self._start(command, self._study.log(job), place)
        self._running[place] = (job, child)
        self.progress.states[job.name] = "running"
        self.progress.began[job.name] = time.monotonic()

    def _collect(self) -> None:
        """Records the jobs whose child has ended."""
        for place, (job, child) in list(self._running.items()):
            if (code := child.poll()) is None:
                continue
            del self._running[place]
            seconds = time.monotonic() - self.progress.began.pop(job.name)
            if self._record(job):
                self.progress.seconds[job.name] = seconds
            elif self._is_locked(job.directory(self._study.path)):
                # Another process was faster.
                self.progress.states[job.name] = "elsewhere"
            else:
                self._fail(job, code, child)

    def _fail(self, job: Job, code: int, child: Child) -> None:
        error = last_error(child.log, child.log_start)
        if code == 0:
            error = self._unreadable.get(job.name, "it ended before its last step")
        self.progress.states[job.name] = "failed"
        self.progress.errors[job.name] = f"{error} (exit code {code}, log: {child.log})"

    def _stop(self) -> None:
        """Asks the children to save, and waits for them; a second Ctrl-C ends them at once."""
        for _, child in self._running.values():
            child.terminate()
        try:
            for _, child in self._running.values():
                while child.poll() is None:
                    time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            for _, child in self._running.values():
                child.terminate()
        for job, _ in self._running.values():
            self.progress.states[job.name] = "waiting"
            if self._study.runs().get(job.name) is None:
                self._record(job)


class _Terminated(KeyboardInterrupt):
    number = signal.SIGTERM


def _interrupt(number: int, frame: object) -> None:
    raise _Terminated


def failed(progress: Progress) -> list[str]:
    """Returns a line for each failed job, with its error and its log."""
    return [f"{name}: {error}" for name, error in progress.errors.items()]
