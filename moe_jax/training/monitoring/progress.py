"""What a person sees while training runs."""

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

# What is no step, in words.
_DOING = {
    "compile": "compiling the step",
    "evaluation": "evaluating",
    "checkpoint": "saving",
    "curriculum": "ordering the epoch",
    "data": "waiting for data",
}
# A log has a line at least as often.
_MOST_SECONDS = 60.0


class Reporter(Protocol):
    """Shows how far training is."""

    def start(self, step: int, steps: int) -> None:
        """Begins at `step` of `steps`."""

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Shows the state after `step`."""

    def doing(self, what: str) -> AbstractContextManager[object]:
        """Shows inside what is done, if it is no step and takes a while."""

    def message(self, text: str) -> None:
        """Shows a line that stays."""

    def stop(self) -> None:
        """Ends the display."""


def clock(seconds: float) -> str:
    """Returns seconds as m:ss or h:mm:ss."""
    seconds = max(int(seconds), 0)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours}:{minutes:02d}:{seconds % 60:02d}"
    return f"{minutes}:{seconds % 60:02d}"


def speed(tokens_per_second: float) -> str:
    """Returns a speed in tokens that are no padding; 0 is not known yet."""
    return f"{decimal(tokens_per_second, 0)} tokens/s" if tokens_per_second else "- tokens/s"


class _TimeLeft:
    """Estimates the time left from the pace since the first finished step (it compiles)."""

    def __init__(self, step: int, steps: int):
        self._step, self._steps = step, steps
        self._first: tuple[int, float] | None = None

    def update(self, step: int) -> str:
        now = time.monotonic()
        if self._first is None or step <= self._first[0]:
            self._first = (step, now)
            return "-:--"
        pace = (now - self._first[1]) / (step - self._first[0])
        return clock(pace * (self._steps - step))


class _Fields(ProgressColumn):
    """Loss, tokens per second and time left."""

    def render(self, task: Task) -> Text:
        f = task.fields
        if f.get("doing"):
            return Text(f"{f['doing']} ...", style="dim")
        if "loss" not in f:
            return Text("")
        return Text(f"loss {f['loss']:.3f}  {speed(f['rate'])}  {f['left']} left")


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
        """Begins at `step` of `steps`."""
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
    def doing(self, what: str) -> Iterator[None]:
        """Says in the bar what is done."""
        self._progress.update(self._task, doing=_DOING.get(what, what))
        try:
            yield
        finally:
            self._progress.update(self._task, doing="")

    def message(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        """Leaves the bar as it is."""
        self._progress.stop()


class LineReporter:
    """The same for logs: the first step, every 5% of the steps, and at least every minute.

    Args:
        console: to print to.
        lines: of a whole run, at least.
        now: seconds that only grow.
    """

    def __init__(
        self, console: Console, lines: int = 20, now: Callable[[], float] = time.monotonic
    ):
        self._console, self._lines, self._now = console, lines, now
        self._shown = -math.inf

    def start(self, step: int, steps: int) -> None:
        """Begins at `step` of `steps`."""
        self._steps, self._left = steps, _TimeLeft(step, steps)
        self._every = max(steps // self._lines, 1)

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Prints a line if it is time."""
        left = self._left.update(step)
        is_late = self._now() >= self._shown + _MOST_SECONDS
        if step % self._every == 0 or step == self._steps or is_late:
            self._shown = self._now()
            self.message(
                f"step {step}/{self._steps}  loss {loss:.3f}  {speed(tokens_per_second)}  "
                f"{left} left"
            )

    def doing(self, what: str) -> AbstractContextManager[object]:
        """Says on standard error what is done, every few seconds."""
        return waiting(_DOING.get(what, what))

    def message(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Nothing to end."""


class SilentReporter:
    """Shows nothing, for all processes but the first."""

    def start(self, step: int, steps: int) -> None:
        """Shows nothing."""

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Shows nothing."""

    def doing(self, what: str) -> AbstractContextManager[object]:
        """Shows nothing."""
        return contextlib.nullcontext()

    def message(self, text: str) -> None:
        """Shows nothing."""

    def stop(self) -> None:
        """Has nothing to end."""


def make_reporter(console: Console | None = None) -> Reporter:
    """Returns a bar on a terminal, lines elsewhere, nothing for a quiet console."""
    console = console or Console(file=sys.stdout)
    if console.quiet:
        return SilentReporter()
    return BarReporter(console) if console.is_terminal else LineReporter(console)
