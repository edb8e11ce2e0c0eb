"""The progress bar and the lines of a log."""

import io

import pytest
from rich.console import Console

from moe_jax.training.monitoring import progress
from moe_jax.training.monitoring.progress import BarReporter, LineReporter, SilentReporter


def make_console(terminal=False):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def test_a_log_has_a_line_every_twentieth_and_every_minute():
    console, now = make_console(), [1e6]
    reporter = LineReporter(console, now=lambda: now[0])
    reporter.start(0, 1000)
    for step in range(1, 131):
        # The first fifty take no time; then a step takes 25 seconds.
        now[0] += 25.0 if 50 < step <= 60 else 0.0
        reporter.update(step, 3.0, 10.0)
    shown = [int(line.split("/")[0].split()[1]) for line in console.file.getvalue().splitlines()]
    assert shown == [1, 50, 53, 56, 59, 100]


@pytest.mark.parametrize(
    ("what", "words"),
    [("compile", "compiling the step"), ("evaluation", "evaluating"), ("other", "other")],
)
def test_what_is_no_step_is_named(what, words, monkeypatch):
    said = []
    monkeypatch.setattr(progress, "waiting", lambda text: said.append(text))
    LineReporter(make_console()).activity(what)
    assert said == [words]
    with SilentReporter().activity(what):
        pass
    assert said == [words]
    console = make_console(terminal=True)
    reporter = BarReporter(console)
    reporter.start(0, 10)
    with reporter.activity(what):
        reporter._progress.refresh()
        assert f"{words} ..." in console.file.getvalue()
    reporter.update(1, 2.5, 10.0)
    console.file.truncate(0)
    reporter._progress.refresh()
    reporter.stop()
    assert "loss 2.500" in console.file.getvalue()
    assert words not in console.file.getvalue()
