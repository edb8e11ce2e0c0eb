"""Identify processes across machines and containers, and find out whether they still run.

A process ID alone is not unique: IDs are reused, start over after a reboot, and every container
has its own. An identity therefore includes the start time of the process, the boot ID of its
machine and the PID namespace.
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
    """Identity of a process that is unique across machines, containers and reboots.

    Attributes:
        host: host name of the machine or container.
        process: process ID.
        started: start time as reported by the kernel; empty if unknown.
        boot: boot ID of the running kernel; empty if unknown.
        namespace: PID namespace; every container has its own.
        machine: machine ID, which survives a reboot; empty if there is none.
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
    """Returns the start time of a process of this machine, None if no such process runs.

    Raises:
        PermissionError: if it exists, but this user may not inspect it.
    """
    try:
        # Fields after the name, which may hold spaces; `state` is field 3, `starttime` field 22
        # (man 5 proc).
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        # Z, X: terminated, but not yet reaped by its parent.
        return None if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    if Path("/proc/self").exists():
        # Hidden from this user (hidepid).
        raise PermissionError(f"process {process} cannot be inspected")
    command = ["ps", "-o", "lstart=", "-p", str(process)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def is_running(
    other: ProcessIdentity,
    here: ProcessIdentity,
    process_start_time: Callable[[int], str | None] = process_start_time,
) -> bool | None:
    """Returns True if a process runs, False if it does not, None if that cannot be determined here.

    Args:
        other: the recorded identity.
        here: the identity of a process on this machine.
        process_start_time: returns the start time of a process ID; replaced in tests.
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
        # The machine has been rebooted since.
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
