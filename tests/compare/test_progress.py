"""The progress of a study."""

import io
import json

import fake_study
import pytest
from rich.console import Console

from moe_jax.compare.progress import StudyProgress, last_step
from moe_jax.compare.scheduler import Progress


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def shown(tmp_path):
    """Returns the progress on no terminal, its text, and its clock."""
    study, _ = fake_study.plan(tmp_path, "Study.seeds=(1,)")
    text, clock = io.StringIO(), Clock()
    console = Console(file=text, width=200)
    jobs = study.comparison({})
    return StudyProgress(console, jobs, study.directory.path, now=clock), text, clock


def write_step(tmp_path, name, step):
    directory = tmp_path / "study/runs" / name
    directory.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"step": step, "seconds": {"step": 1.0}})
    (directory / "time.jsonl").write_text(f"{line}\n{line[:9]}")
    return directory


def test_lines_of_a_log(tmp_path, shown):
    progress, text, clock = shown
    state = Progress(states={"ec/seed_1": "running", "gshard/seed_1": "waiting"})
    state.began["ec/seed_1"] = clock.now
    with progress:
        progress(state)
        clock.now += 61
        progress(state)
        write_step(tmp_path, "ec/seed_1", 10)
        clock.now += 61
        progress(state)
        state.states["ec/seed_1"], state.seconds["ec/seed_1"] = "finished", 244.0
        state.states["gshard/seed_1"] = "failed"
        state.errors["gshard/seed_1"] = "no file (log: x)"
        progress(state)
    assert text.getvalue().splitlines() == [
        "  ec/seed_1 starting",
        # A quarter of 1 of 3 runs took 122 s: 2.75 runs are left.
        "  ec/seed_1 25%, 22:22 left",
        "2/3 ec/seed_1 finished in 4:04",
        "2/3 gshard/seed_1 failed: no file (log: x)",
    ]


def test_runs_that_were_done_before_have_no_line(shown):
    progress, text, _ = shown
    with progress:
        progress(Progress(states={"ec/seed_1": "finished", "gshard/seed_1": "elsewhere"}))
    assert text.getvalue() == "1/3 gshard/seed_1 is trained by another process\n"


def test_a_bar_on_a_terminal(tmp_path):
    study, _ = fake_study.plan(tmp_path, "Study.seeds=(1,)")
    text = io.StringIO()
    console = Console(file=text, width=120, force_terminal=True, _environ={"TERM": "xterm"})
    write_step(tmp_path, "ec/seed_1", 20)
    with StudyProgress(console, study.comparison({}), study.directory.path) as progress:
        progress(Progress(states={"ec/seed_1": "running", "gshard/seed_1": "finished"}))
    assert "2/3 runs" in text.getvalue()
    assert "ec/seed_1 50%" in text.getvalue()


def test_the_last_step_is_read_without_the_whole_file(tmp_path):
    assert last_step(tmp_path) is None
    assert last_step(write_step(tmp_path, "a", 7)) == 7
    directory = write_step(tmp_path, "b", 7)
    path = directory / "time.jsonl"
    path.write_text("x" * 10_000 + "\n" + path.read_text().splitlines()[0] + "\n")
    assert last_step(directory) == 7
    path.write_text("x" * 10_000)
    assert last_step(directory) is None
