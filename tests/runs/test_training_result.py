"""What a finished run reports, from its records."""

import json

import fake_runs
import pytest
from etils import epath

from moe_jax import experiments
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.runs.status import run_status
from moe_jax.runs.training_result import note_early_stop, read_early_stop, read_result
from moe_jax.training.run_directory import run_directory

LOSSES = {0: 0.5, 10: 3.0, 20: 1.0, 30: 2.0, 40: 1.5}


def experiment(*bindings):
    return experiments.load(ConfigSource(["runs/quickstart.gin"], list(bindings)))


@pytest.fixture
def run(tmp_path):
    """Returns a run directory with the evaluations above and a step after them."""
    records = [fake_runs.evaluation_record(step, loss, loss) for step, loss in LOSSES.items()]
    return epath.Path(fake_runs.write_run(tmp_path / "run", steps=60, records=records))


PATIENCE = ["Train.eval_every=40", "Checkpoints.keep_best=1", "Train.patience=2"]


@pytest.mark.parametrize(
    ("bindings", "step", "best_is"),
    [
        ((), 40, ""),
        (("Checkpoints.best_is=-loss",), 20, "lowest loss"),
        (PATIENCE, 20, "lowest causal_loss"),
    ],
)
def test_the_figures_are_those_of_the_last_or_of_the_best_evaluation(run, bindings, step, best_is):
    result = read_result(run, experiment(*bindings), None)
    assert result.figures["step"] == step
    assert result.figures["loss"] == LOSSES[step]
    assert result.best_is == best_is


def test_without_an_evaluation_there_is_no_result(tmp_path):
    directory = epath.Path(fake_runs.write_run(tmp_path / "run", steps=60, records=[]))
    with pytest.raises(UserError, match=r"has no evaluation in its metrics.jsonl"):
        read_result(directory, experiment(), None)


@pytest.mark.parametrize(
    ("step", "patience", "due"),
    # Of step 40 two evaluations since the best; records after the step do not count.
    [
        (40, 2, True),
        (40, 3, False),
        (40, 0, False),
        (30, 2, False),
        (30, 1, True),
        (None, 1, False),
    ],
)
def test_evaluations_without_improvement_are_counted_up_to_the_step(run, step, patience, due):
    stop = read_early_stop(run, experiment(*PATIENCE, f"Train.patience={patience}"), step)
    assert stop.is_due == due


def test_an_early_stop_is_written_and_is_the_end_of_the_run(run):
    stop = read_early_stop(run, experiment(*PATIENCE), 40)
    before = run_directory.read_record(run)
    note_early_stop(run, stop, 40)
    found = {"step": 40, "best_step": 20, "best_is": "lowest causal_loss"}
    assert run_directory.read_record(run) == before | {"early_stop": found}
    (run / "metrics.jsonl").write_text(
        (run / "metrics.jsonl").read_text() + json.dumps(fake_runs.training_record(40)) + "\n"
    )
    assert run_status(str(run))["state"] == "finished"
