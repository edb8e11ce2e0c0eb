"""The traced steps, with a fake profiler, and once with the profiler of JAX."""

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from moe_jax.training.monitoring import profiling
from moe_jax.training.monitoring.profiling import Profiler


@pytest.fixture
def directory(tmp_path):
    return epath.Path(tmp_path)


@pytest.fixture
def notes(monkeypatch):
    """Replaces the profiler of JAX by a list of its calls."""
    notes = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda path: notes.append(["start", path]))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: notes.append(["stop"]))
    return notes


def run(profiler, steps, notes, act=lambda step: None):
    """Runs steps and records each."""
    for step in steps:
        act(step)
        profiler.before(step)
        notes.append(step)
        profiler.after(step, jnp.zeros(()))


def traced(notes):
    """Returns the steps between a start and a stop."""
    inside, steps = False, []
    for note in notes:
        if isinstance(note, list):
            inside = note[0] == "start"
        elif inside:
            steps.append(note)
    assert not inside
    return steps


def test_the_steps_asked_for_are_traced(directory, notes):
    run(Profiler(directory, start=3, steps=2), range(1, 8), notes)
    assert notes == [1, 2, ["start", str(directory / "traces")], 3, 4, ["stop"], 5, 6, 7]


def test_a_run_that_goes_on_traces_what_is_left_of_them(directory, notes):
    run(Profiler(directory, start=3, steps=4), range(5, 10), notes)
    assert traced(notes) == [5, 6]


def test_a_run_that_goes_on_later_traces_nothing(directory, notes):
    run(Profiler(directory, start=3, steps=2), range(5, 10), notes)
    assert notes == [5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("text", "steps"), [("", [4, 5, 6]), ("2\n", [4, 5]), ("many", [4, 5, 6]), ("0", [4, 5, 6])]
)
def test_a_file_asks_for_a_trace_while_a_run_goes(directory, notes, text, steps):
    messages, now = [], [0.0]
    profiler = Profiler(directory, warn=messages.append, clock=lambda: now[0])

    def act(step):
        now[0] += 2.0
        if step == 4:
            (directory / "profile").write_text(text)

    run(profiler, range(1, 10), notes, act)
    assert traced(notes) == steps
    assert not (directory / "profile").exists()
    assert any("must hold a number" in m for m in messages) == (text in ("many", "0"))


def test_the_file_is_looked_for_once_a_second(directory, notes):
    now = [0.0]
    profiler = Profiler(directory, clock=lambda: now[0])

    def act(step):
        now[0] += 0.3
        if step == 1:
            (directory / "profile").write_text("1")

    # Seen at 0.3 s? It is there for the first look; the next request waits for 1 s to pass.
    run(profiler, [1], notes, act)
    (directory / "profile").write_text("1")
    run(profiler, [2, 3, 4, 5, 6], notes, act)
    # Looks at 0.3 s and then not before 1.3 s: step 5 is at 1.5 s.
    assert traced(notes) == [1, 5]


def test_a_profiler_that_fails_is_a_warning(directory, notes, monkeypatch):
    def fail(*args):
        raise RuntimeError("only one\nprofile at a time")

    messages = []
    monkeypatch.setattr(jax.profiler, "start_trace", fail)
    run(Profiler(directory, start=2, steps=2, warn=messages.append), range(1, 6), notes)
    assert notes == [1, 2, 3, 4, 5]
    assert messages == ["a trace could not start: only one profile at a time"]
    monkeypatch.setattr(jax.profiler, "start_trace", lambda path: None)
    monkeypatch.setattr(jax.profiler, "stop_trace", fail)
    run(Profiler(directory, start=2, steps=2, warn=messages.append), range(1, 6), notes)
    assert messages[1:] == ["a trace could not finish: only one profile at a time"]


def test_a_file_that_cannot_be_removed_asks_for_nothing(directory, notes, monkeypatch):
    (directory / "profile").write_text("1")

    def refuse(path, *args, **more):
        raise PermissionError("not yours")

    monkeypatch.setattr(type(directory), "unlink", refuse)
    messages = []
    run(Profiler(directory, warn=messages.append), [1, 2], notes)
    assert notes == [1, 2]
    assert messages == ["a trace could not be asked for: not yours"]


def test_a_trace_under_way_ends_with_the_run(directory, notes):
    profiler = Profiler(directory, start=1, steps=10)
    run(profiler, [1, 2], notes)
    profiler.close()
    profiler.close()
    assert traced(notes) == [1, 2]


def test_only_the_first_process_traces(directory, notes, monkeypatch):
    monkeypatch.setattr(profiling, "is_main", lambda: False)
    run(Profiler(directory, start=1), [1, 2, 3], notes)
    assert notes == [1, 2, 3]


def test_jax_writes_a_trace(directory):
    profiler, step = Profiler(directory, start=2, steps=1), jax.jit(lambda x: x @ x)
    for number in (1, 2, 3):
        profiler.before(number)
        result = step(jnp.ones((8, 8)))
        profiler.after(number, result)
    assert list((directory / "traces").glob("plugins/profile/*/*.xplane.pb"))
