"""The lock file `owner.json`, which names the process that owns a directory.

Mutual exclusion depends on the file system. On a local disk a lock on the directory makes reading
and writing the file atomic; on network file systems creating a hard link is atomic; an object store
has neither: there the last writer owns the directory, and the previous one notices at its next
check.
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from moe_jax.run_files import OWNER_FILE
from moe_jax.training.run_directory.atomic_file import is_remote, write_atomically
from moe_jax.training.run_directory.process_identity import (
    ProcessIdentity,
    is_running,
    this_process,
)

# Time limit for acquiring the lock of the file system.
_LOCK_SECONDS = 5.0
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclasses.dataclass(frozen=True)
class LockSnapshot:
    """The state of a lock file; any difference between two snapshots is a sign of life.

    Attributes:
        text: contents of the file.
        time: time of its last write, seconds since 1970 by the clock of the storage.
    """

    text: str
    time: float

    @property
    def record(self) -> dict[str, Any]:
        """The values in the file; empty if its contents are not a JSON object."""
        try:
            record = json.loads(self.text)
        except ValueError:
            return {}
        return record if isinstance(record, dict) else {}

    @property
    def token(self) -> str | None:
        """The unique token of the owner."""
        return self.record.get("token")

    @property
    def identity(self) -> ProcessIdentity:
        """The identity of the owner."""
        values, unknown = self.record.get("identity"), ProcessIdentity("an unknown host", 0)
        try:
            return ProcessIdentity(**values) if isinstance(values, dict) else unknown
        except TypeError:
            return unknown

    @property
    def since(self) -> str:
        """The time at which the owner acquired the lock."""
        return str(self.record.get("since", "an unknown time"))

    def __str__(self) -> str:
        return f"{self.identity} (since {self.since})"


def read_lock(directory: epath.Path) -> LockSnapshot | None:
    """Returns a snapshot of the lock file of a directory; None if there is no lock file."""
    path = directory / OWNER_FILE
    try:
        if is_remote(path):
            return LockSnapshot(path.read_text(), float(path.stat().mtime))
        with open(path) as file:
            return LockSnapshot(file.read(), os.fstat(file.fileno()).st_mtime)
    except FileNotFoundError:
        return None


def owner_is_running(
    snapshot: LockSnapshot, directory: epath.Path, here: ProcessIdentity | None = None
) -> bool | None:
    """Returns True if the owner runs, False if not, None if that cannot be determined here."""
    runs = is_running(snapshot.identity, here or this_process())
    if runs and not is_remote(directory):
        # A copy of a directory contains a copy of the lock file.
        original = snapshot.record.get("directory", str(directory))
        with contextlib.suppress(OSError):
            return os.path.samefile(original, directory)
    return runs


@contextlib.contextmanager
def exclusive_access(directory: epath.Path) -> Iterator[None]:
    """Excludes other processes from the lock file meanwhile, if the file system can lock."""
    descriptor = -1
    with contextlib.suppress(OSError):
        if not is_remote(directory):
            descriptor = os.open(directory, os.O_RDONLY)
            _lock(descriptor)
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Locks a directory until it is closed; gives up after a time limit."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.01)


def write_lock(directory: epath.Path, record: dict[str, Any], new: bool) -> bool:
    """Writes the lock file; returns False if `new` and another process was faster.

    Raises:
        OSError: if it cannot be written.
    """
    path, text = directory / OWNER_FILE, json.dumps(record, indent=1) + "\n"
    if is_remote(path) or not new:
        write_atomically(path, text)
        return True
    temporary = directory / f".{OWNER_FILE}-{uuid.uuid4().hex[:8]}"
    try:
        temporary.write_text(text)
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def renew_lock(directory: epath.Path, record: dict[str, Any]) -> None:
    """Renews the lock file that contains `record`, as a heartbeat.

    Raises:
        OSError: if it cannot be written.
    """
    path = directory / OWNER_FILE
    if not is_remote(path):
        # Only the time: writing the text could overwrite that of another process.
        with contextlib.suppress(PermissionError):
            os.utime(path)
            return
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    write_atomically(path, json.dumps({**record, "alive": now}, indent=1) + "\n")
