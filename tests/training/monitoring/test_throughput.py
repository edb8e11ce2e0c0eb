"""The moving average of the throughput, with a fake clock."""

import time

import pytest

from moe_jax.training.monitoring.throughput import ThroughputMeter


@pytest.fixture
def clock(monkeypatch):
    """Returns a list whose first item is the time of the fake monotonic clock."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_first_step_gives_no_rate(clock):
    assert ThroughputMeter().update(1000) == 0.0


def test_second_step_gives_its_own_rate(clock):
    meter = ThroughputMeter()
    meter.update(1e9)
    clock[0] += 4
    assert meter.update(1000) == pytest.approx(250)


def test_moving_average_weighs_the_newest_step_a_fifth(clock):
    """After rates r0, r1, ...: 0.8^n r0 + sum of 0.2 * 0.8^(n - i) r_i."""
    rates = [100.0, 300.0, 50.0, 800.0]
    meter = ThroughputMeter()
    meter.update(1)
    for rate in rates:
        clock[0] += 2
        shown = meter.update(2 * rate)
    n = len(rates) - 1
    expected = 0.8**n * rates[0] + sum(0.2 * 0.8 ** (n - i) * rates[i] for i in range(1, n + 1))
    assert shown == pytest.approx(expected)


def test_paused_time_is_left_out(clock):
    meter = ThroughputMeter()
    meter.update(1)
    clock[0] += 1
    with meter.paused():
        clock[0] += 60
    clock[0] += 1
    with meter.paused():
        clock[0] += 7
    assert meter.update(1000) == pytest.approx(500)
    clock[0] += 2
    assert meter.update(1000) == pytest.approx(500)


def test_pause_before_the_first_step_does_not_count(clock):
    meter = ThroughputMeter()
    with meter.paused():
        clock[0] += 60
    assert meter.update(1) == 0.0
    clock[0] += 2
    assert meter.update(1000) == pytest.approx(500)


def test_clock_that_stands_still_does_not_divide_by_zero(clock):
    meter = ThroughputMeter()
    meter.update(1)
    assert meter.update(1) == pytest.approx(1e9)
