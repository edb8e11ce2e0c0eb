"""What a person sees while training runs."""

import sys
import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from moe_jax.formatting import decimal


class Reporter(Protocol):
    """Shows how far training is."""

    def start(self, step: int, steps: int) -> None:
        """Begins at `step` of `steps`."""

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Shows the state after `step`."""

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
        if "loss" not in f:
            return Text("compiling the step ...", style="dim")
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

    def message(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        """Leaves the bar as it is."""
        self._progress.stop()


class LineReporter:
    """The same for logs: a line every 5% of the steps."""

    def __init__(self, console: Console, lines: int = 20):
        self._console, self._lines = console, lines

    def start(self, step: int, steps: int) -> None:
        """Begins at `step` of `steps`."""
        self._steps, self._left = steps, _TimeLeft(step, steps)
        self._every = max(steps // self._lines, 1)

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Prints a line if it is time."""
        left = self._left.update(step)
        if step % self._every == 0 or step == self._steps:
            self.message(
                f"step {step}/{self._steps}  loss {loss:.3f}  {speed(tokens_per_second)}  "
                f"{left} left"
            )

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
