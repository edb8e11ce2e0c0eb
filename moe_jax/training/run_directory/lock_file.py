"""`owner.json`: which process works in a directory, and what others can tell of it.

File systems exclude differently: on a local disk a lock on the directory makes looking and writing
one act, on network file systems a link does, and an object store has neither: there the last
writer has the directory, and the one before finds out when it looks again.
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

# How long another process's look at the file is waited for.
_LOCK_SECONDS = 5.0
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclasses.dataclass(frozen=True)
class LockSnapshot:
    """What an owner file shows: any difference between two looks is a sign of life.

    Attributes:
        text: of the file.
        time: when it was written last, seconds since 1970 by the storage's clock.
    """

    text: str
    time: float

    @property
    def record(self) -> dict[str, Any]:
        """The file's values; empty if it holds something else."""
        try:
            record = json.loads(self.text)
        except ValueError:
            return {}
        return record if isinstance(record, dict) else {}

    @property
    def token(self) -> str | None:
        """What no other start has."""
        return self.record.get("token")

    @property
    def identity(self) -> ProcessIdentity:
        """The owner."""
        values, unknown = self.record.get("identity"), ProcessIdentity("an unknown host", 0)
        try:
            return ProcessIdentity(**values) if isinstance(values, dict) else unknown
        except TypeError:
            return unknown

    @property
    def since(self) -> str:
        """When it began."""
        return str(self.record.get("since", "an unknown time"))

    def __str__(self) -> str:
        return f"{self.identity} (since {self.since})"


def read_lock(directory: epath.Path) -> LockSnapshot | None:
    """Returns the owner file of a directory, None if nobody works in it."""
    path = directory / OWNER_FILE
    try:
        if is_remote(path):
            return LockSnapshot(path.read_text(), float(path.stat().mtime))
        with open(path) as file:
            return LockSnapshot(file.read(), os.fstat(file.fileno()).st_mtime)
    except FileNotFoundError:
        return None


def owner_is_running(
    sign: LockSnapshot, directory: epath.Path, here: ProcessIdentity | None = None
) -> bool | None:
    """Returns whether the owner of a directory runs, None if that cannot be seen from here."""
    runs = is_running(sign.identity, here or this_process())
    if runs and not is_remote(directory):
        # A copy of a directory has a copy of its owner file.
        original = sign.record.get("directory", str(directory))
        with contextlib.suppress(OSError):
            return os.path.samefile(original, directory)
    return runs


@contextlib.contextmanager
def exclusive_access(directory: epath.Path) -> Iterator[None]:
    """Keeps others from looking and writing meanwhile, where the file system can do that."""
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
    """Locks a directory until it is closed; goes on without if another does not let go of it."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.01)


def write_lock(directory: epath.Path, record: dict[str, Any], new: bool) -> bool:
    """Writes the file; returns False if `new` and another was faster.

    Raises:
        OSError: if it cannot be written.
    """
    path, text = directory / OWNER_FILE, json.dumps(record, indent=1) + "\n"
    if is_remote(path) or not new:
        write_atomically(path, text)
        return True
    own = directory / f".{OWNER_FILE}-{uuid.uuid4().hex[:8]}"
    try:
        own.write_text(text)
        os.link(own, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.replace(own, path)
    finally:
        own.unlink(missing_ok=True)
    return True


def renew_lock(directory: epath.Path, record: dict[str, Any]) -> None:
    """Renews the sign of life of the file that holds `record`.

    Raises:
        OSError: if it cannot be written.
    """
    path = directory / OWNER_FILE
    if not is_remote(path):
        # Not the text: another's would be written over, if it came to be there just now.
        with contextlib.suppress(PermissionError):
            os.utime(path)
            return
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    write_atomically(path, json.dumps({**record, "alive": now}, indent=1) + "\n")
