"""Adaptive gating against the equations of Li et al. 2023."""

import functools

import choice_oracles
import jax
import numpy as np
import oracles
import pytest

from moe_jax.routers.adaptive import Adaptive
from moe_jax.routing.assignment import RouterScores

P, N, E = 2, 16, 5
MASK = np.arange(N) < np.array([16, 9])[:, None]
LOGITS = np.random.default_rng(0).normal(size=(P, N, E)).astype(np.float32)


@functools.partial(
    jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0}
)
def compiled(router, logits_PNE, mask_PN, share_E=None):
    scores = RouterScores(logits_PNE, jax.nn.softmax(logits_PNE), mask_PN, share_E=share_E)
    return router(scores, {})


def route(*arguments):
    return jax.device_get(compiled(*arguments))


@pytest.mark.parametrize("gap", ["softmax", "top2_renorm"])
@pytest.mark.parametrize("threshold", [0.1, 0.4])
def test_equals_oracle(threshold, gap):
    """Eq. 2 to 4: raw weights, also for a token with one expert, and the loss."""
    output = route(Adaptive(threshold, gap), LOGITS, MASK)
    expected, loss = choice_oracles.adaptive(LOGITS, MASK, threshold, gap == "top2_renorm")
    count, weight = oracles.assignment_table(output.assignment, N)
    np.testing.assert_array_equal(count, expected > 0)
    np.testing.assert_allclose(weight, expected, rtol=2e-6)
    np.testing.assert_allclose(output.losses["balance"], loss, rtol=1e-5)
    per_token = (expected > 0).sum(-1)[MASK]
    assert {1, 2} == set(per_token.tolist())
    np.testing.assert_allclose(output.metrics["mean_experts"], per_token.mean(), rtol=1e-6)
    alone = (expected * ((expected > 0).sum(-1) == 1)[..., None] > 0).sum((0, 1))
    np.testing.assert_array_equal(output.statistics["choices"], alone)


def test_the_two_gaps_differ():
    """Probabilities 0.3, 0.2 and five of 0.1: gaps of 0.1 and 0.1 / 0.5 = 0.2."""
    logits = np.log(np.array([[[0.3, 0.2] + [0.1] * 5]], np.float32))
    mask = np.ones((1, 1), bool)
    for gap, experts in (("softmax", 2), ("top2_renorm", 1)):
        pairs = route(Adaptive(0.15, gap), logits, mask).assignment
        assert pairs.chosen_PNK.sum() == experts, gap


@pytest.mark.parametrize(("threshold", "experts"), [(0.0, 1), (1.0, 2)])
def test_extremes_are_top_1_and_top_2(threshold, experts):
    """T = 0 takes two experts for ties only; T = 1 even with a gap of exactly 1."""
    router = Adaptive(threshold)
    sure = np.where(np.arange(E) == 3, 0.0, -1e9) * np.ones_like(LOGITS)
    for logits in (LOGITS, sure.astype(np.float32)):
        count, _ = oracles.assignment_table(route(router, logits, MASK).assignment, N)
        pairs = route(router, logits, MASK).assignment
        np.testing.assert_array_equal(pairs.chosen_PNK.sum(-1), experts * MASK)
        assert count.max() == 1
    tied = np.zeros_like(LOGITS)
    np.testing.assert_array_equal(route(router, tied, MASK).assignment.chosen_PNK.sum(-1), 2 * MASK)


def test_loss_is_zero_without_a_token_of_one_expert():
    """Also without a token at all."""
    assert route(Adaptive(1.0), LOGITS, MASK).losses["balance"] == 0.0
    assert route(Adaptive(0.0), LOGITS, MASK).losses["balance"] > 0.5
    nobody = np.zeros_like(MASK)
    assert route(Adaptive(0.0), LOGITS, nobody).losses["balance"] == 0.0


def test_share_of_the_whole_batch_replaces_that_of_these_tokens():
    share = np.array([0.5, 0.2, 0.1, 0.2, 0.0], np.float32)
    loss = route(Adaptive(0.4), LOGITS, MASK, share).losses["balance"]
    expected = E * (share * oracles.softmax(LOGITS)[MASK].mean(0)).sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_gradients_of_loss_and_weights():
    """f carries no gradient (eq. 4), nor does the choice between one and two experts."""
    router = Adaptive(0.3)
    count = route(router, LOGITS, MASK).statistics["choices"]
    weight, _ = choice_oracles.adaptive(LOGITS, MASK, 0.3)
    coefficient = np.random.default_rng(1).normal(size=LOGITS.shape).astype(np.float32)

    @jax.jit
    @jax.grad
    def gradient(logits):
        scores = RouterScores(logits, jax.nn.softmax(logits), MASK)
        output = router(scores, {})
        return (
            output.losses["balance"]
            + (coefficient * output.assignment.dense_weight_PNE()).sum()
            + output.statistics["choices"].sum()
        )

    # d / d logit_j of sum_e a_e p_e is p_j (a_j - sum_e a_e p_e).
    a = E * count / count.sum() / MASK.sum() * MASK[..., None] + coefficient * (weight > 0)
    p = oracles.softmax(LOGITS)
    expected = p * (a - (a * p).sum(-1, keepdims=True))
    np.testing.assert_allclose(gradient(LOGITS), expected, rtol=1e-4, atol=1e-6)
    a -= coefficient * (weight > 0)
    assert np.abs(p * (a - (a * p).sum(-1, keepdims=True))).max() > 1e-3
