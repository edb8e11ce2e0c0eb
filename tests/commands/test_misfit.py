"""Errors of a checkpoint that does not fit name the settings, and both routers."""

import pytest
from etils import epath

from moe_jax import config, experiment
from moe_jax.commands.misfit import naming_settings, other_router, router_name
from moe_jax.errors import UserError
from moe_jax.training.checkpoints import Misfit

FILES = ["runs/pretrain.gin", "models/tiny_8e.gin"]


@pytest.fixture
def run(tmp_path):
    """Returns the directory of a run with expert choice."""
    experiment.load([*FILES, "routers/expert_choice.gin"], [])
    (tmp_path / "config.gin").write_text(config.operative())
    return epath.Path(tmp_path)


def misfit(run):
    """Returns what is said of a checkpoint that does not fit."""
    with pytest.raises(UserError) as error, naming_settings(run):
        raise Misfit("it does not fit: a/b: 1 -> 2")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_router_is_named_beside_the_runs(run):
    assert other_router(run) is None
    for file, name in (("switch", "switch"), ("hash", "hash"), ("gshard_top2", "gshard_top2")):
        bindings = ["Hash.frequencies=None"] if file == "hash" else []
        experiment.load([*FILES, f"routers/{file}.gin"], bindings)
        assert router_name(config.operative()) == name
        routers = f"trained with the router expert_choice, and this configuration has {name}"
        assert routers in other_router(run)
        assert routers in misfit(run)


def test_a_setting_of_the_model_is_named(run):
    experiment.load([*FILES, "routers/expert_choice.gin"], ["Model.d_ff=64"])
    own = experiment.load([str(run / "config.gin")], []).model.d_ff
    experiment.load([*FILES, "routers/expert_choice.gin"], ["Model.d_ff=64"])
    said = misfit(run)
    assert f"a/b: 1 -> 2. What differs: Model.d_ff is {own} in the run and 64 here" in said
    assert "router" not in said


def test_where_no_setting_differs_the_arrays_are_all_there_is_to_say(run):
    assert misfit(run) == "it does not fit: a/b: 1 -> 2"


def test_a_dense_model_has_no_router():
    experiment.load([*FILES, "routers/switch.gin"], ["Model.num_experts=0"])
    assert router_name(config.operative()) == "none (a dense model)"
