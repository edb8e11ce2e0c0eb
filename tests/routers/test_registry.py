"""Every registered router: its name, and that it routes, trained and not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tiers import mostly_slow

from moe_jax.routers import ROUTERS, get_router
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.metrics import summarise

P, N, E = 2, 32, 4
MASK = np.arange(N) < np.array([32, 11])[:, None]


def test_names():
    assert list(ROUTERS) == [
        "adaptive",
        "expert_choice",
        "expert_choice_capped",
        "expert_threshold",
        "forced_balanced",
        "glam_top2",
        "gshard_top2",
        "hash",
        "predicted_expert_choice",
        "random",
        "switch",
        "thor",
        "topk",
    ]


@functools.partial(
    jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0}
)
def route(router, logits, tokens, key):
    place = jnp.tile(jnp.arange(N, dtype=jnp.int32), (P, 1))
    scores = RouterScores(
        logits, jax.nn.softmax(logits), jnp.asarray(MASK), tokens, place, place, key
    )
    state = router.init_state(E)
    output = router(scores, state)
    layers = jax.tree.map(lambda x: jnp.stack([x, x]), (state, output.statistics))
    new = router.update_state(*layers, jnp.int32(0)) if key is not None else layers[0]
    return output, summarise(output.metrics), layers[0], new


def computed_slots(assignment):
    """Returns the slots of all experts per token; None if only routed tokens are computed."""
    if hasattr(assignment, "token_index_PEC"):
        return E * assignment.token_index_PEC.shape[-1] / N
    return None if assignment.capacity is None else E * assignment.capacity / N


@pytest.mark.parametrize("name", ROUTERS)
@pytest.mark.parametrize("key", mostly_slow([0, None]), ids=["training", "not training"])
def test_every_router_routes(name, key):
    router = get_router(name)
    assert router.name == name
    assert router == get_router(name)
    router.check(P, N, E)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(P, N, E)).astype(np.float32)
    tokens = rng.integers(100, size=(P, N)).astype(np.int32)
    key = None if key is None else jax.random.key(key)
    output, metrics, state, new = jax.device_get(route(router, logits, tokens, key))

    count, weight = oracles.assignment_table(output.assignment, N)
    assert count.max() == 1
    assert not count[~MASK].any()
    assert np.isfinite(weight).all()
    assert (weight > 0).sum() == count.sum() > 0
    assert weight.max() <= 1 + 1e-6
    others = jax.tree.leaves((output.losses, metrics, output.statistics))
    assert all(np.isfinite(value).all() for value in others)
    np.testing.assert_allclose(metrics["mean_experts"], count.sum() / MASK.sum(), rtol=1e-6)
    np.testing.assert_allclose(metrics["load"], count.sum((0, 1)) / count.sum(), rtol=1e-6)
    assert 0 < metrics["mean_experts"] <= E
    assert router.slots_per_token == computed_slots(output.assignment)
    assert metrics["mean_experts"] <= (router.slots_per_token or E)
    assert ("balance" in output.losses) == router.has_batch_balance_loss
    if router.has_batch_balance_loss:
        assert output.statistics["choices"].shape == (E,)
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
    assert all(np.isfinite(value).all() for value in jax.tree.leaves(new))


@pytest.mark.parametrize("name", ROUTERS)
def test_what_a_router_evaluates_with_is_causal(name):
    """And causal for good, with a state that the trained router's state has."""
    router = get_router(name)
    causal = router.causal()
    assert causal.is_causal
    assert causal.causal() == causal
    assert causal.init_state(E).keys() <= router.init_state(E).keys()
    causal_but_trained = router.is_causal and name != "switch"
    assert (causal == router) == causal_but_trained


@pytest.mark.parametrize("factor", [None, 0.5, 2.0])
def test_slots_of_token_choice_follow_its_capacity(factor):
    router = TokenChoice(k=2, capacity_factor=factor)
    assert router.slots_per_token == (None if factor is None else 2 * factor)
