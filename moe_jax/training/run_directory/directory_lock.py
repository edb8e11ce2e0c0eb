"""An exclusive lock on a directory, so that only one run writes to it.

The lock file `owner.json` exists while its owner runs and is removed when the owner ends in order.
A stale lock, left by a process that was killed, is taken over. On the owner's machine its process
is looked up. From another machine or container, heartbeats decide: the owner renews the file every
`LockTiming.heartbeat` seconds, and a process that wants the lock watches for a change by its own
clock, so that the clocks of two machines are never compared.

The owner verifies the lock shortly after acquiring it (two processes may have written at the same
moment), at every heartbeat and before every save. It stops once the lock belongs to another
process, which also happens after it was suspended for so long that it was considered dead.

Readers (`eval`, `generate`, `status`) need no lock.
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

# Time limit for a heartbeat in progress at the end: the file system may not respond.
_JOIN_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class LockTiming:
    """Intervals and time limits of a lock, in seconds.

    Attributes:
        heartbeat: interval between two heartbeats.
        timeout: time without a heartbeat after which a remote owner counts as dead.
        slack: allowed delay of a heartbeat.
        settle: time until a file written by another process at the same moment becomes visible.
        poll: interval between two checks of a remote owner.
    """

    heartbeat: float = 15.0
    timeout: float = 90.0
    slack: float = 5.0
    settle: float = 2.0
    poll: float = 1.0


@dataclasses.dataclass(frozen=True)
class Clock:
    """The clocks that a lock reads; replaced in tests.

    Attributes:
        monotonic: returns seconds that never decrease.
        wall: returns seconds since 1970.
        sleep: waits a number of seconds.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


