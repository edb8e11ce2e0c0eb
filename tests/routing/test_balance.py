"""Balance by a bias: both rules step by step, and that they balance a skewed router."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing import balance
from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.metrics import summarise

E = 8
BIN = 2 / 4096


def test_bias_rule_is_algorithm_1():
    """Wang et al. 2024: b_e + u sign(mean c - c_e); two layers, one of them idle."""
    count = jnp.array([[7.0, 1.0, 4.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    bias = jnp.array([[0.5, 0.0, -0.25, 0.125]] * 2)
    after = balance.update("bias", bias, {"choices": count}, 0.25, 2)
    np.testing.assert_array_equal(after, [[0.25, 0.25, -0.25, 0.125], bias[1]])


@pytest.mark.parametrize("k", [1, 2, 5])
def test_quantile_rule_is_the_quantile(k):
    """b_e = -quantile(s_e - alpha, 1 - k / E), less the mean; alpha the (k+1)-th of s + b.

    Two layers, of which the second saw no token. Up to one bin of the histogram.
    """
    rng = np.random.default_rng(k)
    score = oracles.softmax(rng.normal(size=(3, 500, E)) + rng.normal(size=E)).astype(np.float32)
    bias = 0.1 * rng.normal(size=E).astype(np.float32)
    mask = rng.random((3, 500)) < 0.8
    biased = score + bias
    count = jax.jit(functools.partial(balance.statistics, "quantile", k=k))
    statistics = count(score_PNE=score, biased_PNE=biased, mask_PN=jnp.asarray(mask))
    alpha = np.sort(biased[mask], -1)[:, -k - 1]
    margin = score[mask] - alpha[:, None]
    expected = -np.quantile(margin, 1 - k / E, axis=0, method="inverted_cdf")
    expected -= expected.mean()

    nothing = count(score_PNE=score, biased_PNE=biased, mask_PN=jnp.zeros_like(mask))
    layers = jax.tree.map(lambda one, other: jnp.stack([one, other]), statistics, nothing)
    layers["choices"] = jnp.array([[k * mask.sum() / E] * E, [0.0] * E])
    before = jnp.stack([bias, bias])
    after = balance.update("quantile", before, layers, 1e-3, k)
    # The mean may be off by a bin too.
    np.testing.assert_allclose(after[0], expected, atol=2 * BIN)
    np.testing.assert_array_equal(after[1], bias)
    np.testing.assert_allclose(after[0].mean(), 0.0, atol=1e-6)
    assert np.abs(expected).max() > 20 * BIN


@functools.partial(
    jax.jit,
    static_argnames=("router", "steps"),
    compiler_options={"xla_backend_optimization_level": 0},
)
def train(router, logits, mask, steps):
    """Returns the max violation in every step and the last output and state."""
    scores = RouterScores(logits, jax.nn.softmax(logits), mask)

    def step(state, index):
        output = router(scores, state)
        layers = jax.tree.map(lambda x: x[None], (state, output.statistics))
        state = jax.tree.map(lambda x: x[0], router.update_state(*layers, index))
        return state, summarise(output.metrics)["max_violation"]

    state, violations = jax.lax.scan(step, router.init_state(logits.shape[-1]), jnp.arange(steps))
    return violations, router(scores, state), state


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"balance": "bias", "bias_rate": 0.005, "score": "sigmoid"}, 200),
        ({"balance": "bias", "bias_rate": 0.005, "score": "sqrt_softplus"}, 300),
        ({"balance": "quantile"}, 20),
        ({"balance": "quantile", "score": "sigmoid", "k": 3}, 30),
    ],
    ids=str,
)
def test_iterating_balances_a_skewed_router(options, steps):
    """Some experts are liked best by far; padding, which likes them too, does not count."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 1000, E)) + np.linspace(-2, 2, E)
    mask = jnp.asarray(rng.random((2, 1000)) < 0.9)
    logits = np.where(mask[..., None], logits, 9 * np.eye(E)[-1]).astype(np.float32)
    router = TokenChoice(**options)
    violations, output, state = jax.device_get(train(router, logits, mask, steps))
    assert violations[0] > 1
    assert summarise(output.metrics)["max_violation"] < 0.1
    # And it stays: the rule has come to rest.
    assert violations[-5:].max() < 0.1
    assert state["bias"][0] > state["bias"][-1] + 0.1


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_bias_decides_but_never_weighs(score):
    """A bias of 10 makes the worst experts the chosen ones; weights are those of the scores."""
    logits = np.random.default_rng(0).normal(size=(1, 20, E)).astype(np.float32)
    bias = jnp.zeros(E).at[jnp.array([2, 5])].set(10.0)
    mask = jnp.ones((1, 20), bool)
    scores = RouterScores(logits, jax.nn.softmax(logits), mask)
    router = TokenChoice(k=2, score=score, normalise=False, balance="bias")
    output = jax.device_get(jax.jit(router)(scores, {"bias": bias}))
    count, weight = oracles.assignment_table(output.assignment, 20)
    np.testing.assert_array_equal(count[0], np.tile(np.asarray(bias) > 0, (20, 1)))
    plain = oracles.softmax(logits) if score == "softmax" else 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(weight, plain * count, rtol=1e-5)


def test_there_is_no_state_without_a_rule():
    assert TokenChoice().init_state(E) == {}
    assert not TokenChoice(balance="quantile").init_state(E)["bias"].any()
    assert TokenChoice().update_state({}, {"choices": jnp.ones((2, E))}, jnp.int32(0)) == {}
