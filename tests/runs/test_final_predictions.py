"""The predictions that a finished run writes."""

import dataclasses
import json
import types

import pytest
from etils import epath

from moe_jax import config, experiments
from moe_jax.config_source import ConfigSource
from moe_jax.runs import final_predictions, task_evaluation
from moe_jax.runs.final_predictions import write_final_predictions
from moe_jax.runs.loading import Run
from moe_jax.sharding.partition import SINGLE_DEVICE

BOTH = "TaskScores.predicted_splits=('validation', 'test')"


@pytest.fixture
def loaded(monkeypatch):
    """Returns the steps that were loaded; the model and the scores are fakes."""
    steps = []

    def load_model(run, step, partition):
        steps.append(step)
        return types.SimpleNamespace(model=None, variables=None, step=7)

    class Scorer:
        def __init__(self, experiment, model):
            self.split = experiment.task_scores.split

        def evaluate(self, variables, say):
            keys = {"task": "t", "split": self.split, "target": "x"}
            rows = [{**keys, "index": i, "prediction": "p"} for i in range(3)]
            causal = types.SimpleNamespace(predictions=rows)
            return [types.SimpleNamespace(rows=lambda: rows, causal=causal)]

    monkeypatch.setattr(final_predictions, "load_model", load_model)
    monkeypatch.setattr(task_evaluation, "TaskScorer", Scorer)
    return steps


def make_run(directory, *bindings):
    experiment = experiments.load(ConfigSource(("runs/quickstart.gin",), bindings))
    return Run(epath.Path(directory), experiment, config.operative())


def write(run):
    lines = []
    write_final_predictions(run, SINGLE_DEVICE, lines.append)
    return lines


def test_every_split_has_a_file_and_is_not_predicted_twice(tmp_path, loaded):
    run = make_run(tmp_path, BOTH, "Checkpoints.best_is='-loss'")
    validation, test = (tmp_path / f"predictions_{s}.jsonl" for s in ("validation", "test"))
    assert write(run) == [
        f"3 predictions of step 7 in {validation}",
        f"3 predictions of step 7 in {test}",
    ]
    rows = [json.loads(line) for line in test.read_text().splitlines()]
    assert [(row["split"], row["index"]) for row in rows] == [("test", i) for i in range(3)]
    assert loaded == ["best"]
    validation.unlink()
    assert write(run) == [f"3 predictions of step 7 in {validation}"]
    assert write(run) == []
    assert len(loaded) == 2


def test_without_a_metric_of_its_own_the_latest_checkpoint_predicts(tmp_path, loaded):
    write(make_run(tmp_path, BOTH))
    assert loaded == ["latest"]


def test_nothing_is_loaded_where_nothing_is_asked_for(tmp_path, loaded):
    run = make_run(tmp_path)
    assert write(run) == []
    none = dataclasses.replace(run.experiment.task_scores, predicted_splits=())
    assert run.experiment.task_scores == none
    assert (loaded, list(tmp_path.iterdir())) == ([], [])