class DirectoryLock:
    """A context manager that locks a directory for a run of one or several processes.

    All processes of a run enter it together; the main process holds the lock. It can be entered
    once.

    Args:
        directory: an existing directory.
        command: the command line of this process, shown to processes that are refused.
        say: prints a line for the user.
        identity: identity of this process.
        timing: intervals and time limits.
        clock: the clocks to read.
    """

    def __init__(
        self,
        directory: epath.Path,
        command: Sequence[str] = (),
        say: Callable[[str], object] = print,
        *,
        identity: ProcessIdentity | None = None,
        timing: LockTiming | None = None,
        clock: Clock | None = None,
    ):
        self._directory, self._say = directory, say
        self._here, self._timing = identity or this_process(), timing or LockTiming()
        self._clock = clock or Clock()
        now = datetime.datetime.fromtimestamp(self._clock.wall(), datetime.UTC)
        self._record = {
            "since": now.isoformat(timespec="seconds"),
            "identity": dataclasses.asdict(self._here),
            "user": _user(),
            "command": shlex.join(command),
            "directory": str(directory),
            "token": uuid.uuid4().hex,
        }
        self._holds, self._acquired = False, 0.0
        self._lost: str | None = None
        self._notify: Callable[[str], object] = lambda reason: None
        # Reentrant: a signal handler may interrupt the holder.
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "DirectoryLock":
        with propagate_errors():
            if is_main():
                self.acquire()
        if self._holds:
            self._thread = threading.Thread(
                target=self._send_heartbeats, name="heartbeat", daemon=True
            )
            self._thread.start()
            self._handle_signals()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)
        self.release()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def acquire(self) -> None:
        """Acquires the lock; watches a remote owner until it proves alive or its lock expires.

        Raises:
            UserError: if another process holds the lock, naming it and the time it began.
        """
        watched: LockSnapshot | None = None
        until = 0.0
        while not self._holds:
            try:
                with exclusive_access(self._directory):
                    snapshot = read_lock(self._directory)
                    runs = False if snapshot is None else self._runs(snapshot)
                    if runs is None and snapshot == watched and self._clock.monotonic() >= until:
                        runs = False
                    if runs is False:
                        self._holds = write_lock(self._directory, self._record, snapshot is None)
                        self._acquired = self._clock.monotonic()
            except OSError as error:
                raise UserError(
                    f"cannot write to the directory {self._directory}: {error.strerror or error}"
                ) from None
            if snapshot is None:
                continue
            if runs or (watched is not None and snapshot != watched):
                raise UserError(self._in_use(snapshot, runs))
            if runs is False:
                self._say(
                    f"{self._directory} is taken over from {snapshot}, which did not end in order"
                )
            elif watched is None:
                watched, until = snapshot, self._clock.monotonic() + self._watch_seconds(snapshot)
            if not self._holds:
                self._clock.sleep(self._timing.poll)

    def check(self) -> None:
        """Checks that this run still holds the lock. All processes must call it together.

        Raises:
            UserError: if another process has taken it over.
        """
        with propagate_errors():
            if self._holds:
                wait = self._acquired + self._timing.settle - self._clock.monotonic()
                if wait > 0:
                    self._clock.sleep(wait)
                self.heartbeat()
            if self._lost is not None:
                raise UserError(self._lost)

    def on_lost(self, notify: Callable[[str], object]) -> None:
        """Registers a callback for the loss of the lock; it gets the reason, from any thread."""
        self._notify = notify
        if self._lost is not None:
            notify(self._lost)

    def heartbeat(self) -> None:
        """Renews the lock file, or records that the lock is lost."""
        # A full disk, or one that does not respond, is reported by the next save.
        with self._lock, contextlib.suppress(Exception):
            if not self._holds:
                return
            snapshot = read_lock(self._directory)
            if snapshot is None:
                # The file was deleted by hand, or the directory is gone.
                write_lock(self._directory, self._record, new=True)
            elif snapshot.token == self._record["token"]:
                renew_lock(self._directory, self._record)
            else:
                self._lose(snapshot)

    def release(self) -> None:
        """Removes the lock file if it still belongs to this process."""
        with self._lock:
            held, self._holds = self._holds, False
        if not held:
            return
        with contextlib.suppress(Exception), exclusive_access(self._directory):
            snapshot = read_lock(self._directory)
            if snapshot is not None and snapshot.token == self._record["token"]:
                (self._directory / OWNER_FILE).unlink()

    def _runs(self, snapshot: LockSnapshot) -> bool | None:
        return owner_is_running(snapshot, self._directory, self._here)

    def _watch_seconds(self, snapshot: LockSnapshot) -> float:
        """Returns how long to watch a remote owner, and prints it."""
        age = max(self._clock.wall() - snapshot.time, 0.0)
        # At least one heartbeat, whatever the age: the clocks of the machines may differ.
        seconds = max(self._timing.timeout - age, self._timing.heartbeat + self._timing.slack)
        self._say(
            f"{self._directory} is held by {snapshot}, which cannot be inspected from here; its "
            f"last sign of life is {age:,.0f} s old. Without another in {seconds:.0f} s it is "
            "taken over"
        )
        return seconds

    def _in_use(self, snapshot: LockSnapshot, runs: bool | None) -> str:
        stop = f" (kill {snapshot.identity.process})" if runs else ""
        command = f": {snapshot.record['command']}" if snapshot.record.get("command") else ""
        return (
            f"{self._directory} is in use by {snapshot.identity}, user "
            f"{snapshot.record.get('user', 'unknown')}, since {snapshot.since}{command}. Wait for "
            f"its end, stop it{stop}, or give another --output_dir"
        )

    def _lose(self, snapshot: LockSnapshot) -> None:
        self._holds = False
        self._lost = (
            f"{self._directory} was taken over by {snapshot} while this one, {self._here}, gave no "
            "sign of life; it stops and writes nothing more there"
        )
        self._notify(self._lost)

    def _send_heartbeats(self) -> None:
        wait = self._timing.settle
        while not self._stopped.wait(wait) and self._lost is None:
            self.heartbeat()
            wait = self._timing.heartbeat

    def _handle_signals(self) -> None:
        """Releases the lock before an otherwise unhandled signal ends the process."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                self._handlers[number] = signal.signal(number, self._release_and_die)

    def _release_and_die(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.release()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
