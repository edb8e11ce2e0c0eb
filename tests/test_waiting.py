"""What is said while a person waits, by a clock that the tests turn."""

import io
import os
import subprocess
import sys

import pytest

from moe_jax import waiting as module
from moe_jax.waiting import BEAT_SECONDS, Wait, hide, waiting


@pytest.fixture
def clock(monkeypatch):
    """Returns a list whose element is the time in seconds; nothing ticks by itself."""
    now = [100.0]
    monkeypatch.setattr(module, "_last_line", 100.0)
    monkeypatch.setattr(module, "_open", [])
    monkeypatch.delenv("MOE_JAX_WAITING")
    monkeypatch.setattr(module, "_watch_from_now_on", lambda: None)
    return now


def make(clock, what="reading", moves=False):
    shown = []
    return Wait(what, shown.append, moves, clock=lambda: clock[0]), shown


def pass_by(clock, wait, seconds):
    """Turns the clock, a tick every quarter of a second."""
    for _ in range(round(4 * seconds)):
        clock[0] += 0.25
        wait.tick()


def test_a_log_has_a_line_every_few_seconds(clock):
    wait, shown = make(clock)
    pass_by(clock, wait, 3)
    assert shown == []
    pass_by(clock, wait, 9)
    wait.say("the rest")
    pass_by(clock, wait, 2)
    assert shown == [
        "reading ... 4 s",
        "reading ... 7 s",
        "reading ... 10 s",
        "reading: the rest ... 14 s",
    ]


def test_there_is_no_silence_of_five_seconds_over_several_waits(clock):
    times = []
    for _ in range(10):
        wait = Wait("w", lambda text: times.append(clock[0]), False, clock=lambda: clock[0])
        pass_by(clock, wait, 3)
    gaps = [after - before for before, after in zip([100.0, *times], times, strict=False)]
    assert len(times) >= 7
    assert max(gaps) < 4.5 <= BEAT_SECONDS + 1


def test_what_is_short_says_nothing_after_a_long_silence(clock):
    clock[0] += 1000
    wait, shown = make(clock)
    pass_by(clock, wait, 0.25)
    assert shown == []
    pass_by(clock, wait, 0.25)
    assert shown == ["reading ... 0 s"]


def test_on_a_terminal_the_line_moves(clock):
    wait, shown = make(clock, moves=True)
    pass_by(clock, wait, 2)
    assert len(shown) == 7
    assert shown[-1] == "reading ... 2 s"
    wait.hide()
    assert shown[-1] is None


def test_the_innermost_is_shown_and_what_gives_way_does_not_come_back(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with waiting("starting", gives_way=True) as first:
        assert module._open == [first]
        with waiting("outer") as outer:
            assert module._open == [outer]
            with waiting("inner") as inner:
                assert module._open == [outer, inner]
            assert module._open == [outer]
        assert module._open == []
        hide()
    assert sys.stderr.getvalue() == ""


def test_silent_processes_say_nothing(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with waiting("reading", silent=True) as wait:
        wait._clock = lambda: 1e6
        wait.tick()
    monkeypatch.setenv("MOE_JAX_WAITING", "0")
    with waiting("reading") as wait:
        wait._clock = lambda: 1.5e6
        wait.tick()
    monkeypatch.delenv("MOE_JAX_WAITING")
    with waiting("reading") as wait:
        wait._clock = lambda: 2e6
        wait.tick()
    assert sys.stderr.getvalue().startswith("  reading ... ")
    assert sys.stderr.getvalue().count("\n") == 1


def test_a_reader_that_has_gone_stops_nothing(clock, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    with waiting("reading") as wait:
        wait._clock = lambda: 1e6
        wait.tick()


def test_lines_come_by_themselves_through_what_quiet_hides():
    """In a process of its own, with time that is thirty times as fast."""
    code = """
import time
from moe_jax import waiting as module
from moe_jax.library_output import suppress_library_output
module.BEAT_SECONDS, module.SHORT_SECONDS, module._TICK_SECONDS = 0.1, 0.02, 0.01
with module.waiting("reading"), suppress_library_output():
    time.sleep(0.5)
print("result")
"""
    environment = {k: value for k, value in os.environ.items() if k != "MOE_JAX_WAITING"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "result\n"
    assert done.stderr.splitlines()[:2] == ["  reading ... 0 s"] * 2
