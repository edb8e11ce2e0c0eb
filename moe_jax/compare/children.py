"""Child processes that train the jobs of a study, each with a log file beside its run directory."""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from moe_jax.errors import UserError

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_DEVICES = "CUDA_VISIBLE_DEVICES"
# The longest line of a log that is shown, in characters.
_MOST_SHOWN = 300


@dataclasses.dataclass(frozen=True)
class Child:
    """A running child process.

    Attributes:
        process: the process.
        log: its log file, to which several attempts may have written.
        log_start: the size of the log when it was started, bytes.
    """

    process: subprocess.Popen
    log: Path
    log_start: int = 0

    def poll(self) -> int | None:
        """Returns its exit code; None while it runs."""
        return self.process.poll()

    def terminate(self) -> None:
        """Asks it to save and end; the second time it is killed."""
        self.process.terminate()


# Starts a command with a log file on a place, an index below the number of jobs at a time.
Start = Callable[[Sequence[str], Path, int], Child]


def starter(devices: Sequence[str]) -> Start:
    """Returns a function that starts child processes.

    Args:
        devices: the GPU of each place; none to leave them to the child.
    """

    def start(command: Sequence[str], log: Path, place: int) -> Child:
        variables = device_variables(devices, place)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a") as file:
            begin = file.tell()
            return Child(_start(command, file, variables), log, begin)

    return start


def device_variables(devices: Sequence[str], place: int) -> dict[str, str]:
    """Returns the environment variables that give a place its own GPU."""
    return {_DEVICES: devices[place]} if devices else {}


def find_devices(parallel: int, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Returns the GPU of each of several jobs at a time; empty without GPUs, and for one at a time.

    JAX is not asked: it would take the memory of all GPUs.

    Raises:
        UserError: if there are GPUs, but fewer than jobs at a time.
    """
    if parallel == 1:
        return []
    if environment.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    visible = environment.get(_DEVICES)
    if visible is not None:
        devices = [name.strip() for name in visible.split(",") if name.strip()]
    else:
        devices = [str(index) for index in range(_count_gpus())]
    if devices and len(devices) < parallel:
        raise UserError(
            f"--parallel={parallel} needs as many GPUs, and there are {len(devices)}: give "
            f"--parallel={len(devices)}"
        )
    return devices[:parallel]


def last_error(log: Path, start: int = 0) -> str:
    """Returns the last line of a log that is an error, or else its last line.

    Args:
        log: the log file.
        start: where to begin, bytes; what is before is of earlier attempts.
    """
    lines = _lines(log, start)
    errors = [line for line in lines if line.startswith("moe-jax:") or "Error:" in line]
    return (errors or lines or ["the log is empty"])[-1][:_MOST_SHOWN]


def last_line(log: Path) -> str:
    """Returns the last line of a log; empty without one."""
    return (_lines(log) or [""])[-1][:_MOST_SHOWN]


def _lines(log: Path, start: int = 0) -> list[str]:
    try:
        text = _ESCAPES.sub("", log.read_bytes()[start:].decode(errors="replace"))
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


def _count_gpus() -> int:
    directory = Path("/proc/driver/nvidia/gpus")
    return len(list(directory.iterdir())) if directory.is_dir() else 0


def _start(command: Sequence[str], log: IO[str], variables: Mapping[str, str]) -> subprocess.Popen:
    # A session of its own: Ctrl-C reaches the parent, which then asks its children to save.
    return subprocess.Popen(
        [sys.executable, "-m", "moe_jax.compare.child_process", *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env={**os.environ, **variables},
        start_new_session=True,
    )
