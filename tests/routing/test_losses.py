"""Auxiliary losses: closed forms, numpy versions of the equations; padding does not count."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy.stats import norm

from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.losses import (
    balance_loss,
    importance_loss,
    load_loss,
    masked_mean,
    router_z_loss,
)


def z_loss(logits, mask):
    """The loss reads logits and mask only: probabilities are left at NaN."""
    logits = jnp.asarray(logits, jnp.float32)
    return router_z_loss(RouterScores(logits, jnp.full_like(logits, jnp.nan), jnp.asarray(mask)))


@pytest.mark.parametrize("experts", [1, 2, 8, 64])
@pytest.mark.parametrize("shift", [0.0, -3.0, 5.0])
def test_uniform_logits(experts, shift):
    """logsumexp of E equal logits a is a + ln E."""
    loss = z_loss(np.full((2, 5, experts), shift), np.ones((2, 5), bool))
    np.testing.assert_allclose(loss, (shift + np.log(experts)) ** 2, rtol=1e-5, atol=1e-6)


def test_is_the_mean_of_squares_over_real_tokens():
    """Tokens with logsumexp 1 and -3: (1 + 9) / 2 = 5, not (1 - 3)^2 / 4; padding is far off."""
    logits = np.array([[[1.0, -1e9], [-3.0, -1e9], [100.0, 100.0]]])
    np.testing.assert_allclose(z_loss(logits, [[True, True, False]]), 5.0, rtol=1e-6)


def test_large_logits_do_not_overflow():
    np.testing.assert_allclose(z_loss([[[1e4, 0.0]]], [[True]]), 1e8, rtol=1e-6)


def test_masked_mean():
    value = jnp.asarray([[1.0, 2.0], [6.0, 50.0]])
    assert masked_mean(value, jnp.asarray([[True, True], [True, False]])) == 3.0
    assert masked_mean(value, jnp.zeros((2, 2), bool)) == 0.0


P, N, E = 3, 10, 4
MASK = np.arange(N) < np.array([10, 6, 0])[:, None]
LOGITS = np.random.default_rng(0).normal(size=(P, N, E)).astype(np.float32)
PROBABILITY = oracles.softmax(LOGITS)
COUNT = np.random.default_rng(1).integers(0, 9, (P, E)) * MASK.any(1)[:, None]


@pytest.mark.parametrize("by_pool", [False, True])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_balance_loss_of_a_balanced_router_is_one(k, by_pool):
    """Token n takes experts n k, ..., n k + k - 1 modulo 4 with probability 1 / k each."""
    chosen = np.zeros((2, 8, E), np.float32)
    for n in range(8):
        for i in range(k):
            chosen[:, n, (n * k + i) % E] = 1
    mask = jnp.ones((2, 8), bool)
    loss = balance_loss(chosen.sum(1), jnp.asarray(chosen / k), mask, by_pool=by_pool)
    assert loss == 1.0


@pytest.mark.parametrize("experts", [2, 4, 64])
def test_balance_loss_of_a_collapsed_router_is_the_number_of_experts(experts):
    score = jnp.zeros((2, 8, experts)).at[..., 1].set(1.0)
    mask = jnp.arange(8) < jnp.array([8, 3])[:, None]
    count = jnp.where(mask[..., None], score, 0.0).sum(1)
    assert balance_loss(count, score, mask) == experts
    assert balance_loss(count, score, mask, by_pool=True) == experts


def test_balance_loss_equals_the_equations():
    """Fedus et al. 2021, eq. 4-6: over the whole batch, with f of elsewhere, and by pool."""
    real = MASK.sum()
    mean_p = PROBABILITY[MASK].mean(0)
    arguments = jnp.asarray(COUNT), jnp.asarray(PROBABILITY, jnp.float32), jnp.asarray(MASK)
    expected = E * (COUNT.sum(0) / COUNT.sum() * mean_p).sum()
    np.testing.assert_allclose(balance_loss(*arguments), expected, rtol=1e-5)

    share = np.array([0.1, 0.2, 0.7, 0.0], np.float32)
    elsewhere = balance_loss(*arguments, share_E=jnp.asarray(share))
    np.testing.assert_allclose(elsewhere, E * (share * mean_p).sum(), rtol=1e-5)

    by_pool = 0.0
    for p in range(P):
        if MASK[p].any():
            f = COUNT[p] / COUNT[p].sum()
            loss = E * (f * PROBABILITY[p][MASK[p]].mean(0)).sum()
            by_pool += loss * MASK[p].sum() / real
    np.testing.assert_allclose(balance_loss(*arguments, by_pool=True), by_pool, rtol=1e-5)
    assert abs(by_pool - expected) > 1e-3


def test_balance_loss_of_nothing_is_zero():
    nobody = jnp.zeros((P, N), bool)
    for by_pool in (False, True):
        loss = balance_loss(jnp.zeros((P, E)), jnp.asarray(LOGITS), nobody, by_pool=by_pool)
        assert loss == 0.0


@pytest.mark.parametrize("options", [{}, {"by_pool": True}, {"share_E": np.full(E, 0.25, "f")}])
def test_counts_carry_no_gradient_but_scores_do(options):
    @jax.grad
    def of_counts(x):
        options_x = {name: x if name == "share_E" else value for name, value in options.items()}
        count = jnp.broadcast_to(x, (P, E))
        return balance_loss(count, jnp.asarray(PROBABILITY, jnp.float32), MASK, **options_x)

    assert not of_counts(jnp.array([1.0, 2.0, 3.0, 4.0])).any()

    gradient = jax.grad(lambda score: balance_loss(jnp.asarray(COUNT), score, MASK, **options))
    actual = gradient(jnp.asarray(PROBABILITY, jnp.float32))
    f = COUNT / np.maximum(COUNT.sum(-1, keepdims=True), 1)
    if "by_pool" not in options:
        f = np.broadcast_to(options.get("share_E", COUNT.sum(0) / COUNT.sum()), (P, E))
    expected = E * f[:, None] / MASK.sum() * MASK[..., None]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def squared_variation(value):
    return np.var(value) / np.mean(value) ** 2


def test_importance_loss():
    """Riquelme et al. 2021, eq. 8; 0 where importance is balanced, whatever the tokens are."""
    scores = RouterScores(LOGITS, jnp.asarray(PROBABILITY, jnp.float32), jnp.asarray(MASK))
    expected = squared_variation(PROBABILITY[MASK].sum(0))
    assert expected > 1e-3
    np.testing.assert_allclose(importance_loss(scores), expected, rtol=1e-4)
    one_each = jnp.eye(E)[None]
    balanced = RouterScores(one_each, one_each, jnp.ones((1, E), bool))
    np.testing.assert_allclose(importance_loss(balanced), 0.0, atol=1e-7)
    collapsed = RouterScores(one_each, one_each, jnp.arange(E)[None] == 2)
    np.testing.assert_allclose(importance_loss(collapsed), E - 1, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("noise", [0.25, 1.0])
def test_load_loss(noise, k):
    """Riquelme et al. 2021, eq. 9-10, token by token with scipy's normal distribution."""
    noisy = LOGITS + noise * np.random.default_rng(2).normal(size=LOGITS.shape).astype("f")
    load = np.zeros(E)
    for p, n in np.argwhere(MASK):
        kth = np.sort(noisy[p, n])[-k]
        load += norm.sf((kth - LOGITS[p, n].astype(np.float64)) / noise)
    expected = squared_variation(load)
    assert expected > 1e-3
    scores = RouterScores(LOGITS, LOGITS, jnp.asarray(MASK))
    actual = jax.jit(load_loss, static_argnums=3)(scores, noisy, noise, k)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_load_loss_of_a_balanced_router_is_zero():
    logits = 10 * jnp.eye(E)[None]
    mask = jnp.ones((1, E), bool)
    balanced = RouterScores(logits, logits, mask)
    np.testing.assert_allclose(load_loss(balanced, logits, 1.0, 1), 0.0, atol=1e-6)
    one = RouterScores(logits, logits, mask & (jnp.arange(E) < 1))
    assert load_loss(one, logits, 1.0, 1) > 2
