"""Law 1 on what the routers decide: every router, pool and transport."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tiers import mostly_slow

from moe_jax.dispatch import DISPATCHES, get_dispatch
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.routers import ROUTERS as REGISTERED
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.expert_threshold import ExpertThreshold
from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.pools import KINDS, Pool
from moe_jax.routing.scores import router_logits

B, S, D, F, E = 3, 7, 5, 6, 4
MASK = np.arange(S) < np.array([7, 4, 0])[:, None]
THRESHOLD = np.array([0.05, 0.9, 0.9, 0.9], np.float32)
ROUTERS = [
    ExpertChoice(1.25, Pool("sequence")),
    ExpertThreshold(Pool("sequence"), warmup_steps=0),
]


def activation(x, xp=jnp):
    """Elementwise, and not 0 at 0."""
    return xp.tanh(x + 0.7)


@functools.cache
def inputs():
    """Returns x [B, S, D], the router's kernel [D, E] and the experts' [E, D, F], twice."""
    rng = np.random.default_rng(4)
    shapes = (B, S, D), (D, E), (E, D, F), (E, D, F)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


@functools.partial(jax.jit, static_argnames=("name", "router"))
def layer(name, router, x_BSD, kernel_DE, wi_EDF, wo_EDF):
    """A layer without a random key; row pools are the rows themselves."""
    logits = router_logits(x_BSD, kernel_DE)
    scores = RouterScores(logits, jax.nn.softmax(logits), jnp.asarray(MASK))
    output = router(scores, {"threshold": jnp.asarray(THRESHOLD)})
    experts = ExpertNetwork(wi_EDF, wo_EDF, activation)
    return get_dispatch(name)(output.assignment, x_BSD, experts)


def expected_output(router, x, kernel, wi, wo):
    """Computes scores, choices and the layer in numpy, from the equations."""
    probability = oracles.softmax(x.astype(np.float64) @ kernel.astype(np.float64))
    if isinstance(router, ExpertChoice):
        choices = oracles.expert_choice(probability, MASK, router.capacity_factor)
        chosen = oracles.chosen_mask(choices, S)
    else:
        chosen = oracles.expert_threshold(probability, THRESHOLD, MASK)
    experts_per_token = chosen.sum(-1)[MASK]
    assert experts_per_token.min() == 0  # The case holds tokens with no expert
    assert experts_per_token.max() >= 2  # and with several.
    return oracles.moe_layer(
        chosen, probability, x, lambda e, x_D: activation(x_D @ wi[e], np) @ wo[e].T
    )


@pytest.mark.parametrize("router", ROUTERS, ids=lambda router: router.name)
@pytest.mark.parametrize("name", sorted(DISPATCHES))
def test_routed_layer_equals_the_equations(name, router):
    """From activations to the layer's output: zero for padding and for tokens without expert."""
    expected = expected_output(router, *inputs())
    np.testing.assert_allclose(layer(name, router, *inputs()), expected, rtol=1e-5, atol=1e-5)
    assert not expected[~MASK].any()


@pytest.mark.parametrize("router", ROUTERS, ids=lambda router: router.name)
@pytest.mark.parametrize("name", sorted(DISPATCHES))
def test_bfloat16_activations_stay_bfloat16_and_close(name, router):
    """Against float64 on the rounded inputs; bfloat16 has steps of 1 / 256."""
    x, kernel, *experts = inputs()
    x_bf16, *experts_bf16 = (jnp.asarray(value, jnp.bfloat16) for value in (x, *experts))
    y = layer(name, router, x_bf16, kernel, *experts_bf16)
    assert y.dtype == jnp.bfloat16
    x, *experts = (np.asarray(value, np.float32) for value in (x_bf16, *experts_bf16))
    expected = expected_output(router, x, kernel, *experts)
    error = np.abs(np.asarray(y, np.float64) - expected).max() / np.abs(expected).max()
    assert error < 4 / 256


ROWS, LENGTH = 4, 8
REAL = np.arange(LENGTH) < np.array([8, 5, 8, 3])[:, None]


@functools.partial(jax.jit, static_argnums=0)
def all_transports(router, arrays, cotangent_BSD, tokens_BS, key):
    """Returns y and the gradients of <cotangent, y> of every transport, and who goes where."""
    pool = router.pool
    position_BS = jnp.broadcast_to(jnp.arange(LENGTH, dtype=jnp.int32), (ROWS, LENGTH))
    key, jitter_key = jax.random.split(key)

    def route(arrays):
        x_PND = pool.split(arrays["x"])
        logits_PNE = jnp.zeros((*x_PND.shape[:2], E))
        if router.is_learned:
            logits_PNE = router_logits(x_PND, arrays["router"], router.input_jitter, jitter_key)
        scores = RouterScores(
            logits_PNE=logits_PNE,
            probabilities_PNE=jax.nn.softmax(logits_PNE),
            mask_PN=pool.split(jnp.asarray(REAL)),
            tokens_PN=pool.split(tokens_BS),
            positions_PN=pool.split(position_BS),
            time_PN=pool.split(position_BS),
            key=key,
        )
        return x_PND, router(scores, router.init_state(E)).assignment

    def run(name, arrays):
        x_PND, assignment = route(arrays)
        experts = ExpertNetwork(arrays["wi"], arrays["wo"], activation)
        return pool.join(get_dispatch(name)(assignment, x_PND, experts), ROWS, LENGTH)

    results = {}
    for name in sorted(DISPATCHES):
        y, vjp = jax.vjp(functools.partial(run, name), arrays)
        results[name] = {"y": y, **vjp(cotangent_BSD)[0]}
    return results


@pytest.mark.parametrize("kind", mostly_slow(KINDS, ["batch"]))
@pytest.mark.parametrize(
    "name", mostly_slow(REGISTERED, ["expert_choice", "switch", "topk", "adaptive"])
)
def test_every_router_gives_the_same_on_every_transport(name, kind):
    """Forward and gradients, that of the router's matrix included, with padding and a key."""
    router = dataclasses.replace(REGISTERED[name](), pool=Pool(kind))
    router.check(ROWS, LENGTH, E)
    rng = np.random.default_rng(1)
    shapes = {"x": (ROWS, LENGTH, 8), "router": (8, E), "wi": (E, 8, 16), "wo": (E, 8, 16)}
    arrays = {key: rng.normal(size=s).astype(np.float32) for key, s in shapes.items()}
    cotangent = rng.normal(size=shapes["x"]).astype(np.float32)
    tokens = rng.integers(1, 50, (ROWS, LENGTH)).astype(np.int32)
    results = all_transports(router, arrays, cotangent, tokens, jax.random.key(2))
    expected = jax.device_get(results.pop("oracle"))
    assert set(results) == {"gather", "grouped"}
    for transport, actual in results.items():
        for key, value in expected.items():
            scale = max(np.abs(value).max(), 1e-3)
            np.testing.assert_allclose(
                actual[key], value, rtol=1e-5, atol=3e-6 * scale, err_msg=f"{transport} {key}"
            )
    assert not expected["y"][~REAL].any()
    assert (np.abs(expected["y"][REAL]).max(-1) > 0).mean() > 0.5
    assert expected["wi"].any()
    assert expected["router"].any() == router.is_learned
