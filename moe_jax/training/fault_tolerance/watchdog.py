"""Ends a process that makes no progress, with the reason on disk.

A hang is worse than a crash: a collective that waits for a dead host, a file system that does not
answer or a reader that waits for itself holds a pod for as long as nobody looks. The watchdog
writes where every thread is and ends the process with the exit code for a passing failure
(EX_TEMPFAIL), on which launchers start it again; training then goes on from the last checkpoint.
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
from moe_jax.settings import Range, Settings, rule

EXIT_CODE = os.EX_TEMPFAIL
# How long the report may take: the disk it goes to may be what hangs.
_REPORT_SECONDS, _MOST_SECONDS_BETWEEN_LOOKS = 10.0, 5.0
# The file descriptor: sys.stderr has none in a notebook.
_STANDARD_ERROR = 2


@dataclasses.dataclass(frozen=True)
class WatchdogConfig(Settings, called="Watchdog"):
    """When a process is taken for hung.

    Attributes:
        timeout: seconds without a step; 0 turns the watchdog off.
        pause_timeout: seconds that an evaluation, a compilation or a save may take.
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


class Watchdog:
    """Watches that `beat` is called, from a thread of its own. Use as a context manager.

    Args:
        timeout_seconds: the longest time between beats; 0 turns it off.
        directory: where the stacks go, to `hang-PROCESS-TIME.txt`.
        exit_code: what the process ends with.
        pause_seconds: the longest time in `paused`; four times the timeout by default.
        process: number of this process, for the name of the file.
        last_saved: returns the step of the last checkpoint.
        clock: seconds that only grow.
        leave: ends the process; does not return.
    """

    def __init__(
        self,
        timeout_seconds: float,
        directory: os.PathLike[str] | str,
        exit_code: int = EXIT_CODE,
        *,
        pause_seconds: float | None = None,
        process: int = 0,
        last_saved: Callable[[], int | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        leave: Callable[[int], None] = os._exit,
    ):
        self._timeout, self._directory, self._exit_code = timeout_seconds, directory, exit_code
        self._pause = 4 * timeout_seconds if pause_seconds is None else pause_seconds
        self._process, self._last_saved = process, last_saved
        self._clock, self._leave = clock, leave
        self._last = clock()
        # What is done instead of steps; the innermost is last.
        self._doing: list[str] = []
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Watchdog":
        if self._timeout > 0:
            self.beat()
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def beat(self) -> None:
        """Says that there is progress."""
        self._last = self._clock()

    @contextlib.contextmanager
    def paused(self, doing: str) -> Iterator[None]:
        """Allows the longer time inside; may be nested.

        Args:
            doing: what is done instead of steps, such as `evaluation`, for the message.
        """
        self._doing.append(doing)
        self.beat()
        try:
            yield
        finally:
            self._doing.pop()
            self.beat()

    def check(self) -> None:
        """Ends the process if the time is over."""
        doing = next(iter(self._doing[-1:]), None)
        limit = self._timeout if doing is None else max(self._pause, self._timeout)
        waited = self._clock() - self._last
        if self._timeout > 0 and waited > limit:
            self._report(doing, waited)
            self._leave(self._exit_code)

    def _watch(self) -> None:
        pause = min(self._timeout / 4, _MOST_SECONDS_BETWEEN_LOOKS)
        while not self._over.wait(pause):
            # This thread cannot run while another holds Python's lock: this timer can.
            limit = max(self._pause, self._timeout, 60.0)
            faulthandler.dump_traceback_later(limit, exit=True, file=_STANDARD_ERROR)
            self.check()

    def _report(self, doing: str | None, waited: float) -> None:
        """Writes the stacks to a file and to standard error, then one line about it."""
        stacks = _stacks()
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        path = epath.Path(self._directory) / f"hang-{self._process}-{now}.txt"
        found: list[str] = []

        def write() -> None:
            # The two may hang or fail like the run itself: each says how far it came.
            if self._last_saved is not None:
                step = self._last_saved()
                named = "none yet" if step is None else f"step {step}"
                found.append(f"; the last checkpoint is {named}")
            path.write_text(stacks)
            found.append(f"; the stacks of its threads are in {path}")

        writing = threading.Thread(target=_quietly, args=(write,), daemon=True)
        writing.start()
        writing.join(_REPORT_SECONDS)
        what = "finished no step" if doing is None else f"been in one {doing}"
        line = (
            f"moe-jax: process {self._process} ({socket.gethostname()}) has {what} for "
            f"{waited:,.0f} s and is taken for hung{''.join(found)}; ending with exit code "
            f"{self._exit_code}: run the same command again"
        )
        with contextlib.suppress(OSError, ValueError):
            print(f"{stacks}\n{line}", file=sys.stderr, flush=True)


def _stacks() -> str:
    """Returns where all threads are."""
    # faulthandler writes to a file descriptor only.
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().decode(errors="replace")


def _quietly(function: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):
        function()
