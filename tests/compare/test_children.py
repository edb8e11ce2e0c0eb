"""Child processes: devices, logs, and their end."""

import os
import signal
import subprocess
import sys
import time
from unittest import mock

import pytest

from moe_jax.compare import child_process
from moe_jax.compare.children import find_devices, last_error, last_line, starter
from moe_jax.errors import UserError

# Says that it began, and ends in order when it is asked to, if its first argument says so.
SCRIPT = """
import os, signal, sys, time
def end(number, frame):
    print(f"got {number}", flush=True)
    if sys.argv[1] == "obeys":
        sys.exit(3)
signal.signal(signal.SIGTERM, end)
print("began", os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid(), flush=True)
while True:
    time.sleep(0.01)
"""


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def start(tmp_path, how, devices=()):
    script, log = tmp_path / "script.py", tmp_path / "logs" / "log"
    script.write_text(SCRIPT)
    child = starter(devices)([sys.executable, str(script), how], log, len(devices) - 1)
    wait_for(lambda: last_line(log).startswith("began"))
    return child


def test_a_child_is_asked_to_end_and_has_its_device_and_its_log(tmp_path):
    child = start(tmp_path, "obeys", ["4", "7"])
    assert last_line(child.log).split()[:2] == ["began", "7"]
    assert child.poll() is None
    child.terminate()
    wait_for(lambda: child.poll() is not None)
    assert (child.poll(), last_line(child.log)) == (3, "got 15")


def test_the_second_time_it_is_killed(tmp_path):
    child = start(tmp_path, "does not")
    child.terminate()
    wait_for(lambda: last_line(child.log) == "got 15")
    assert child.poll() is None
    child.terminate()
    wait_for(lambda: child.poll() is not None)
    assert child.poll() == 128 + signal.SIGKILL


def test_the_end_of_the_parent_ends_the_child(tmp_path):
    """Even by SIGKILL, of which the parent cannot tell anybody."""
    script, log = tmp_path / "script.py", tmp_path / "log"
    script.write_text(SCRIPT)
    parent = (
        "import sys, time; from pathlib import Path; from moe_jax.compare.children import starter; "
        f"starter(())([sys.executable, {str(script)!r}, 'obeys'], Path({str(log)!r}), 0); "
        "time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    wait_for(lambda: last_line(log).startswith("began"))
    child = int(last_line(log).split()[-1])
    process.kill()
    process.wait()
    wait_for(lambda: last_line(log) == "got 15" and not is_alive(child))


def test_the_last_error_of_a_log(tmp_path):
    log = tmp_path / "log"
    assert last_error(log) == "the log is empty"
    log.write_text("one\n\x1b[1mtwo\x1b[0m\n\n")
    assert last_error(log) == "two"
    log.write_text("moe-jax: no file\nValueError: no number\n  waiting ... 3 s\n")
    assert last_error(log) == "ValueError: no number"
    # What is before is of another attempt.
    start = log.stat().st_size
    with log.open("a") as file:
        file.write("killed\n")
    assert last_error(log, start) == "killed"


def test_the_log_of_an_attempt_begins_where_the_last_one_ended(tmp_path):
    log = tmp_path / "log"
    log.write_text("moe-jax: an error before\n")
    child = starter(())([sys.executable, "-c", "print('now')"], log, 0)
    wait_for(lambda: child.poll() is not None)
    assert last_error(log, child.log_start) == "now"


def test_a_signal_while_the_command_starts_reaches_it(monkeypatch):
    sent = []

    class Process:
        def __init__(self, *_, **__):
            os.kill(os.getpid(), signal.SIGTERM)

        def send_signal(self, number):
            sent.append(number)

        def wait(self):
            os.kill(os.getpid(), signal.SIGTERM)
            return -sent[-1]

    monkeypatch.setattr(child_process.subprocess, "Popen", Process)
    monkeypatch.setattr(child_process.threading, "Thread", mock.Mock())
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = child_process.main(["x"])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (sent, code) == ([signal.SIGTERM, signal.SIGKILL], 128 + signal.SIGKILL)


def test_devices():
    assert find_devices(1, {"CUDA_VISIBLE_DEVICES": "0,1"}) == []
    assert find_devices(2, {"CUDA_VISIBLE_DEVICES": "3, 5,6"}) == ["3", "5"]
    assert find_devices(2, {"CUDA_VISIBLE_DEVICES": "0,1", "JAX_PLATFORMS": "cpu"}) == []
    assert find_devices(2, {"CUDA_VISIBLE_DEVICES": ""}) == []
    with pytest.raises(UserError, match="--parallel=3 needs as many GPUs, and there are 2: give"):
        find_devices(3, {"CUDA_VISIBLE_DEVICES": "0,1"})
