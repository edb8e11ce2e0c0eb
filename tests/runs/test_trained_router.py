"""Another router than the one of training is named beside it."""

import dataclasses

import pytest
from etils import epath

from moe_jax import config, experiments
from moe_jax.config_source import ConfigSource
from moe_jax.runs.loading import Run
from moe_jax.runs.trained_router import router_mismatch, router_name

FILES = ["runs/pretrain.gin", "models/tiny_8e.gin"]


@pytest.fixture
def run(tmp_path):
    """Returns a run with expert choice."""
    experiments.load(ConfigSource([*FILES, "routers/expert_choice.gin"]))
    (tmp_path / "config.gin").write_text(config.operative())
    return Run(epath.Path(tmp_path), None, config.operative())


def test_another_router_is_named_beside_the_runs(run):
    assert router_mismatch(run) is None
    for file, name in (("switch", "switch"), ("hash", "hash"), ("gshard_top2", "gshard_top2")):
        bindings = ["Hash.frequencies=None"] if file == "hash" else []
        experiments.load(ConfigSource([*FILES, f"routers/{file}.gin"], bindings))
        assert router_name(config.operative()) == name
        routers = f"trained with the router expert_choice, and this configuration has {name}"
        assert routers in router_mismatch(dataclasses.replace(run, config=config.operative()))


def test_a_dense_model_has_no_router():
    experiments.load(ConfigSource([*FILES, "routers/switch.gin"], ["Model.num_experts=0"]))
    assert router_name(config.operative()) == "none (a dense model)"
