"""End a process that hangs, after writing the stacks of its threads.

A hang is worse than a crash: a collective that waits for a dead host, a file system that does not
respond or a deadlocked reader occupies a pod until somebody notices. The watchdog writes the stack
of every thread and ends the process with the exit code of a temporary failure (EX_TEMPFAIL), on
which launchers restart it; training then resumes from the last checkpoint.
"""

import contextlib
import dataclasses
import datetime
import faulthandler
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Annotated

from etils import epath

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.settings import Range, Settings, rule

EXIT_CODE = os.EX_TEMPFAIL
# Time limit of the report: the disk that it is written to may be what hangs.
_REPORT_SECONDS = 10.0
_MAX_SECONDS_BETWEEN_CHECKS = 5.0
# The file descriptor of standard error: in a notebook sys.stderr has none.
_STANDARD_ERROR = 2


@configurable
@dataclasses.dataclass(frozen=True)
class WatchdogConfig(Settings, called="Watchdog"):
    """Time limits after which a process counts as hung.

    Attributes:
        timeout: longest time between two steps in seconds; 0 turns the watchdog off.
        pause_timeout: longest time of an evaluation, a compilation or a save in seconds.
    """

    timeout: Annotated[float, Range(least=0, zero="off"), "seconds"] = 1800.0
    pause_timeout: Annotated[float, Range(least=0), "seconds"] = 7200.0

    @staticmethod
    @rule
    def _steps_fit(timeout: float) -> None:
        if 0 < timeout < 1:
            raise UserError(
                f"Watchdog.timeout = {timeout} s would take any step for a hang: set it to several "
                "times the seconds of a step, or to 0 to turn the watchdog off"
            )

    @staticmethod
    @rule
    def _pauses_are_longer(timeout: float, pause_timeout: float) -> None:
        if timeout and pause_timeout < timeout:
            raise UserError(
                f"Watchdog.pause_timeout = {pause_timeout} must be Watchdog.timeout = "
                f"{timeout} or more"
            )


class HangReport:
    """Writes the report about a process that hangs.

    Args:
        directory: the run directory; the stacks are written to `hang-PROCESS-TIME.txt` in it.
        process: index of this process, for the name of the file.
        last_saved: returns the step of the last checkpoint.
    """

    def __init__(
        self,
        directory: os.PathLike[str] | str,
        process: int = 0,
        last_saved: Callable[[], int | None] | None = None,
    ):
        self._directory, self._process, self._last_saved = directory, process, last_saved

    def write(self, activity: str | None, waited: float) -> None:
        """Writes the stacks to a file and to standard error, then one line about them.

        Args:
            activity: the activity that hangs; None for steps.
            waited: seconds without progress.
        """
        stacks = _stacks()
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        path = epath.Path(self._directory) / f"hang-{self._process}-{now}.txt"
        found: list[str] = []

        def write() -> None:
            # Either may hang or fail like the run itself: `found` has what was completed.
            if self._last_saved is not None:
                step = self._last_saved()
                named = "none yet" if step is None else f"step {step}"
                found.append(f"; the last checkpoint is {named}")
            path.write_text(stacks)
            found.append(f"; the stacks of its threads are in {path}")

        writing = threading.Thread(target=_quietly, args=(write,), daemon=True)
        writing.start()
        writing.join(_REPORT_SECONDS)
        what = "finished no step" if activity is None else f"been in one {activity}"
        line = (
            f"moe-jax: process {self._process} ({socket.gethostname()}) has {what} for "
            f"{waited:,.0f} s and is taken for hung{''.join(found)}; ending with exit code "
            f"{EXIT_CODE}: run the same command again"
        )
        with contextlib.suppress(OSError, ValueError):
            print(f"{stacks}\n{line}", file=sys.stderr, flush=True)


class Watchdog:
    """A context manager whose thread ends the process if `beat` is not called in time.

    Args:
        timeout_seconds: the longest time between beats; 0 turns the watchdog off.
        report: writes the report before the process ends.
        pause_seconds: the longest time inside `paused`; four times the timeout by default.
        clock: a monotonic clock, in seconds.
        exit_process: ends the process with an exit code; does not return.
    """

    def __init__(
        self,
        timeout_seconds: float,
        report: HangReport,
        *,
        pause_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        exit_process: Callable[[int], None] = os._exit,
    ):
        self._timeout, self._report = timeout_seconds, report
        self._pause = 4 * timeout_seconds if pause_seconds is None else pause_seconds
        self._clock, self._exit_process = clock, exit_process
        self._last = clock()
        # Activities other than steps, the innermost last.
        self._activities: list[str] = []
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Watchdog":
        if self._timeout > 0:
            self.beat()
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def beat(self) -> None:
        """Reports progress."""
        self._last = self._clock()

    @contextlib.contextmanager
    def paused(self, activity: str) -> Iterator[None]:
        """Allows the longer time inside the context; may be nested.

        Args:
            activity: name of the activity, such as `evaluation`, for the report.
        """
        self._activities.append(activity)
        self.beat()
        try:
            yield
        finally:
            self._activities.pop()
            self.beat()

    def check(self) -> None:
        """Ends the process if the time limit is exceeded."""
        activity = next(iter(self._activities[-1:]), None)
        limit = self._timeout if activity is None else max(self._pause, self._timeout)
        waited = self._clock() - self._last
        if self._timeout > 0 and waited > limit:
            self._report.write(activity, waited)
            self._exit_process(EXIT_CODE)

    def _watch(self) -> None:
        pause = min(self._timeout / 4, _MAX_SECONDS_BETWEEN_CHECKS)
        while not self._stopped.wait(pause):
            # The timer also fires while another thread holds the GIL, when this one cannot run.
            limit = max(self._pause, self._timeout, 60.0)
            faulthandler.dump_traceback_later(limit, exit=True, file=_STANDARD_ERROR)
            self.check()


def _stacks() -> str:
    """Returns the stacks of all threads."""
    # faulthandler writes to file descriptors only.
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().decode(errors="replace")


def _quietly(function: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):
        function()
