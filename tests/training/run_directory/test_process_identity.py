"""Identities of processes, and whether a process still runs."""

import dataclasses
import subprocess
import time

from moe_jax.training.run_directory.process_identity import (
    ProcessIdentity,
    is_running,
    process_start_time,
    this_process,
)

HERE = this_process()
ELSEWHERE = ProcessIdentity("elsewhere", HERE.process, HERE.started, "boot-2", "ns", "machine-2")
# Another container on this machine, in which the same number is another process.
CONTAINER = dataclasses.replace(HERE, host="container", namespace="pid:[1]")


def test_a_process_that_was_not_reaped_is_dead():
    process = subprocess.Popen(["true"])
    deadline = time.monotonic() + 10
    while process_start_time(process.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process_start_time(process.pid) is None
    process.wait()


def test_processes_that_can_be_inspected():
    assert is_running(HERE, HERE) is True
    assert is_running(ELSEWHERE, HERE) is None
    assert is_running(CONTAINER, HERE) is None
    assert is_running(dataclasses.replace(HERE, boot=""), HERE) is None
    # Two machines of one name, of which neither knows what it is.
    other = dataclasses.replace(HERE, boot="b", machine="")
    assert is_running(other, dataclasses.replace(HERE, machine="")) is None

    def hidden(number):
        raise PermissionError(number)

    assert is_running(HERE, HERE, hidden) is None
