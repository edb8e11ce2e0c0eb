"""The recorded wall time, computed by hand with fake clocks."""

import json
import os

import pytest
from etils import epath

from moe_jax.training.monitoring import goodput_recorder
from moe_jax.training.monitoring.goodput import read_goodput, read_goodput_records
from moe_jax.training.monitoring.goodput_recorder import TIME_FILE, GoodputRecorder, process_age


class Clock:
    """A fake clock."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


class Watch:
    """A fake monotonic clock and a fake wall clock that advance together."""

    def __init__(self, wall=1000.0):
        self.monotonic, self.wall = Clock(7.0), Clock(wall)

    def go(self, seconds):
        self.monotonic.now += seconds
        self.wall.now += seconds


@pytest.fixture
def directory(tmp_path):
    return epath.Path(tmp_path)


@pytest.fixture
def watch():
    return Watch()


def make(directory, watch, **more):
    return GoodputRecorder(directory, clock=watch.monotonic, wall=watch.wall, **more)


def spend(recorder, watch, name, seconds):
    with recorder.measure(name):
        watch.go(seconds)


def lines(directory):
    return [json.loads(line) for line in (directory / TIME_FILE).read_text().split("\n") if line]


def test_every_second_is_counted_once(directory, watch):
    recorder = make(directory, watch, age=3.0)
    watch.go(2)
    assert recorder.begin(0) == {"start": 5.0}
    watch.go(0.5)
    with recorder.measure("evaluation"):
        watch.go(1)
        with recorder.measure("checkpoint"):
            watch.go(4)
        watch.go(2)
    spend(recorder, watch, "step", 8)
    seconds = recorder.record(10)
    assert seconds == {
        "start": 5.0,
        "other": 0.5,
        "evaluation": 3.0,
        "checkpoint": 4.0,
        "step": 8.0,
    }
    assert sum(seconds.values()) == 3.0 + (watch.monotonic.now - 7.0)


def test_an_error_inside_ends_the_counting(directory, watch):
    recorder = make(directory, watch)
    recorder.begin(0)

    def fail():
        with recorder.measure("data"):
            watch.go(1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    watch.go(5)
    assert recorder.record(1) == {"start": 0.0, "data": 1.0, "other": 5.0}


def test_a_name_that_is_not_known_is_refused(directory, watch):
    with pytest.raises(ValueError, match=r"'steps'; known: start, compile, step"):
        spend(make(directory, watch), watch, "steps", 1)


def test_records_say_who_when_and_where(directory, watch):
    recorder = make(directory, watch)
    watch.go(2)
    recorder.begin(4)
    spend(recorder, watch, "step", 3)
    recorder.record(5)
    recorder.close(5)
    attempt = recorder.attempt
    assert lines(directory) == [
        {"attempt": attempt, "time": 1002.0, "step": 4, "seconds": {"start": 2.0}},
        *(
            {
                "attempt": attempt,
                "time": 1005.0,
                "step": 5,
                "seconds": {"start": 2.0, "step": 3.0},
                **ended,
            }
            for ended in ({}, {"ended": True})
        ),
    ]
    assert make(directory, watch).attempt != attempt


def run_attempt(directory, watch, resumed, records, start=10.0, per_step=2.0, compiling=5.0):
    """Runs from a step, with records at the steps given; the first step compiles."""
    recorder = make(directory, watch)
    watch.go(start)
    recorder.begin(resumed)
    spend(recorder, watch, "compile", compiling)
    done = resumed + 1
    for step in records:
        spend(recorder, watch, "step", per_step * (step - done))
        done = step
        recorder.record(step)
    return recorder


def test_goodput_over_a_restart_by_hand(directory, watch):
    # 10 s of start, 5 s of compiling for step 1, 2 s each for steps 2 to 30; then it is killed.
    run_attempt(directory, watch, 0, [10, 20, 30])
    watch.go(100)
    # Goes on from step 24: of the 58 s of the first attempt, steps 25 to 30 were for nothing.
    run_attempt(directory, watch, 24, [30, 40])
    found = read_goodput(directory)
    assert found.attempts == 2
    assert found.restart == 100.0
    # First attempt 10 + 5 + 58, second 10 + 5 + 30.
    assert found.seconds == {"start": 20.0, "compile": 10.0, "step": 88.0}
    assert found.wall == 73 + 100 + 45
    assert found.lost == pytest.approx(12.0)
    assert found.goodput == pytest.approx((88 - 12) / 218)
    assert sum(found.seconds.values()) + found.restart == found.wall
    assert [moment.step for moment in found.last_attempt()] == [24, 30, 40]


def test_an_attempt_that_comes_to_nothing_is_lost_whole(directory, watch):
    run_attempt(directory, watch, 0, [80, 90, 100], per_step=1.0)
    run_attempt(directory, watch, 90, [95], per_step=1.0)
    run_attempt(directory, watch, 80, [120], per_step=1.0)
    # Of the first, steps 81 to 100 (10 when the second began, 10 more for the third); of the
    # second, steps 92 to 95: its step 91 compiled.
    assert read_goodput(directory).lost == pytest.approx(20 + 4)


def test_an_orderly_stop_loses_nothing(directory, watch):
    run_attempt(directory, watch, 0, [20]).close(20)
    run_attempt(directory, watch, 20, [30])
    found = read_goodput(directory)
    assert found.lost == 0
    assert found.restart == 0
    assert [record.ended for record in found.records] == [False, False, True, False, False]


def test_elapsed_time_is_of_the_steps_that_count(directory, watch):
    run_attempt(directory, watch, 0, [10, 20])
    run_attempt(directory, watch, 10, [20])
    # 10 s of start, then step 10 after 5 + 18, step 20 after 20 more; then again 10 and 5 + 18.
    assert read_goodput(directory).elapsed() == [(0, 10.0), (10, 63.0), (20, 86.0)]


def test_a_clock_that_is_set_back_makes_no_time(directory, watch):
    run_attempt(directory, watch, 0, [10])
    watch.wall.now -= 3600
    run_attempt(directory, watch, 10, [20])
    assert read_goodput(directory).restart == 0
    assert all(seconds >= 0 for _, seconds in read_goodput(directory).elapsed())


def test_a_run_without_records(directory):
    found = read_goodput(directory)
    assert (found.attempts, found.wall, found.goodput, found.lost) == (0, 0, 0, 0)
    assert found.last_attempt() == []
    assert found.elapsed() == []


@pytest.mark.parametrize("removed", [1, 2, 30, 60])
def test_a_torn_last_line_costs_that_line_only(directory, watch, removed):
    run_attempt(directory, watch, 0, [10, 20])
    path = directory / TIME_FILE
    path.write_text(path.read_text()[:-removed])
    kept = [0, 10, 20] if removed == 1 else [0, 10]
    assert [moment.step for moment in read_goodput_records(directory)] == kept
    run_attempt(directory, watch, 10, [30])
    assert [moment.step for moment in read_goodput_records(directory)] == [*kept, 10, 30]


def test_lines_that_are_no_records_are_left_out(directory, watch):
    (directory / TIME_FILE).write_text('[]\n{"attempt": "a"}\n3\n{"seconds": 1}\nnull\n')
    run_attempt(directory, watch, 0, [10])
    assert [moment.step for moment in read_goodput_records(directory)] == [0, 10]


def test_a_full_disk_is_one_warning_and_costs_no_time_recorded_later(directory, watch, monkeypatch):
    warnings = []
    recorder = make(directory, watch, warn=warnings.append)
    recorder.begin(0)
    opened = type(directory).open

    def full(path, *args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(directory), "open", full)
    for step in (1, 2):
        spend(recorder, watch, "step", 1)
        assert recorder.record(step)["step"] == step
    monkeypatch.setattr(type(directory), "open", opened)
    spend(recorder, watch, "step", 1)
    recorder.record(3)
    assert [(m.step, m.seconds.get("step")) for m in read_goodput_records(directory)] == [
        (0, None),
        (3, 3.0),
    ]
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]


def test_only_the_first_process_writes(directory, watch, monkeypatch):
    monkeypatch.setattr(goodput_recorder, "is_main", lambda: False)
    recorder = make(directory, watch)
    watch.go(1)
    assert recorder.begin(0) == {"start": 1.0}
    assert not (directory / TIME_FILE).exists()


def test_a_remote_file_is_written_every_half_minute_and_at_the_ends(directory, watch):
    run_attempt(directory, watch, 0, [10])
    recorder = make(directory, watch)
    recorder._remote = True
    steps = []
    for action, seconds in ((recorder.begin, 0), *[(recorder.record, 10)] * 4, (recorder.close, 1)):
        watch.go(seconds)
        action(len(steps))
        steps.append([moment.step for moment in read_goodput_records(directory)][2:])
    assert steps == [[0], [0], [0], [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]


def test_the_age_of_this_process():
    """It is younger than the machine and older than nothing."""
    if not os.path.exists("/proc/self/stat"):
        pytest.skip("no /proc")
    with open("/proc/uptime") as file:
        assert 0 < process_age() <= float(file.read().split()[0]) + 0.01
