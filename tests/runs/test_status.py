"""Where a run stands, on run directories made by hand."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import tiny
from etils import epath

from moe_jax.commands.console import make_console
from moe_jax.commands.status_table import print_status
from moe_jax.errors import UserError
from moe_jax.runs.status import run_status
from moe_jax.training.run_directory.process_identity import this_process


def status(directory, now=None):
    """Prints and returns the status of a run."""
    found = run_status(directory, now)
    print_status(make_console(), found)
    return found


@pytest.fixture
def run(tmp_path):
    """Returns a run directory of 100 steps without a record."""
    (tmp_path / "run.json").write_text(json.dumps({"tokens_per_step": 64}))
    (tmp_path / "config.gin").write_text("STEPS = 100\nTrain.steps = %STEPS\n")
    return epath.Path(tmp_path)


def lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def fill(run):
    """Writes ten steps: 10 s of start, 5 s of compiling, then 2 s a step; now is 1033."""
    health = {
        "router/load": [[0.5, 0.5]] * 3,
        "router/max_violation": [0.0, 1.5, 0.0],
        "router/dropped_share": [0.0, 0.0, 0.06],
        "router/entropy": [0.6, 0.06, 0.5],
    }
    train = [
        {"step": s, "kind": "train", "loss": 4 - s / 10, "tokens_per_second": 32.0, **health}
        for s in (1, 5, 10)
    ]
    lines(run / "metrics.jsonl", [*train, {"step": 10, "kind": "eval", "causal_loss": 3.5}])
    spent = {"start": 10.0, "compile": 5.0}
    moments = [(1010, 0, {"start": 10.0}), (1023, 5, spent | {"step": 8.0})]
    moments.append((1033, 10, spent | {"step": 18.0}))
    lines(
        run / "time.jsonl",
        [{"attempt": "a", "time": t, "step": s, "seconds": sec} for t, s, sec in moments],
    )
    (run / "checkpoints" / "10").mkdir(parents=True)
    (run / "checkpoints" / "12.orbax-checkpoint-tmp-1").mkdir()


def test_a_run_that_goes(run, capsys):
    fill(run)
    found = status(str(run), now=1045.0)
    assert (found["state"], found["step"], found["steps"]) == ("running", 10, 100)
    assert found["last_record_age"] == 12
    assert found["loss"] == 3
    assert found["loss_per_1000_steps"] == pytest.approx(-100)
    assert found["tokens_seen"] == 640
    assert found["seconds_left"] == pytest.approx(90 * 2.0)
    assert found["goodput"] == pytest.approx(18 / 33)
    assert found["checkpoint"]["step"] == 10
    assert found["evaluation"]["causal_loss"] == 3.5
    assert "last record 0:12 ago" in capsys.readouterr().out
    assert json.loads(json.dumps(found)) == found


def test_layers_that_look_sick(run):
    fill(run)
    sick = [layer["sick"] for layer in status(str(run), now=1045.0)["router"]]
    # 0.06 < 0.1 ln 2 = 0.069.
    assert sick == [[], ["max_violation > 1", "entropy < 0.1 ln E"], ["dropped_share > 0.05"]]


def test_layers_have_their_number_in_the_model(run):
    """The first of every two is a mixture of experts: the second router is the third layer's."""
    fill(run)
    with open(run / "config.gin", "a") as file:
        file.write("Model.moe_every = 2\nModel.num_layers = 6\n")
    found = status(str(run), now=1045.0)
    assert [layer["layer"] for layer in found["router"]] == [1, 3, 5]
    assert (
        tuple(layer["layer"] for layer in found["router"]) == tiny.config(num_layers=6).moe_layers
    )
    assert found["warnings"][0].startswith("router of layer 3: ")


def test_what_is_printed_in_a_pipe(run, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    fill(run)
    status(str(run), now=1045.0)
    out = capsys.readouterr().out
    for name in (
        "max violation",
        "dropped share",
        "entropy",
        "max_violation > 1, entropy < 0.1 ln E",
    ):
        assert name in out
    assert "…" not in out
    assert "3.0000, -0.9000 in the last 9 steps" in out
    assert "│ 640 " in out
    assert "│ 32 tokens/s " in out
    assert "step 10: causal loss 3.5000" in out


def test_rows_with_padding_are_said_to_have_it(run, capsys):
    fill(run)
    (run / "run.json").write_text(json.dumps({"tokens_per_step": 64, "has_padding": True}))
    status(str(run), now=1045.0)
    out = capsys.readouterr().out
    assert "640 (padding included)" in out
    assert "32 tokens/s (without padding)" in out


def test_updates_that_were_skipped(run):
    fill(run)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 11, "kind": "train", "loss": 2.9, "skipped": 0, "skipped_total": 3}\n')
    found = status(str(run), now=1045.0)
    assert found["skipped"] == 3
    assert "3 updates were skipped" in found["warnings"]


def test_a_killed_run_is_silent_even_with_a_torn_line(run):
    fill(run)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 11, "ki')
    found = status(str(run), now=9000.0)
    assert (found["state"], found["step"]) == ("silent", 10)
    assert any("killed, or it hangs" in warning for warning in found["warnings"])


def test_a_run_without_a_record(run):
    found = status(str(run))
    assert (found["state"], found["step"], found["loss"]) == ("no record yet", 0, None)
    assert found["warnings"] == []


def owner(run, **changes):
    identity = dataclasses.replace(this_process(), **changes)
    record = {"identity": dataclasses.asdict(identity), "since": "2026-11-01T10:00:00+00:00"}
    (run / "owner.json").write_text(json.dumps(record))
    os.utime(run / "owner.json", (1040, 1040))


@pytest.mark.parametrize(
    ("changes", "alive", "state", "words"),
    [
        ({}, True, "running", "runs"),
        ({"started": "1"}, False, "killed", "does not run any more: the next start takes over"),
        ({"boot": "b", "machine": "m"}, None, "running", "last sign of life 0:05 ago"),
    ],
)
def test_who_trains_there(run, capsys, monkeypatch, changes, alive, state, words):
    monkeypatch.setenv("COLUMNS", "200")
    fill(run)
    owner(run, **changes)
    found = status(str(run), now=1045.0)
    assert (found["state"], found["owner"]["alive"]) == (state, alive)
    assert found["owner"]["process"] == os.getpid()
    said = capsys.readouterr().out
    assert f"process {os.getpid()} on " in said
    assert f"since 2026-11-01T10:00:00+00:00: {words}" in said


def test_a_run_that_starts_has_nothing_but_its_owner(tmp_path):
    owner(epath.Path(tmp_path))
    assert status(str(tmp_path))["state"] == "starting"


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="is not a run directory"):
        status(str(tmp_path))


def test_devices_are_left_alone(run):
    fill(run)
    code = f"import sys; from moe_jax import cli; sys.exit(cli.main(['status', {str(run)!r}]))"
    environment = {"JAX_PLATFORMS": "none_such", "PYTHONPATH": ":".join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
