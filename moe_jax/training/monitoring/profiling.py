"""Record profiler traces of training steps to RUN/traces, for XProf or TensorBoard.

The steps are either configured beforehand or requested while a run trains: `echo 5 > RUN/profile`
traces the next five. Only the main process traces, and a trace covers its own host's devices.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from moe_jax.sharding.processes import is_main
from moe_jax.training.error_message import one_line

TRACES = "traces"
REQUEST_FILE = "profile"
DEFAULT_STEPS = 3
# Traces of more steps are too large to be opened.
MAX_STEPS = 100
# Seconds between checks for the request file: on a local disk, and on an object store.
_LOCAL_SECONDS, _REMOTE_SECONDS = 1.0, 30.0


class Profiler:
    """Traces steps. A failure is reported as a warning and ends the trace, never the run."""

    def __init__(
        self,
        directory: epath.Path,
        start: int | None = None,
        steps: int = DEFAULT_STEPS,
        *,
        warn: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Creates a profiler; nothing is traced yet.

        Args:
            directory: the run directory.
            start: the first step to trace, counted from 1; None to wait for a request file.
            steps: number of steps to trace.
            warn: called with a message about a failure, or about where a trace was written.
            clock: a monotonic clock, in seconds.
        """
        self._traces, self._request = directory / TRACES, directory / REQUEST_FILE
        self._start, self._steps = start, steps
        self._warn, self._clock = warn, clock
        self._active = is_main()
        self._last: int | None = None
        self._annotation: Any = None
        self._check_seconds = _REMOTE_SECONDS if "://" in str(directory) else _LOCAL_SECONDS
        self._last_check = -float("inf")

    def before(self, step: int) -> None:
        """Starts a trace if one is due.

        Args:
            step: the step about to run, counted from 1.
        """
        if not self._active:
            return
        if self._last is None and (steps := self._steps_to_trace(step)):
            self._guarded("start", self._begin, step + steps - 1)
        if self._last is not None:
            self._annotation = jax.profiler.StepTraceAnnotation("train", step_num=step)
            self._annotation.__enter__()

    def after(self, step: int, wait_for: Any = None) -> None:
        """Ends the trace after its last step.

        Args:
            step: the step that has just been started.
            wait_for: arrays computed by that step; the end of a trace waits for them.
        """
        self._end_step()
        if self._last is not None and step >= self._last:
            self._guarded("finish", self._end, wait_for)

    def close(self) -> None:
        """Ends a trace in progress, at the end of training or on an interrupt."""
        self._end_step()
        if self._last is not None:
            self._guarded("finish", self._end, None)

    def _steps_to_trace(self, step: int) -> int:
        """Returns the number of steps to trace from this step on, 0 for none."""
        start = self._start
        # A resumed run may start in the middle of the steps to trace.
        if start is not None and start <= step < start + self._steps:
            self._start = None
            return start + self._steps - step
        if self._clock() - self._last_check < self._check_seconds:
            return 0
        self._last_check = self._clock()
        return int(self._guarded("be asked for", self._read_request) or 0)

    def _read_request(self) -> int:
        """Reads and removes the request file; if it cannot be removed, nothing is traced."""
        if not self._request.exists():
            return 0
        text = self._request.read_text().strip()
        self._request.unlink()
        if text and not (text.isdecimal() and 0 < int(text) <= MAX_STEPS):
            self._report(
                f"{self._request} must hold a number of steps from 1 to {MAX_STEPS}, not "
                f"{text[:20]!r}: {DEFAULT_STEPS} are traced"
            )
            text = ""
        return int(text or DEFAULT_STEPS)

    def _begin(self, last: int) -> None:
        jax.profiler.start_trace(str(self._traces))
        self._last = last

    def _end(self, wait_for: Any) -> None:
        self._last = None
        try:
            jax.block_until_ready(wait_for)
        finally:
            jax.profiler.stop_trace()
        self._report(f"a trace is in {self._traces}")

    def _end_step(self) -> None:
        annotation, self._annotation = self._annotation, None
        if annotation is not None:
            annotation.__exit__(None, None, None)

    def _guarded(self, what: str, act: Callable[..., Any], *args: Any) -> Any:
        try:
            return act(*args)
        except Exception as error:
            self._report(f"a trace could not {what}: {one_line(error)}")
            return None

    def _report(self, message: str) -> None:
        if self._warn is not None:
            self._warn(message)
