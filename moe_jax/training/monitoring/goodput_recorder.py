"""Where the wall time of a run goes, recorded in `time.jsonl`.

| name         | what its seconds went to                                                   |
|--------------|----------------------------------------------------------------------------|
| `start`      | from the start of the process to the loop: imports, data, restoring        |
| `compile`    | tracing and compiling the step, or reading it from the compilation cache   |
| `step`       | training steps                                                             |
| `data`       | waiting for a batch                                                        |
| `evaluation` | held-out figures                                                           |
| `checkpoint` | as far as saving keeps the loop waiting                                    |
| `curriculum` | ordering an epoch                                                          |
| `other`      | everything else in the loop                                                |

An attempt is a process that works on a run; a run that is stopped and goes on has several. What
an attempt does is written here; `goodput.py` reads the file.
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
NAMES = ("start", "compile", "step", "data", "evaluation", "checkpoint", "curriculum", "other")
# Object stores cannot append: the file is written anew, and not at every record.
_REMOTE_SECONDS = 30.0


class GoodputRecorder:
    """The wall time of one attempt, by what it went to; every second is counted once.

    It begins with `start`; `begin` ends that. It never raises for a file that cannot be written:
    it warns once and goes on, and as records are cumulative, the next one makes up for it.
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
        """Begins to count.

        Args:
            directory: the run directory.
            age: seconds that belong to `start` already, such as `process_age()`.
            warn: told once if the file cannot be written.
            clock: seconds, never going back.
            wall: seconds since 1970.
        """
        self._path, self._warn, self._clock, self._wall = directory / TIME_FILE, warn, clock, wall
        self.attempt = uuid.uuid4().hex[:12]
        self._seconds = {"start": age}
        self._base, self._stack = "start", list[str]()
        self._since = clock()
        self._writes = is_main()
        self._remote = "://" in str(directory)
        # Of a remote file: what it holds, and when it was last written.
        self._text: str | None = None
        self._written = -float("inf")
        # The next line begins on a new line, whatever was left there.
        self._torn = True

    def begin(self, step: int) -> dict[str, float]:
        """Ends `start` and records the step that the loop goes on from."""
        self._charge()
        self._base = "other"
        return self._record(step, last=True)

    @contextlib.contextmanager
    def spent(self, name: str) -> Iterator[None]:
        """Counts the time inside for `name`; what is nested in it counts for its own name only.

        Raises:
            ValueError: for a name that is not in the module's table.
        """
        if name not in NAMES:
            raise ValueError(f"time is not spent on {name!r}; known: {', '.join(NAMES)}")
        self._charge()
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    def record(self, step: int) -> dict[str, float]:
        """Appends a record of the time since the attempt began; only the first process writes.

        Args:
            step: steps done.

        Returns:
            cumulative seconds by name.
        """
        return self._record(step)

    def close(self, step: int) -> dict[str, float]:
        """Writes the last record, which says that the attempt ended in order."""
        return self._record(step, last=True, ended=True)

    def _record(self, step: int, last: bool = False, **more: bool) -> dict[str, float]:
        """Writes a record; `last` says that a remote file must not wait for the next one."""
        self._charge()
        seconds = dict(self._seconds)
        if self._writes:
            rounded = {name: round(value, 3) for name, value in seconds.items()}
            record = {"attempt": self.attempt, "time": round(self._wall(), 3), "step": step}
            try:
                self._append(strict_json.dumps({**record, "seconds": rounded, **more}), last)
            except Exception as error:
                self._failed(error)
        return seconds

    def _charge(self) -> None:
        """Counts the time since the last call for whatever it went to."""
        now = self._clock()
        name = self._stack[-1] if self._stack else self._base
        if now > self._since:
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now

    def _append(self, line: str, at_once: bool) -> None:
        if self._remote:
            self._append_remote(line, at_once)
            return
        with self._path.open("a") as file:
            file.write(("\n" if self._torn else "") + line + "\n")
        self._torn = False

    def _append_remote(self, line: str, at_once: bool) -> None:
        if self._text is None:
            self._text = self._path.read_text() + "\n" if self._path.exists() else ""
        self._text += line + "\n"
        if at_once or self._clock() - self._written >= _REMOTE_SECONDS:
            self._written = self._clock()
            self._path.write_text(self._text)

    def _failed(self, error: Exception) -> None:
        self._torn = True
        warn, self._warn = self._warn, None
        if warn is not None:
            warn(f"cannot write {self._path}, training goes on without: {error}")


def process_age() -> float:
    """Returns the seconds since this process was started; 0 where that cannot be known."""
    try:
        with open("/proc/self/stat") as file:
            # Fields after the name, which may hold spaces; `starttime` is field 22 (man 5 proc).
            started = int(file.read().rpartition(")")[2].split()[19])
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        return max(since_boot - started / os.sysconf("SC_CLK_TCK"), 0.0)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
