"""A training process: its output and its end."""

import dataclasses
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from forked import Forked
from on_disk import losses

# No run takes longer on a busy machine; one that does is killed and fails its test.
PATIENCE = 600.0


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes:
        directory: its run directory.
        code: its exit code; negative for a signal that it did not handle.
        out: what it printed.
        err: what it printed to standard error.
    """

    directory: Path
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The line that says what happened: the last error, or the news among the output."""
        errors = self.err.strip().splitlines()
        said = [line for line in errors if line.startswith("moe-jax:")]
        words = "Stopped and saved|damaged|skipped"
        news = [line for line in self.out.splitlines() if re.search(words, line)]
        return next(filter(None, [*said[-1:], " ".join(news), *errors[-1:], "-"]))

    @property
    def went_on_from(self) -> int | None:
        """The step that it started from, None for a run from the beginning."""
        found = re.findall(r"oing on from (?:step )?(\d+)", self.out + self.err)
        return int(found[-1]) if found else None


class Running:
    """A running process."""

    def __init__(self, directory: Path, process: Forked):
        self.directory = directory
        self.process = process
        self._deadline = time.monotonic() + PATIENCE

    def wait_for(self, condition: Callable[[], bool], pause: float = 0.02) -> None:
        """Waits until a condition holds.

        Raises:
            AssertionError: if the process ends before, or it takes too long.
        """
        while not condition():
            if self.process.poll() is not None or time.monotonic() > self._deadline:
                raise AssertionError(f"it did not come so far: {self.end()}")
            time.sleep(pause)

    def wait_for_step(self, step: int) -> None:
        """Waits until the record has a step."""
        self.wait_for(lambda: max(losses(self.directory), default=0) >= step)

    def end(self) -> Ended:
        """Waits until it ends by itself; when that takes too long, its stacks are printed."""
        for number in (signal.SIGABRT, signal.SIGKILL):
            try:
                self.process.wait(max(self._deadline - time.monotonic(), 5))
                break
            except subprocess.TimeoutExpired:
                self.process.send_signal(number)
        code = self.process.wait()
        out, err = self.process.out.read_text(), self.process.err.read_text()
        # What is said of the module that faults come from.
        said = [line for line in err.splitlines(True) if "imported faults_inside" not in line]
        return Ended(self.directory, code, out, "".join(said))

    def signal(self, number: int) -> Ended:
        """Sends a signal and waits for the end."""
        self.process.send_signal(number)
        return self.end()
