"""The evaluations of training: with the scores of the task only if they are wanted."""

import types
import typing

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from moe_jax import experiments
from moe_jax.config_source import ConfigSource
from moe_jax.models.batch_context import BatchContext
from moe_jax.runs import task_evaluation
from moe_jax.runs.held_out import make_evaluate


class Scorer:
    """Notes what it is made and called with."""

    calls: typing.ClassVar = []

    def __init__(self, experiment, model, examples=0):
        self.calls.append((experiment, model, examples))

    def __call__(self, variables):
        self.calls.append(variables)
        return {"task/accuracy": 0.75}


@pytest.mark.parametrize("wanted", [False, True])
def test_scores_of_the_task_are_added(wanted, monkeypatch):
    monkeypatch.setattr(task_evaluation, "TaskScorer", Scorer)
    monkeypatch.setattr(Scorer, "calls", [])
    bindings = [f"TaskScores.in_training={wanted}", "TaskScores.examples=5"]
    experiment = experiments.load(ConfigSource(["runs/quickstart.gin"], bindings))
    model, variables = tiny.make(None, num_experts=0, num_layers=1, position="rotary")
    batch = tiny.make_batch(2, 8)
    data = types.SimpleNamespace(held_out=[batch], bytes_of_token=np.ones(64))
    metrics = make_evaluate(experiment, model, data)(variables)
    decoder = model.bind(variables)
    hidden = decoder(BatchContext.of_tokens(jnp.asarray(batch.inputs_BS))).hidden_BSD
    logits = np.asarray(decoder.logits(hidden), np.float64)
    of_target = np.take_along_axis(logits, batch.targets_BS[..., None], -1)[..., 0]
    expected = (np.log(np.exp(logits).sum(-1)) - of_target).mean()
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics.get("task/accuracy") == (0.75 if wanted else None)
    assert Scorer.calls == ([(experiment, model, 5), variables] if wanted else [])
