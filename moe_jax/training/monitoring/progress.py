"""Show the progress of training on a terminal or in a log."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from moe_jax.formatting import decimal
from moe_jax.waiting import waiting

# Displayed names of the activities other than steps.
_ACTIVITIES = {
    "compile": "compiling the step",
    "evaluation": "evaluating",
    "checkpoint": "saving",
    "curriculum": "ordering the epoch",
    "data": "waiting for data",
}
# The longest time between two lines of a log, in seconds.
_MAX_SECONDS = 60.0


class Reporter(Protocol):
    """Displays the progress of training."""

    def start(self, step: int, steps: int) -> None:
        """Starts the display at `step` of `steps`."""

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Displays loss and throughput after `step`."""

    def activity(self, name: str) -> AbstractContextManager[object]:
        """Displays an activity other than steps while the context is active."""

    def message(self, text: str) -> None:
        """Prints a line that stays."""

    def stop(self) -> None:
        """Ends the display."""


def format_duration(seconds: float) -> str:
    """Formats seconds as m:ss or h:mm:ss."""
    seconds = max(int(seconds), 0)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours}:{minutes:02d}:{seconds % 60:02d}"
    return f"{minutes}:{seconds % 60:02d}"


def format_throughput(tokens_per_second: float) -> str:
    """Formats a throughput in tokens without padding; 0 means not known yet."""
    return f"{decimal(tokens_per_second, 0)} tokens/s" if tokens_per_second else "- tokens/s"


class _TimeLeft:
    """Estimates the remaining time from the mean time of the steps after the first."""

    def __init__(self, step: int, steps: int):
        self._step, self._steps = step, steps
        self._first: tuple[int, float] | None = None

    def update(self, step: int) -> str:
        now = time.monotonic()
        if self._first is None or step <= self._first[0]:
            self._first = (step, now)
            return "-:--"
        seconds_per_step = (now - self._first[1]) / (step - self._first[0])
        return format_duration(seconds_per_step * (self._steps - step))


class _Fields(ProgressColumn):
    """Loss, tokens per second and remaining time."""

    def render(self, task: Task) -> Text:
        f = task.fields
        if f.get("activity"):
            return Text(f"{f['activity']} ...", style="dim")
        if "loss" not in f:
            return Text("")
        return Text(f"loss {f['loss']:.3f}  {format_throughput(f['rate'])}  {f['left']} left")


class BarReporter:
    """A progress bar for terminals."""

    def __init__(self, console: Console):
        self._console = console
        self._progress = Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            _Fields(),
            console=console,
            expand=True,
        )

    def start(self, step: int, steps: int) -> None:
        """Starts the display at `step` of `steps`."""
        self._left = _TimeLeft(step, steps)
        self._task = self._progress.add_task("train", total=steps, completed=step)
        self._progress.start()

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Moves the bar."""
        left = self._left.update(step)
        self._progress.update(
            self._task, completed=step, loss=loss, rate=tokens_per_second, left=left
        )

    @contextlib.contextmanager
    def activity(self, name: str) -> Iterator[None]:
        """Displays the activity in the bar."""
        self._progress.update(self._task, activity=_ACTIVITIES.get(name, name))
        try:
            yield
        finally:
            self._progress.update(self._task, activity="")

    def message(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        """Leaves the bar as it is."""
        self._progress.stop()


class LineReporter:
    """Prints lines to a log: at the first step, every 5% of the steps, and at least every minute.

    Args:
        console: the console to print to.
        lines: the least number of lines for a whole run.
        now: a monotonic clock, in seconds.
    """

    def __init__(
        self, console: Console, lines: int = 20, now: Callable[[], float] = time.monotonic
    ):
        self._console, self._lines, self._now = console, lines, now
        self._shown = -math.inf

    def start(self, step: int, steps: int) -> None:
        """Starts the display at `step` of `steps`."""
        self._steps, self._left = steps, _TimeLeft(step, steps)
        self._every = max(steps // self._lines, 1)

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Prints a line if one is due."""
        left = self._left.update(step)
        is_late = self._now() >= self._shown + _MAX_SECONDS
        if step % self._every == 0 or step == self._steps or is_late:
            self._shown = self._now()
            throughput = format_throughput(tokens_per_second)
            self.message(f"step {step}/{self._steps}  loss {loss:.3f}  {throughput}  {left} left")

    def activity(self, name: str) -> AbstractContextManager[object]:
        """Prints the activity to standard error every few seconds."""
        return waiting(_ACTIVITIES.get(name, name))

    def message(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Does nothing."""


class SilentReporter:
    """Displays nothing; for all processes but the main one."""

    def start(self, step: int, steps: int) -> None:
        """Does nothing."""

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Does nothing."""

    def activity(self, name: str) -> AbstractContextManager[object]:
        """Does nothing."""
        return contextlib.nullcontext()

    def message(self, text: str) -> None:
        """Does nothing."""

    def stop(self) -> None:
        """Does nothing."""


def make_reporter(console: Console | None = None) -> Reporter:
    """Returns a progress bar for a terminal, lines for a log, nothing for a quiet console."""
    console = console or Console(file=sys.stdout)
    if console.quiet:
        return SilentReporter()
    return BarReporter(console) if console.is_terminal else LineReporter(console)
