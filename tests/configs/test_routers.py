"""Every file in configs/routers/ trains: the loss falls, the router learns, metrics are finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiers import mostly_slow

from moe_jax import config, experiments
from moe_jax.config_source import ConfigSource
from moe_jax.models.functional import Variables
from moe_jax.models.layer_routing import RoutingContext
from moe_jax.routers import ROUTERS, get_router
from moe_jax.training.optimizers import adamw
from moe_jax.training.state import make_state
from moe_jax.training.step import LossConfig, forward, make_train_step, token_loss

FILES = [name for name in config.shipped() if name.startswith("routers/")]
NAMES = [name.removeprefix("routers/").removesuffix(".gin") for name in FILES]
SMALL = [
    "Model.num_layers=2",
    "Model.d_model=32",
    "Model.num_heads=2",
    "Model.head_dim=16",
    "Model.d_ff=48",
    "Model.num_experts=8",
    "Data.batch_size=16",
    "Data.sequence_length=16",
]
STEPS = 20

KERNEL = "groups/layers/0/ffn/router_kernel"


def load(name):
    """Returns the quickstart, made small, with a file of routers."""
    return experiments.load(ConfigSource(["runs/quickstart.gin", f"routers/{name}.gin"], SMALL))


@pytest.mark.parametrize("name", mostly_slow(NAMES, ()))
def test_file_trains_20_steps(name):
    loaded = load(name)
    model = loaded.language_model()
    optimizer = adamw(lambda step: 3e-3)
    state = make_state(model, optimizer, 0)
    step = make_train_step(model, optimizer, loaded.loss)
    batch = tiny.make_batch(16, 16)
    # Those of a registered name are in test_step.py, for every expert.
    if model.router.is_learned and name not in ROUTERS:
        gradient = router_gradient(model, state.variables, batch)
        assert np.abs(gradient).max() > 1e-6
        assert np.isfinite(gradient).all()
    losses = []
    for _ in range(STEPS):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
        assert all(np.isfinite(value).all() for value in metrics.values())
    assert np.mean(losses[-3:]) < losses[0] - 0.5
    assert step._cache_size() == 1


def router_gradient(model, variables, batch):
    """Returns the gradient of the language model's loss alone, routed as in training."""

    @jax.jit
    def gradient(kernel):
        def nll(kernel):
            changed = Variables(variables.params | {KERNEL: kernel}, variables.router_state)
            context = RoutingContext(jax.random.key(1))
            output = forward(model, changed, batch, context)
            loss = token_loss(model, changed, output, batch, LossConfig(z_loss=0.0))[0]
            return loss / batch.inputs_BS.size

        return jax.grad(nll)(kernel)

    return np.asarray(gradient(jnp.asarray(variables.params[KERNEL])))


@pytest.mark.parametrize("name", ROUTERS)
def test_file_of_a_registered_name_has_its_defaults(name):
    """The registry, which benchmarks and documentation use, and the files describe one router."""
    from_file = load(name).router
    registered = get_router(name)
    assert from_file.name == registered.name == name
    if name == "expert_choice":
        assert from_file.capacity_factor == registered.capacity_factor
        assert from_file.pool == registered.pool
    else:
        assert from_file == registered
