"""The functions of the scripts that start no processes."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def load(monkeypatch):
    """Returns a function that imports a script by name."""
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])

    def load(name):
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_kills_are_spread_over_the_steps_and_the_same_again(load):
    killed_run = load("killed_run")
    moments = [killed_run.Moment(0, number, 50, 1000) for number in range(50)]
    again = [killed_run.Moment(0, number, 50, 1000) for number in range(50)]
    assert [(m.kind, m.step) for m in moments] == [(m.kind, m.step) for m in again]
    # One for every fiftieth of the run, before its last step.
    for number, moment in enumerate(moments):
        assert number * 998 / 50 <= moment.step <= 1 + (number + 1) * 998 / 50 < 1000
    assert {moment.kind for moment in moments} == {"random", "save", "start"}


def test_what_is_on_the_disk_of_a_killed_run_is_read(load, tmp_path):
    run = load("killed_run").Run(tmp_path / "run", [])
    assert (run.reached(), run.saved(), run.saving()) == (0, [], [])
    for name in ("10", "2", "12.orbax-checkpoint-tmp"):
        (run.directory / "checkpoints" / name).mkdir(parents=True)
    whole = '{"step": 10, "kind": "train", "loss": 1}\n{"step": 10, "kind": "eval", "loss": 1}\n'
    (run.directory / "metrics.jsonl").write_text(whole + '{"step": 11, "kind": "tra')
    run.directory.with_suffix(".out").write_text(
        "checkpoint 12 is damaged (cut): going on from 10\nGoing on from step 10 in run\n"
    )
    assert (run.reached(), run.saved(), run.saving()) == (10, [2, 10], [12])
    assert run.went_on_from() == 10


def test_the_figures_of_kills_are_sums(load):
    def kill(**values):
        usual = {"kind": "random", "seconds": 10.0, "first_step_seconds": 4.0, "redone": 0}
        return {**usual, "saved": [2, 4], "saving": [], "unreadable": {}, **values}

    kills = [
        kill(redone=3, saving=[6]),
        kill(kind="start", first_step_seconds=None, saved=[4]),
        kill(redone=1, first_step_seconds=6.0, unreadable={"4": "cut"}),
    ]
    figures = load("kill_resume").summary(
        {
            "kills": kills,
            "run": {"seconds": 12.0, "redone": 2},
            "whole": {"seconds": 30.0, "steps": 80},
            "arrays": 5,
            "different": [],
        }
    )
    assert figures["kills"] == 3
    assert figures["kills_during_a_save"] == 1
    assert figures["kills_before_the_first_step"] == 1
    assert figures["checkpoints_restored"] == 5
    assert figures["checkpoints_unreadable"] == 1
    assert (figures["steps_redone"], figures["most_steps_redone"]) == (6, 3)
    assert figures["seconds_lost_per_kill"] == pytest.approx((42 - 30) / 3)
    assert figures["seconds_to_the_first_step"] == 5.0


def test_only_what_is_between_the_markers_is_replaced(load):
    faults = load("faults")
    page = "a\n<!-- faults: begin -->\n\nold\n\n<!-- faults: end -->\nz <!-- kills: begin -->"
    assert faults.replaced(page, "faults", "new") == page.replace("old", "new")
    with pytest.raises(SystemExit, match="begin"):
        faults.replaced(page, "kills", "new")


def test_places_and_hosts_are_left_out_of_the_page(load, tmp_path, monkeypatch):
    faults = load("faults")
    monkeypatch.setattr(faults.platform, "node", lambda: "host-7")
    line = f"moe-jax: host-7: no room in {tmp_path}/run | x"
    assert faults.short(line, tmp_path) == "`moe-jax: HOST: no room in .../run \\| x`"
    assert faults.short("-", tmp_path) == "nothing"
