"""Traces of some steps, for XProf or TensorBoard's profile tab: RUN/traces.

Either of steps that are given beforehand, or while a run goes: `echo 5 > RUN/profile` traces the
next five. Only the first process traces; it sees its own host's devices.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from moe_jax.sharding.processes import is_main

TRACES = "traces"
REQUEST_FILE = "profile"
DEFAULT_STEPS = 3
# A trace of more steps grows too large to be opened.
MOST_STEPS = 100
# Seconds between looks for the file: here, and on an object store.
_LOCAL_SECONDS, _REMOTE_SECONDS = 1.0, 30.0


class Profiler:
    """Traces steps; what fails is a warning and the end of that trace, never an error."""

    def __init__(
        self,
        directory: epath.Path,
        start: int | None = None,
        steps: int = DEFAULT_STEPS,
        *,
        warn: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Traces nothing yet.

        Args:
            directory: the run directory.
            start: the first step to trace, counted from 1; None to wait for the file.
            steps: how many to trace.
            warn: told what failed, and where a trace is.
            clock: seconds, never going back.
        """
        self._traces, self._request = directory / TRACES, directory / REQUEST_FILE
        self._start, self._steps = start, steps
        self._warn, self._clock = warn, clock
        self._active = is_main()
        self._last: int | None = None
        self._annotation: Any = None
        self._every = _REMOTE_SECONDS if "://" in str(directory) else _LOCAL_SECONDS
        self._looked = -float("inf")

    def before(self, step: int) -> None:
        """Starts a trace if it is time.

        Args:
            step: the step about to run, counted from 1.
        """
        if not self._active:
            return
        if self._last is None and (steps := self._wanted(step)):
            self._guarded("start", self._begin, step + steps - 1)
        if self._last is not None:
            self._annotation = jax.profiler.StepTraceAnnotation("train", step_num=step)
            self._annotation.__enter__()

    def after(self, step: int, wait_for: Any = None) -> None:
        """Ends the trace after its last step.

        Args:
            step: the step that has just been started.
            wait_for: arrays of that step; at the last step of a trace they are waited for.
        """
        self._leave()
        if self._last is not None and step >= self._last:
            self._guarded("finish", self._end, wait_for)

    def close(self) -> None:
        """Ends a trace that is under way, at the end of training or at an interrupt."""
        self._leave()
        if self._last is not None:
            self._guarded("finish", self._end, None)

    def _wanted(self, step: int) -> int:
        """Returns how many steps to trace from this one."""
        start = self._start
        # A run that goes on may begin in the middle of the steps to trace.
        if start is not None and start <= step < start + self._steps:
            self._start = None
            return start + self._steps - step
        if self._clock() - self._looked < self._every:
            return 0
        self._looked = self._clock()
        return int(self._guarded("be asked for", self._requested) or 0)

    def _requested(self) -> int:
        """Reads and removes the file; if it cannot be removed, there is no trace."""
        if not self._request.exists():
            return 0
        text = self._request.read_text().strip()
        self._request.unlink()
        if text and not (text.isdecimal() and 0 < int(text) <= MOST_STEPS):
            self._say(
                f"{self._request} must hold a number of steps from 1 to {MOST_STEPS}, not "
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
        self._say(f"a trace is in {self._traces}")

    def _leave(self) -> None:
        annotation, self._annotation = self._annotation, None
        if annotation is not None:
            annotation.__exit__(None, None, None)

    def _guarded(self, what: str, act: Callable[..., Any], *args: Any) -> Any:
        try:
            return act(*args)
        except Exception as error:
            self._say(f"a trace could not {what}: {' '.join(str(error).split())[:300]}")
            return None

    def _say(self, message: str) -> None:
        if self._warn is not None:
            self._warn(message)
