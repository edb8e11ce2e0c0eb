"""The writer for Weights & Biases, with a fake package."""

import importlib.util
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.training.metric_writers import make_writer as make_writer_module
from moe_jax.training.metric_writers.config import WriterConfig
from moe_jax.training.metric_writers.jsonl_writer import read_metrics
from moe_jax.training.metric_writers.make_writer import make_writer


class FakeRun:
    """A fake run that records its calls."""

    def __init__(self, **options):
        self.options, self.logged, self.metrics, self.finished = options, [], [], False
        self.config = self
        self.texts = {}

    def define_metric(self, name, step_metric):
        self.metrics.append((name, step_metric))

    def log(self, values):
        self.logged.append(values)

    def update(self, values, allow_val_change):
        self.texts |= values

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    """Replaces the package wandb by a fake; returns it with its runs."""
    module = types.ModuleType("wandb")
    module.runs = []

    def init(**options):
        module.runs.append(FakeRun(**options))
        return module.runs[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_weights_and_biases_gets_the_same(directory, wandb):
    config = WriterConfig(tensorboard=False, wandb_project="moe")
    for resumed in (0, 4):
        writer = make_writer(directory, resumed, config)
        writer.write(5, "train", {"loss": jnp.float32(2.5), "entropy": np.array([0.25, 0.5])})
        writer.write_text("config.gin", "STEPS = 5")
        writer.close()
    first, second = wandb.runs
    assert first.options["project"] == "moe"
    assert first.options["name"] == directory.name
    assert first.options["dir"] == str(directory)
    # The same run goes on, and its steps may go back.
    assert first.options["id"] == second.options["id"]
    assert second.options["resume"] == "allow"
    assert first.metrics == [("*", "step")]
    assert first.logged == [
        {"step": 5, "train/loss": 2.5, "train/entropy/0": 0.25, "train/entropy/1": 0.5}
    ]
    assert first.texts == {"config.gin": "STEPS = 5"}
    assert first.finished


def test_weights_and_biases_that_cannot_start_is_a_warning(directory, wandb):
    def init(**options):
        raise RuntimeError("api_key not configured\n(no-tty)")

    wandb.init, warnings = init, []
    config = WriterConfig(tensorboard=False, wandb_project="moe", wandb_name="one")
    writer = make_writer(directory, 0, config, warnings.append)
    writer.write(1, "train", {"loss": 1.0})
    writer.close()
    assert len(read_metrics(directory)) == 1
    assert warnings == [
        "Weights & Biases cannot be started, training goes on without: "
        "api_key not configured (no-tty)"
    ]


@pytest.mark.parametrize("main", [True, False])
def test_a_missing_package_is_told_in_one_line_by_every_process(directory, monkeypatch, main):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "wandb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(make_writer_module, "is_main", lambda: main)
    with pytest.raises(UserError, match=r"moe_jax\[wandb\]") as error:
        make_writer(directory, 0, WriterConfig(wandb_project="moe"))
    assert "\n" not in str(error.value)
