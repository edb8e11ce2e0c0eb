"""Record the wall time of a run by activity, in `time.jsonl`.

| activity     | wall time spent                                                            |
|--------------|----------------------------------------------------------------------------|
| `start`      | from the start of the process to the loop: imports, data, restoring        |
| `compile`    | tracing and compiling the step, or reading it from the compilation cache   |
| `step`       | in training steps                                                          |
| `data`       | waiting for a batch                                                        |
| `evaluation` | evaluating on held-out data                                                |
| `checkpoint` | in the part of saving that blocks the loop                                 |
| `curriculum` | ordering an epoch                                                          |
| `other`      | everything else in the loop                                                |

An attempt is one process that trains a run; a run that is stopped and resumed has several
attempts. This module writes the records; `goodput.py` reads them.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator

from etils import epath

from moe_jax import strict_json
from moe_jax.sharding.processes import is_main

TIME_FILE = "time.jsonl"
ACTIVITIES = ("start", "compile", "step", "data", "evaluation", "checkpoint", "curriculum", "other")
# Object stores cannot append: the file is rewritten, at most this often.
_REMOTE_SECONDS = 30.0


class GoodputRecorder:
    """Measures the wall time of one attempt by activity; every second is counted once.

    Time counts as `start` until `begin` is called. A file that cannot be written causes one
    warning and no error; since records are cumulative, the next record includes what was missed.
    """

    def __init__(
        self,
        directory: epath.Path,
        *,
        age: float = 0.0,
        warn: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ):
        """Starts measuring.

        Args:
            directory: the run directory.
            age: seconds that already count as `start`, such as `process_age()`.
            warn: called once with a message if the file cannot be written.
            clock: a monotonic clock, in seconds.
            wall: a wall clock, in seconds since 1970.
        """
        self._path, self._warn, self._clock, self._wall = directory / TIME_FILE, warn, clock, wall
        self.attempt = uuid.uuid4().hex[:12]
        self._seconds = {"start": age}
        self._base, self._nested = "start", list[str]()
        self._since = clock()
        self._writes = is_main()
        self._remote = "://" in str(directory)
        # Contents of a remote file, and the time of its last write.
        self._text: str | None = None
        self._written = -float("inf")
        # An earlier attempt may have left an incomplete last line: start on a new line.
        self._torn = True

    def begin(self, step: int) -> dict[str, float]:
        """Ends `start` and records the step at which the loop starts."""
        self._charge()
        self._base = "other"
        return self._record(step, flush=True)

    @contextlib.contextmanager
    def measure(self, activity: str) -> Iterator[None]:
        """Counts the time inside the context for an activity.

        The time of a nested activity counts for the nested one only.

        Raises:
            ValueError: if the activity is not in the module's table.
        """
        if activity not in ACTIVITIES:
            raise ValueError(f"unknown activity {activity!r}; known: {', '.join(ACTIVITIES)}")
        self._charge()
        self._nested.append(activity)
        try:
            yield
        finally:
            self._charge()
            self._nested.pop()

    def record(self, step: int) -> dict[str, float]:
        """Appends a record of the time since the attempt began; only the main process writes.

        Args:
            step: steps done.

        Returns:
            cumulative seconds by activity.
        """
        return self._record(step)

    def close(self, step: int) -> dict[str, float]:
        """Writes the last record, which marks an orderly end of the attempt."""
        return self._record(step, flush=True, ended=True)

    def _record(self, step: int, flush: bool = False, **more: bool) -> dict[str, float]:
        """Writes a record; with `flush`, a remote file is written immediately."""
        self._charge()
        seconds = dict(self._seconds)
        if self._writes:
            rounded = {name: round(value, 3) for name, value in seconds.items()}
            record = {"attempt": self.attempt, "time": round(self._wall(), 3), "step": step}
            try:
                self._append(strict_json.dumps({**record, "seconds": rounded, **more}), flush)
            except Exception as error:
                self._warn_once(error)
        return seconds

    def _charge(self) -> None:
        """Adds the time since the last call to the current activity."""
        now = self._clock()
        activity = self._nested[-1] if self._nested else self._base
        if now > self._since:
            self._seconds[activity] = self._seconds.get(activity, 0.0) + now - self._since
        self._since = now

    def _append(self, line: str, flush: bool) -> None:
        if self._remote:
            self._append_remote(line, flush)
            return
        with self._path.open("a") as file:
            file.write(("\n" if self._torn else "") + line + "\n")
        self._torn = False

    def _append_remote(self, line: str, flush: bool) -> None:
        if self._text is None:
            self._text = self._path.read_text() + "\n" if self._path.exists() else ""
        self._text += line + "\n"
        if flush or self._clock() - self._written >= _REMOTE_SECONDS:
            self._written = self._clock()
            self._path.write_text(self._text)

    def _warn_once(self, error: Exception) -> None:
        self._torn = True
        warn, self._warn = self._warn, None
        if warn is not None:
            warn(f"cannot write {self._path}, training goes on without: {error}")


def process_age() -> float:
    """Returns the seconds since this process started; 0 if unknown."""
    try:
        with open("/proc/self/stat") as file:
            # Fields after the name, which may hold spaces; `starttime` is field 22 (man 5 proc).
            started = int(file.read().rpartition(")")[2].split()[19])
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        return max(since_boot - started / os.sysconf("SC_CLK_TCK"), 0.0)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
