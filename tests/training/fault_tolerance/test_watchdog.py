"""The watchdog, with a fake clock, and once in a process that really hangs."""

import io
import os
import subprocess
import sys
import threading

import pytest

from moe_jax.errors import UserError
from moe_jax.training.fault_tolerance.watchdog import (
    EXIT_CODE,
    HangReport,
    Watchdog,
    WatchdogConfig,
)


class Ended(Exception):
    """Raised instead of ending the process."""


class Case:
    """A watchdog with a timeout of 10 s, 40 s in pauses, and a fake clock."""

    def __init__(self, directory, timeout=10.0, last_saved=lambda: 40):
        self.now, self.directory = 1000.0, directory
        report = HangReport(directory, last_saved=last_saved)
        self.dog = Watchdog(timeout, report, clock=lambda: self.now, exit_process=self.exit_process)

    def exit_process(self, code):
        raise Ended(code)

    def after(self, seconds):
        self.now += seconds
        self.dog.check()

    def files(self):
        return sorted(self.directory.glob("hang-*.txt"))


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def test_beats_keep_it_quiet(case):
    for _ in range(5):
        case.after(9)
        case.dog.beat()
    assert not case.files()


def test_a_hang_ends_the_process_for_a_restart(case, capfd):
    with pytest.raises(Ended) as ended:
        case.after(11)
    assert ended.value.args == (75,)
    assert EXIT_CODE == os.EX_TEMPFAIL
    (file,) = case.files()
    # The stacks are of this very function, in a thread called so by faulthandler.
    assert "test_a_hang_ends_the_process_for_a_restart" in file.read_text()
    error = capfd.readouterr().err
    line = error.splitlines()[-1]
    assert "process 0" in line
    assert "has finished no step for 11 s and is taken for hung" in line
    assert "the last checkpoint is step 40" in line
    assert str(file) in line
    assert "test_a_hang_ends_the_process_for_a_restart" in error


def test_pauses_have_a_longer_time_and_name_what_hangs(case, capfd):
    with case.dog.paused("evaluation"):
        case.after(39)
        with case.dog.paused("save"):
            case.after(39)
        with pytest.raises(Ended):
            case.after(41)
    assert "been in one evaluation for 41 s" in capfd.readouterr().err
    case.after(9)
    with pytest.raises(Ended):
        case.after(2)


def test_zero_turns_it_off(tmp_path):
    case = Case(tmp_path, timeout=0)
    case.after(1e9)
    threads = threading.active_count()
    with case.dog:
        assert threading.active_count() == threads


def test_a_disk_that_fails_does_not_keep_it_from_ending(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    case = Case(tmp_path / "file")
    with pytest.raises(Ended):
        case.after(11)
    line = capfd.readouterr().err.splitlines()[-1]
    assert "taken for hung; the last checkpoint is step 40; ending" in line


def test_a_checkpoint_directory_that_fails_does_not_either(tmp_path, capfd):
    def broken():
        raise OSError("gone")

    case = Case(tmp_path, last_saved=broken)
    with pytest.raises(Ended):
        case.after(11)
    assert "taken for hung" in capfd.readouterr().err.splitlines()[-1]


def test_its_thread_ends_with_it(tmp_path):
    with Watchdog(1000.0, HangReport(tmp_path)):
        assert "watchdog" in {thread.name for thread in threading.enumerate()}
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}


def test_a_process_that_hangs_ends(tmp_path):
    program = f"""
import threading
from moe_jax.training.fault_tolerance.watchdog import HangReport, Watchdog
with Watchdog(0.2, HangReport({str(tmp_path)!r}, process=3, last_saved=lambda: None)):
    threading.Event().wait()
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 75
    assert "process 3" in result.stderr.splitlines()[-1]
    assert "the last checkpoint is none yet" in result.stderr
    (file,) = tmp_path.glob("hang-3-*.txt")
    assert "in wait" in file.read_text()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"timeout": -1}, r"Watchdog.timeout must be 0 \(off\) or more seconds, not -1"),
        ({"timeout": float("nan")}, "Watchdog.timeout must be"),
        ({"timeout": "60"}, "Watchdog.timeout must be"),
        ({"timeout": True}, "Watchdog.timeout must be"),
        ({"timeout": 0.01}, "0.01 s would take any step for a hang"),
        ({"timeout": 60, "pause_timeout": 5}, "must be Watchdog.timeout = 60 or more"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(UserError, match=message):
        WatchdogConfig(**values)


def test_settings_that_are_right_pass():
    assert WatchdogConfig().timeout == 1800
    assert WatchdogConfig(timeout=0, pause_timeout=0).timeout == 0


def test_a_standard_error_without_a_file_as_in_a_notebook(tmp_path, monkeypatch):
    left = threading.Event()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Watchdog(0.1, HangReport(tmp_path), exit_process=lambda code: left.set()):
        assert left.wait(30)
    assert "is taken for hung" in sys.stderr.getvalue()
