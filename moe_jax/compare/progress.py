"""Shows the progress of a study: a bar over its jobs on a terminal, lines elsewhere."""

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from etils import epath
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from moe_jax.compare import scheduler
from moe_jax.compare.jobs import Job
from moe_jax.training.monitoring.goodput_recorder import TIME_FILE
from moe_jax.training.monitoring.progress import format_duration
from moe_jax.training.run_directory.atomic_file import is_remote

_TAIL_BYTES = 4096
# Between two reads of the running jobs' steps, and between two lines of a log.
_READ_SECONDS, _LINE_SECONDS = 1.0, 60.0
_ENDED = ("finished", "diverged", "failed")


class StudyProgress:
    """Shows the states of jobs; a context manager.

    Args:
        console: the console to print to.
        jobs: all jobs of the study; those whose learning rate is not chosen yet included.
        directory: the directory of the study.
        parallel: number of jobs at a time.
        now: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        console: Console,
        jobs: Sequence[Job],
        directory: epath.Path,
        parallel: int = 1,
        now: Callable[[], float] = time.monotonic,
    ):
        self._console, self._directory, self._parallel = console, directory, parallel
        self._jobs = {job.name: job for job in jobs}
        self._now, self._read, self._line = now, -math.inf, now()
        self._states: dict[str, scheduler.State] = {}
        self._bar: Progress | None = None

    def __enter__(self) -> "StudyProgress":
        if self._console.is_terminal:
            columns = ["{task.completed:.0f}/{task.total} runs", "{task.fields[what]}"]
            before, after = map(TextColumn, columns)
            self._bar = Progress(before, BarColumn(), after, console=self._console)
            self._task = self._bar.add_task("study", total=len(self._jobs), what="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: scheduler.Progress) -> None:
        """Shows the present states; a job that ends gets a line of its own."""
        for name, state in progress.states.items():
            if state != self._states.get(name) and (state in _ENDED or state == "elsewhere"):
                self._say_ended(name, state, progress)
        changed = self._states != progress.states
        self._states = dict(progress.states)
        now = self._now()
        if now < self._read + _READ_SECONDS and not changed:
            return
        self._read = now
        shares = {name: self._share(name) for name, s in self._states.items() if s == "running"}
        text = self._describe(progress, shares)
        if self._bar is not None:
            done = sum(state in _ENDED for state in self._states.values())
            total = max(len(self._jobs), len(self._states))
            completed = done + sum(share or 0.0 for share in shares.values())
            self._bar.update(self._task, completed=completed, total=total, what=text)
        elif text and (now >= self._line + _LINE_SECONDS):
            self._line = now
            self.say(f"  {text}")

    def say(self, line: str) -> None:
        """Prints a line, above the bar if there is one."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _say_ended(self, name: str, state: str, progress: scheduler.Progress) -> None:
        seconds = progress.seconds.get(name)
        if name not in self._states and state in ("finished", "diverged") and seconds is None:
            # It was recorded before; a line for each would hide what is new.
            return
        words = {"elsewhere": "is trained by another process"}.get(state, state)
        took = "" if seconds is None else f" in {format_duration(seconds)}"
        error = f": {progress.errors[name]}" if name in progress.errors else ""
        number = sum(s in _ENDED for s in progress.states.values())
        total = max(len(self._jobs), len(progress.states))
        self.say(f"{number}/{total} {name} {words}{took}{error}")

    def _share(self, name: str) -> float | None:
        """Returns the share of a running job's steps that are done; None if unknown."""
        job = self._jobs.get(name)
        if job is None:
            return None
        step = last_step(job.directory(self._directory))
        return None if step is None else min(step / job.steps, 1.0)

    def _describe(self, progress: scheduler.Progress, shares: Mapping[str, float | None]) -> str:
        parts = [
            f"{name} starting" if share is None else f"{name} {share:.0%}"
            for name, share in shares.items()
        ]
        if parts and (left := self._left(progress, shares)) is not None:
            parts.append(f"{format_duration(left)} left")
        return ", ".join(parts)

    def _left(
        self, progress: scheduler.Progress, shares: Mapping[str, float | None]
    ) -> float | None:
        """Estimates the seconds until all jobs have ended; None before anything is known."""
        now = self._now()
        known = list(progress.seconds.values())
        if not known:
            known = [
                (now - progress.began[name]) / share
                for name, share in shares.items()
                if share is not None and share > 0.05 and name in progress.began
            ]
        if not known:
            return None
        ended = sum(state in _ENDED for state in progress.states.values())
        total = max(len(self._jobs), len(progress.states))
        runs = total - ended - sum(share or 0.0 for share in shares.values())
        return statistics.mean(known) * runs / self._parallel


def last_step(directory: epath.Path) -> int | None:
    """Returns the last step on record of a run, without reading the whole of its records.

    Returns:
        None if there is no record yet, or the directory is remote.
    """
    path = directory / TIME_FILE
    if is_remote(path):
        return None
    try:
        with open(Path(str(path)), "rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - _TAIL_BYTES, 0))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue
    return None
