"""Non-finite updates of finite gradients leave the state unchanged, on any mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from moe_jax.models.functional import LanguageModel
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.sharding.mesh import MeshConfig
from moe_jax.sharding.partition import SINGLE_DEVICE, make_partition
from moe_jax.training.loss_spike_guard import GuardConfig, SkipReason, make_guard
from moe_jax.training.optimizers import adafactor, adamw
from moe_jax.training.state import TrainState, state_shardings
from moe_jax.training.update import make_update

SHAPE = {"num_layers": 2, "num_experts": 2, "d_model": 8, "d_ff": 8, "num_heads": 2, "head_dim": 4}
MESH = MeshConfig(fsdp=2, expert=2)


def label(value):
    return getattr(value, "__name__", None) or (value if isinstance(value, str) else None)


def constant(rate):
    return lambda step: jnp.float32(rate)


def make_model(mesh=None):
    partition = SINGLE_DEVICE if mesh is None else make_partition(mesh, jax.devices()[:4])
    return LanguageModel(tiny.config(**SHAPE), ExpertChoice(2.0), partition)


@functools.cache
def initial():
    """Returns initial variables, on the host."""
    return jax.device_get(make_model().init(jax.random.key(0)))


def initial_state(model, optimizer):
    optimizer_state = optimizer.transform.init(initial().params)
    state = TrainState(jnp.zeros((), jnp.int32), initial(), optimizer_state, make_guard())
    shardings = state_shardings(model, optimizer)
    return jax.device_put(state, shardings) if shardings else jax.tree.map(jnp.array, state)


def updated(optimizer, mesh=None, change=lambda state: state, router=0.5):
    """Returns a state and the result of an update with gradients of 1e-3, on the host.

    The gradient of the embedding is 0 in its last rows, as for words that are not in the batch.
    """
    model = make_model(mesh)
    state = change(initial_state(model, optimizer))
    gradients = jax.tree.map(lambda p: np.full_like(p, 1e-3), initial().params)
    gradients["embedding"][-9:] = 0.0
    router_state = jax.tree.map(lambda a: np.full_like(a, router), initial().router_state)
    before = jax.device_get(state)
    update = jax.jit(make_update(model, optimizer, GuardConfig()), donate_argnums=0)
    after, reason, norm = jax.device_get(update(state, gradients, router_state, jnp.float32(2.0)))
    assert np.isfinite(norm)
    return before, after, SkipReason(int(reason))


def parts(state):
    return jax.tree.leaves((state.variables, state.optimizer_state))


def full_moment(state):
    """Returns the state with a second moment at infinity, for which the update itself is 0."""

    def full(path, leaf):
        is_moment = ".nu" in jax.tree_util.keystr(path) and "embedding" in str(path)
        return leaf.at[0, 0].set(jnp.inf) if is_moment else leaf

    state_of = jax.tree_util.tree_map_with_path(full, state.optimizer_state)
    return dataclasses.replace(state, optimizer_state=state_of)


CASES = {
    "0/0 in the update": ({"optimizer": adamw(constant(1e-3), epsilon=0.0)}, SkipReason.UPDATE),
    "a parameter overflows": (
        {"optimizer": adamw(constant(3e38), weight_decay=9.0)},
        SkipReason.UPDATE,
    ),
    "adafactor's overflows": ({"optimizer": adafactor(constant(np.inf))}, SkipReason.UPDATE),
    "a moment overflowed": (
        {"optimizer": adamw(constant(1e-3)), "change": full_moment},
        SkipReason.UPDATE,
    ),
    "the router's state": (
        {"optimizer": adamw(constant(1e-3)), "router": np.nan},
        SkipReason.ROUTER,
    ),
}


@pytest.mark.parametrize(
    ("case", "mesh"),
    [*((case, None) for case in CASES), ("0/0 in the update", MESH), ("the router's state", MESH)],
    ids=label,
)
def test_an_update_that_is_not_finite_changes_nothing(case, mesh):
    arguments, reason = CASES[case]
    before, after, found = updated(mesh=mesh, **arguments)
    assert found is reason
    for old, new in zip(parts(before), parts(after), strict=True):
        np.testing.assert_array_equal(old, new)
    assert int(after.step) == 1
    assert [int(getattr(after.guard, n)) for n in ("seen", "skipped", "in_row")] == [0, 1, 1]
    # The loss was finite, but of no update.
    np.testing.assert_array_equal(after.guard.mean, 0)


@pytest.mark.parametrize(
    ("make", "mesh"), [(adamw, None), (adamw, MESH), (adafactor, MESH)], ids=label
)
def test_an_update_that_is_made_is_the_optimisers(make, mesh):
    optimizer = make(constant(1e-2))
    before, after, reason = updated(optimizer, mesh)
    assert reason is SkipReason.NONE
    params = before.variables.params
    gradients = {n: np.full_like(p, 1e-3) for n, p in params.items()}
    gradients["embedding"][-9:] = 0.0
    expected, _ = jax.jit(optimizer.transform.update)(gradients, before.optimizer_state, params)
    for name, value in after.variables.params.items():
        moved = params[name] + expected[name]
        np.testing.assert_allclose(value, moved, rtol=2e-5, atol=1e-6, err_msg=name)
        assert (value != params[name]).any()
    for value in after.variables.router_state.values():
        np.testing.assert_array_equal(value, 0.5)


def test_the_norm_of_the_gradients_is_taken_once():
    """AdamW's update is computed twice; its clipping takes the norm that is there."""
    given = {"w": jnp.float32([3.0, 4.0])}
    clip = adamw(constant(1.0), max_gradient_norm=1.0).transform
    state = clip.init(given)
    for norm in (None, jnp.float32(5.0)):
        extra = {} if norm is None else {"gradient_norm": norm}
        _, moved = clip.update(given, state, given, **extra)
        np.testing.assert_allclose(moved[1][0].mu["w"], [0.06, 0.08], rtol=1e-6)
    _, moved = clip.update(given, state, given, gradient_norm=jnp.float32(50.0))
    np.testing.assert_allclose(moved[1][0].mu["w"], [0.006, 0.008], rtol=1e-6)
    expected, _ = optax.clip_by_global_norm(1.0).update(given, optax.EmptyState())
    np.testing.assert_allclose(expected["w"], [0.6, 0.8], rtol=1e-6)
