"""Which process this is, and whether a process that was noted down still runs.

A process number alone names nothing: numbers are used again, after a restart of the machine they
begin anew, and every container counts its own. So a process is noted with its start time, the
boot of its machine and the name space of its number.
"""

import contextlib
import dataclasses
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class ProcessIdentity:
    """What tells a process from all others, on this machine and elsewhere.

    Attributes:
        host: the name of the machine, or of the container.
        process: its number.
        started: when it started, as the kernel says it; empty if that is not known.
        boot: of the running kernel; empty if that is not known.
        namespace: of the process numbers; containers have their own.
        machine: the installation, which outlives a restart; empty if it has none.
    """

    host: str
    process: int
    started: str = ""
    boot: str = ""
    namespace: str = ""
    machine: str = ""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


def this_process() -> ProcessIdentity:
    """Returns the identity of this process."""
    number = os.getpid()
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return ProcessIdentity(
        host=socket.gethostname(),
        process=number,
        started=process_start_time(number) or "",
        boot=_boot(),
        namespace=namespace,
        machine=_first_line("/etc/machine-id"),
    )


def process_start_time(process: int) -> str | None:
    """Returns when a process of this machine started, None if none of this number runs.

    Raises:
        PermissionError: if there is one, but this user may not look at it.
    """
    try:
        # Fields after the name, which may hold spaces; `state` is field 3, `starttime` field 22
        # (man 5 proc).
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        # Z, X: ended, but its parent has not asked yet.
        return None if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    if Path("/proc/self").exists():
        # Hidden from this user (hidepid).
        raise PermissionError(f"process {process} cannot be looked at")
    command = ["ps", "-o", "lstart=", "-p", str(process)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def is_running(
    other: ProcessIdentity,
    here: ProcessIdentity,
    process_start_time: Callable[[int], str | None] = process_start_time,
) -> bool | None:
    """Returns whether a process runs, None if that cannot be seen from here.

    Args:
        other: the process that was noted down.
        here: a process of the machine that asks.
        process_start_time: returns when a process started, see `process_start_time`.
    """
    if not (other.boot and here.boot and other.started):
        return None
    if (other.boot, other.namespace) == (here.boot, here.namespace):
        try:
            return process_start_time(other.process) == other.started
        except OSError:
            return None
    same_machine = (other.host, other.machine) == (here.host, here.machine)
    if same_machine and here.machine and other.boot != here.boot:
        # The machine was started again since.
        return False
    return None


def _boot() -> str:
    if text := _first_line("/proc/sys/kernel/random/boot_id"):
        return text
    with contextlib.suppress(OSError):  # On macOS.
        command = ["sysctl", "-n", "kern.bootsessionuuid"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        return result.stdout.strip()
    return ""


def _first_line(path: str) -> str:
    try:
        return (Path(path).read_text().splitlines() or [""])[0].strip()
    except OSError:
        return ""
