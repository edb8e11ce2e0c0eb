"""Routers in configurations: a later file, nested settings, weights of losses, old names."""

import pytest

from moe_jax import config, experiments
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.routers import get_router
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.switch import Switch
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing.pools import Pool

QUICKSTART = "runs/quickstart.gin"


def load(*files, bindings=()):
    return experiments.load(ConfigSource((QUICKSTART, *files), bindings))


def write(tmp_path, text, name="my.gin"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


@pytest.mark.parametrize(
    "first", ["topk_bias", "topk_shared_grouped", "expert_choice_position", "vmoe_priority"]
)
@pytest.mark.parametrize("second", ["topk", "switch", "expert_choice"])
def test_a_later_file_of_routers_takes_back_what_one_before_set(first, second):
    """One after the other is the last alone: its router, the losses' weights, and the model."""
    both = load(f"routers/{first}.gin", f"routers/{second}.gin")
    alone = load(f"routers/{second}.gin")
    assert both.router == alone.router
    assert both.loss == alone.loss
    assert both.model == alone.model


def test_what_was_set_after_a_file_of_routers_stays(tmp_path):
    mine = write(
        tmp_path,
        f"include '{QUICKSTART}'\ninclude 'routers/topk_bias.gin'\n"
        "TokenChoice.score = 'sqrt_softplus'\nTokenChoice.k = 3\n",
    )
    loaded = experiments.load(ConfigSource((mine, "routers/topk.gin")))
    assert loaded.router == TokenChoice(score="sqrt_softplus", k=3)


def test_the_quickstarts_own_settings_stay():
    router = load("routers/switch.gin", "routers/expert_choice.gin").router
    assert router == ExpertChoice(threshold_decay=0.99)


@pytest.mark.parametrize(
    ("bindings", "pool"),
    [
        ((), Pool("sequence")),
        (("Pool.kind=batch",), Pool("batch")),
        (("Pool.kind=batch", "Pool.rows=4"), Pool("batch", 4)),
        (("Switch.pool=@other/Pool()", "other/Pool.kind=position"), Pool("position")),
    ],
)
def test_the_pool_of_a_router_needs_no_reference(bindings, pool):
    assert load("routers/switch.gin", bindings=bindings).router == Switch(pool=pool)
    # A run keeps all of it, and reads it back.
    kept = config.operative()
    assert "Switch.pool = @" in kept
    assert f"Pool.kind = '{pool.kind}'" in kept


def test_what_a_run_keeps_makes_the_same_experiment(tmp_path):
    first = load("routers/glam_top2.gin", bindings=("Pool.rows=2", "Pool.kind=batch"))
    kept = write(tmp_path, config.operative())
    second = experiments.load(ConfigSource((kept,)))
    assert second.router == first.router
    assert second.loss == first.loss


def test_weights_add_up_item_by_item(tmp_path):
    mine = write(tmp_path, "Loss.weights = {'router_z': 1e-3}\n")
    loaded = load("routers/topk_bias.gin", mine, bindings=("Loss.weights={'load': 0.5}",))
    weights = {"balance": 0.0, "router_z": 1e-3, "importance": 0.005, "load": 0.5}
    assert loaded.loss.weights == weights
    assert "'balance': 0.0" in config.operative()


@pytest.mark.parametrize(
    ("old", "name"),
    [
        ("balance_loss", "balance"),
        ("router_z_loss", "router_z"),
        ("importance_loss", "importance"),
        ("load_loss", "load"),
        ("consistency", "consistency"),
    ],
)
def test_old_names_of_weights_are_read_as_the_new(old, name, tmp_path):
    mine = write(tmp_path, f"Loss.{old} = 0.25\n")
    for loaded in (load(mine), load(bindings=(f"Loss.{old}=0.25",))):
        assert loaded.loss.weights[name] == 0.25
    with pytest.raises(UserError, match=rf"Loss.weights\['{name}'\] must be .*not -1"):
        load(bindings=(f"Loss.{old}=-1",))


def test_the_old_form_of_a_router_is_the_same_router(tmp_path):
    """What stood in routers/switch.gin before `@Switch()`."""
    mine = write(
        tmp_path,
        "Experiment.router = @TokenChoice()\nTokenChoice.name = 'switch'\nTokenChoice.k = 1\n"
        "TokenChoice.normalise = False\nTokenChoice.capacity_factor = 1.25\n"
        "TokenChoice.jitter = 0.01\nTokenChoice.pool = @Pool()\nPool.kind = 'sequence'\n",
    )
    old, new = vars(load(mine).router), vars(get_router("switch"))
    assert old == new


@pytest.mark.parametrize("name", ["jitter", "k"])
def test_settings_of_the_base_after_the_choice_name_the_new_ones(name, tmp_path):
    message = rf"TokenChoice.{name} \(.*\) has no effect on .*@Switch\(\): set Switch.{name}"
    with pytest.raises(UserError, match=message):
        load("routers/switch.gin", bindings=(f"TokenChoice.{name}=1",))
    mine = write(tmp_path, f"include 'routers/switch.gin'\nTokenChoice.{name} = 1\n")
    with pytest.raises(UserError, match=message):
        load(mine)
    # Before the choice it may be there for another router.
    other = write(tmp_path, f"TokenChoice.{name} = 1\n", "before.gin")
    assert load(other, "routers/switch.gin").router == Switch()


def test_settings_of_the_base_in_the_packages_files_may_stay():
    """The quickstart sets `ExpertChoice.threshold_decay`, and capped expert choice is derived."""
    assert load("routers/expert_choice_capped.gin").router.name == "expert_choice_capped"
