"""One directory, one writer: a process holds a directory while it works there.

`owner.json` is there while the process works and gone when it ends in order. One that was left by a
process that was killed is taken over. Whether the process still runs is looked up on its own
machine. From any other, and between containers, the file's sign of life tells: the owner renews it
every `LockTiming.beat` seconds, and one who wants the directory watches for a change by its own clock,
so that the clocks of two machines are never compared.

The owner looks again shortly after it began (two may have written at the same moment), at every
beat and before everything that it saves, and stops when the file is another's: also when it stood
still for so long that it was taken for dead.

Readers (`eval`, `generate`, `status`) need not hold a directory.
"""

import contextlib
import dataclasses
import datetime
import getpass
import os
import shlex
import signal
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from etils import epath

from moe_jax.errors import UserError
from moe_jax.sharding.processes import is_main, propagate_errors
from moe_jax.training.run_directory.lock_file import (
    OWNER_FILE,
    LockSnapshot,
    exclusive_access,
    owner_is_running,
    read_lock,
    renew_lock,
    write_lock,
)
from moe_jax.training.run_directory.process_identity import ProcessIdentity, this_process

# How long a beat under way is waited for at the end: the file system may not answer.
_JOIN_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class LockTiming:
    """Seconds.

    Attributes:
        beat: between two signs of life.
        limit: without one, after which an owner that cannot be looked at counts as dead.
        slack: that a sign of life may come late.
        settle: after which a file that another wrote at the same moment shows.
        look: between two looks at an owner that is watched.
    """

    beat: float = 15.0
    limit: float = 90.0
    slack: float = 5.0
    settle: float = 2.0
    look: float = 1.0


class DirectoryLock:
    """Holds a directory while it is entered, for a run of one or several processes.

    All processes of a run enter it together; the first one holds it. It is entered once.

    Args:
        directory: which exists.
        command: what this process was started with, for the one who is refused.
        say: takes a line for people.
        identity: of this process.
        timing: how often and how long.
        clock: seconds that only grow.
        wall: seconds since 1970.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        directory: epath.Path,
        command: Sequence[str] = (),
        say: Callable[[str], object] = print,
        *,
        identity: ProcessIdentity | None = None,
        timing: LockTiming | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._directory, self._say = directory, say
        self._here, self._timing = identity or this_process(), timing or LockTiming()
        self._clock, self._wall, self._sleep = clock, wall, sleep
        now = datetime.datetime.fromtimestamp(wall(), datetime.UTC)
        self._record = {
            "since": now.isoformat(timespec="seconds"),
            "identity": dataclasses.asdict(self._here),
            "user": _user(),
            "command": shlex.join(command),
            "directory": str(directory),
            "token": uuid.uuid4().hex,
        }
        self._holds, self._claimed = False, 0.0
        self._lost: str | None = None
        self._notify: Callable[[str], object] = lambda reason: None
        # A signal's handler may come in between.
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "DirectoryLock":
        with propagate_errors():
            if is_main():
                self.claim()
        if self._holds:
            self._thread = threading.Thread(target=self._beat_on, name="owner", daemon=True)
            self._thread.start()
            self._handle_signals()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)
        self.release()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def claim(self) -> None:
        """Makes this process the owner; watches one that cannot be looked at from here.

        Raises:
            UserError: if somebody else works in the directory, with who and since when.
        """
        watched: LockSnapshot | None = None
        until = 0.0
        while not self._holds:
            try:
                with exclusive_access(self._directory):
                    sign = read_lock(self._directory)
                    runs = False if sign is None else self._runs(sign)
                    if runs is None and sign == watched and self._clock() >= until:
                        runs = False
                    if runs is False:
                        self._holds = write_lock(self._directory, self._record, sign is None)
                        self._claimed = self._clock()
            except OSError as error:
                raise UserError(
                    f"cannot write to the directory {self._directory}: {error.strerror or error}"
                ) from None
            if sign is None:
                continue
            if runs or (watched is not None and sign != watched):
                raise UserError(self._in_use(sign, runs))
            if runs is False:
                self._say(
                    f"{self._directory} is taken over from {sign}, which did not end in order"
                )
            elif watched is None:
                watched, until = sign, self._clock() + self._watch_seconds(sign)
            if not self._holds:
                self._sleep(self._timing.look)

    def check(self) -> None:
        """Makes sure that the directory is still this run's. All processes call it together.

        Raises:
            UserError: if it was taken over.
        """
        with propagate_errors():
            if self._holds:
                wait = self._claimed + self._timing.settle - self._clock()
                if wait > 0:
                    self._sleep(wait)
                self.beat()
            if self._lost is not None:
                raise UserError(self._lost)

    def tell(self, notify: Callable[[str], object]) -> None:
        """Has `notify` called with the reason, from any thread, when the directory is lost."""
        self._notify = notify
        if self._lost is not None:
            notify(self._lost)

    def beat(self) -> None:
        """Gives a sign of life, or notes that the directory is another's now."""
        # A disk that is full or does not answer: what is saved there says so.
        with self._lock, contextlib.suppress(Exception):
            if not self._holds:
                return
            sign = read_lock(self._directory)
            if sign is None:
                # Removed by hand while this process runs, or the directory is gone.
                write_lock(self._directory, self._record, new=True)
            elif sign.token == self._record["token"]:
                renew_lock(self._directory, self._record)
            else:
                self._lose(sign)

    def release(self) -> None:
        """Removes the file if it is still this process's."""
        with self._lock:
            held, self._holds = self._holds, False
        if not held:
            return
        with contextlib.suppress(Exception), exclusive_access(self._directory):
            sign = read_lock(self._directory)
            if sign is not None and sign.token == self._record["token"]:
                (self._directory / OWNER_FILE).unlink()

    def _runs(self, sign: LockSnapshot) -> bool | None:
        return owner_is_running(sign, self._directory, self._here)

    def _watch_seconds(self, sign: LockSnapshot) -> float:
        """Returns how long an owner that cannot be looked at is watched, and says so."""
        age = max(self._wall() - sign.time, 0.0)
        # However old it looks: the clocks may differ.
        seconds = max(self._timing.limit - age, self._timing.beat + self._timing.slack)
        self._say(
            f"{self._directory} is held by {sign}, which cannot be looked at from here; its last "
            f"sign of life is {age:,.0f} s old. Without another in {seconds:.0f} s it is taken over"
        )
        return seconds

    def _in_use(self, sign: LockSnapshot, runs: bool | None) -> str:
        stop = f" (kill {sign.identity.process})" if runs else ""
        command = f": {sign.record['command']}" if sign.record.get("command") else ""
        return (
            f"{self._directory} is in use by {sign.identity}, user "
            f"{sign.record.get('user', 'unknown')}, since {sign.since}{command}. Wait for its end, "
            f"stop it{stop}, or give another --output_dir"
        )

    def _lose(self, sign: LockSnapshot) -> None:
        self._holds = False
        self._lost = (
            f"{self._directory} was taken over by {sign} while this one, {self._here}, gave no "
            "sign of life; it stops and writes nothing more there"
        )
        self._notify(self._lost)

    def _beat_on(self) -> None:
        wait = self._timing.settle
        while not self._over.wait(wait) and self._lost is None:
            self.beat()
            wait = self._timing.beat

    def _handle_signals(self) -> None:
        """Leaves the directory before a signal ends the process, where nothing else handles it."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                self._handlers[number] = signal.signal(number, self._leave)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.release()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
