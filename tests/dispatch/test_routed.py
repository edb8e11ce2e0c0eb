"""Transports on what the routers decide, in bfloat16, and the registry of names."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from moe_jax.dispatch import DISPATCHES, get_dispatch
from moe_jax.errors import UserError
from moe_jax.routing.expert_choice import ExpertChoice
from moe_jax.routing.pools import Pool
from moe_jax.routing.scores import router_scores
from moe_jax.routing.threshold import ExpertThreshold

B, S, D, E = 3, 7, 5, 4
MASK = np.arange(S) < np.array([7, 4, 0])[:, None]
THRESHOLD = np.array([0.05, 0.9, 0.9, 0.9], np.float32)
ROUTERS = [ExpertChoice(1.25, Pool("sequence")), ExpertThreshold(Pool("sequence"))]


@functools.cache
def inputs():
    """Returns x [B, S, D], the router's kernel [D, E] and the experts' kernels [E, D, D]."""
    rng = np.random.default_rng(4)
    shapes = (B, S, D), (D, E), (E, D, D)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


@functools.partial(jax.jit, static_argnames=("name", "router"))
def layer(name, router, x_BSD, kernel_DE, experts_EDD):
    """A layer with experts 1 + x W; row pools are the rows themselves."""
    scores = router_scores(x_BSD, kernel_DE, jnp.asarray(MASK))
    output = router(scores, {"threshold": jnp.asarray(THRESHOLD)})
    y = get_dispatch(name)(
        output.assignment, x_BSD, lambda x_ERD: 1 + jnp.einsum("erd,edf->erf", x_ERD, experts_EDD)
    )
    return y


def expected_output(router, x, kernel, experts):
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
    return oracles.moe_layer(chosen, probability, x, lambda e, x_D: 1 + x_D @ experts[e])


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
    x, kernel, experts = inputs()
    x_bf16, experts_bf16 = jnp.asarray(x, jnp.bfloat16), jnp.asarray(experts, jnp.bfloat16)
    y = layer(name, router, x_bf16, kernel, experts_bf16)
    assert y.dtype == jnp.bfloat16
    rounded = [np.asarray(value, np.float32) for value in (x_bf16, experts_bf16)]
    expected = expected_output(router, rounded[0], kernel, rounded[1])
    error = np.abs(np.asarray(y, np.float64) - expected).max() / np.abs(expected).max()
    assert error < 4 / 256


@pytest.mark.parametrize(
    ("name", "right"), [("gathr", "gather"), ("Oracle", "oracle"), ("orcale", "oracle")]
)
def test_unknown_name_names_the_nearest(name, right):
    with pytest.raises(UserError, match=f"unknown dispatch '{name}'.*Did you mean '{right}'"):
        get_dispatch(name)


def test_known_names():
    """The oracle that everything is compared with, and the default of the models."""
    assert {"gather", "oracle"} <= set(DISPATCHES)
    assert all(get_dispatch(name) is DISPATCHES[name] for name in DISPATCHES)
