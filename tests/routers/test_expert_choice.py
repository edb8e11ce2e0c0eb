"""Expert choice against a numpy version of the paper's equations, for every kind of pool."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tiers import mostly_slow

from moe_jax.errors import UserError
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.pools import Pool
from moe_jax.routing.scores import router_logits

B, S, D, E = 8, 12, 5, 4
POOLS = [Pool("sequence"), Pool("position"), Pool("position", 4), Pool("batch"), Pool("batch", 4)]
LENGTHS = [12, 5, 1, 0, 7, 12, 3, 2]
MASKS = {
    "no padding": np.ones((B, S), bool),
    "ragged": np.arange(S) < np.array(LENGTHS)[:, None],
    "padding first": np.arange(S) >= np.array(LENGTHS)[:, None],
    "scattered": np.random.default_rng(9).random((B, S)) < 0.6,
    "one token": np.arange(B * S).reshape(B, S) == 40,
}


@functools.partial(jax.jit, static_argnums=0)
def route(router, x_BSD, kernel_DE, mask_BS):
    """Returns the scores and the router's output."""
    split = router.pool.split
    logits_PNE = router_logits(split(x_BSD), kernel_DE)
    scores = RouterScores(logits_PNE, jax.nn.softmax(logits_PNE), split(mask_BS))
    return scores, router(scores, {})


@functools.cache
def inputs(seed):
    """Returns x [B, S, D] and the router's kernel [D, E]."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(B, S, D)).astype(np.float32)
    return x, rng.normal(size=(D, E)).astype(np.float32)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("factor", mostly_slow([1.25, 2.0]))
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_equals_oracle(pool, factor, mask):
    """Choices, weights and the k-th score; N c / E is not whole for c = 1.25."""
    x, kernel = inputs(0)
    scores, output = route(ExpertChoice(factor, pool), x, kernel, MASKS[mask])

    tokens = oracles.pools(pool.kind, pool.rows, B, S)
    mask_PN = np.array([[MASKS[mask][b, s] for b, s in pool_tokens] for pool_tokens in tokens])
    x_PND = np.array([[x[b, s] for b, s in pool_tokens] for pool_tokens in tokens])
    probability = oracles.softmax(x_PND.astype(np.float64) @ kernel.astype(np.float64))
    choices = oracles.expert_choice(probability, mask_PN, factor)
    expected = oracles.chosen_mask(choices, mask_PN.shape[1])

    slots = jax.device_get(output.assignment)
    capacity = oracles.capacity(mask_PN.shape[1], factor, E)
    assert slots.token_index_PEC.shape == (len(tokens), E, capacity)
    count, weight = oracles.assignment_table(slots, mask_PN.shape[1])
    np.testing.assert_array_equal(count, expected)
    np.testing.assert_allclose(weight, np.where(expected, probability, 0), rtol=2e-5)
    np.testing.assert_allclose(
        oracles.mean_kth_score(output.statistics),
        oracles.kth_scores(probability, choices),
        rtol=2e-5,
    )
    np.testing.assert_array_equal(scores.mask_PN, mask_PN)


def test_slots_are_ordered_best_first_and_ties_go_to_the_first_token():
    """Four of eight tokens with probabilities in steps of logits 0, 1, 2 for expert 0."""
    logits = np.array([1, 2, 0, 1, 2, 1, 1, 0], np.float32)
    x = np.zeros((B, S, D), np.float32)
    x[:, 0, 0] = logits
    kernel = np.zeros((D, E), np.float32)
    kernel[0, 0] = 1
    router = ExpertChoice(2.0, Pool("position"))
    slots = route(router, x, kernel, MASKS["no padding"])[1].assignment
    assert slots.token_index_PEC[0, 0].tolist() == [1, 4, 0, 3]
    # The other experts score exp(0) / (exp(logit) + 3): best where the logit is lowest.
    assert slots.token_index_PEC[0, 1].tolist() == [2, 7, 0, 3]


def test_empty_slots_point_at_token_zero_with_weight_zero():
    x, kernel = inputs(0)
    slots = route(ExpertChoice(2.0, Pool("sequence")), x, kernel, MASKS["ragged"])[1].assignment
    empty = ~np.asarray(slots.filled_PEC)
    assert empty.sum() == E * sum(6 - max(n // 2, min(n, 1)) for n in LENGTHS)
    assert not np.asarray(slots.token_index_PEC)[empty].any()
    assert not np.asarray(slots.weight_PEC)[empty].any()


@pytest.mark.parametrize("pool", [Pool("sequence"), Pool("batch", 4)], ids=str)
def test_what_stands_in_padding_does_not_matter(pool):
    """Padding with the best possible scores changes nothing."""
    x, kernel = inputs(0)
    mask = MASKS["ragged"]
    loud = np.where(mask[..., None], x, 50 * kernel.T[np.arange(B * S).reshape(B, S) % E])
    router = ExpertChoice(2.0, pool)
    quiet, noisy = route(router, x, kernel, mask)[1], route(router, loud, kernel, mask)[1]
    jax.tree.map(np.testing.assert_array_equal, quiet.assignment, noisy.assignment)
    jax.tree.map(np.testing.assert_array_equal, quiet.statistics, noisy.statistics)
    jax.tree.map(np.testing.assert_array_equal, quiet.metrics, noisy.metrics)
    np.testing.assert_array_equal(quiet.losses["router_z"], noisy.losses["router_z"])


@pytest.mark.parametrize(
    ("pool", "factor"),
    [(Pool("sequence"), 1.25), (Pool("position"), 0.5), (Pool("batch", 4), 2.0)],
    ids=str,
)
def test_gradient_reaches_the_router(pool, factor):
    """Law 5: d/dW of a random sum of combine weights is that of the equations, and not zero.

    The derivative comes from float64 differences of the numpy oracle, entry by entry.
    """
    (x, kernel), mask = inputs(1), MASKS["ragged"]
    coefficient = np.random.default_rng(2).normal(size=(B * S, E))
    tokens = oracles.pools(pool.kind, pool.rows, B, S)
    coefficient_PNE = coefficient.reshape(len(tokens), -1, E)
    mask_PN = np.array([[mask[b, s] for b, s in pool_tokens] for pool_tokens in tokens])
    x_PND = np.array([[x[b, s] for b, s in pool_tokens] for pool_tokens in tokens], np.float64)

    def expected_sum(kernel):
        probability = oracles.softmax(x_PND @ kernel)
        choices = oracles.expert_choice(probability, mask_PN, factor)
        chosen = oracles.chosen_mask(choices, mask_PN.shape[1])
        return (coefficient_PNE * probability * chosen).sum()

    @jax.jit
    @jax.grad
    def gradient(kernel):
        slots = route(ExpertChoice(factor, pool), x, kernel, mask)[1].assignment
        p, e, _ = np.indices(slots.token_index_PEC.shape)
        picked = jnp.asarray(coefficient_PNE, jnp.float32)[p, slots.token_index_PEC, e]
        return (picked * slots.weight_PEC).sum()

    step, expected = 1e-6, np.zeros((D, E))
    for entry in np.ndindex(D, E):
        shift = np.zeros((D, E))
        shift[entry] = step
        expected[entry] = (expected_sum(kernel + shift) - expected_sum(kernel - shift)) / step / 2
    actual = gradient(kernel)
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)
    assert np.abs(actual).min() > 1e-3


def test_statistics_carry_no_gradient():
    x, kernel = inputs(0)
    router = ExpertChoice(2.0, Pool("sequence"))

    def kth(kernel):
        return route(router, x, kernel, MASKS["ragged"])[1].statistics["kth_score_sum"].sum()

    np.testing.assert_array_equal(jax.grad(kth)(kernel), np.zeros((D, E)))


def test_padding_alone_does_not_move_the_thresholds():
    x, kernel = inputs(0)
    router = ExpertChoice(2.0, Pool("sequence"))
    state = {"threshold": jnp.full(E, 0.3)}
    statistics = route(router, x, kernel, np.zeros((B, S), bool))[1].statistics
    after = router.update_state(state, statistics, jnp.int32(0))
    np.testing.assert_allclose(after["threshold"], state["threshold"])


def test_distribution_of_experts_per_token():
    """A random router at the paper's c = 2, E = 64 on pools of 1024 tokens (PAPERS.md 1.4).

    Shares of tokens with 0, 1, 2, 3, 4 and more experts, here the mean of 32 pools. Shares of
    one pool scatter by at most sqrt(p (1 - p) / 1024); the published figures are taken to be
    those of one pool. The mean of 32 pools of a plain sort in numpy is the sharper reference.
    """
    pools, tokens, experts = 32, 1024, 64
    logits = jax.random.normal(jax.random.key(0), (pools, tokens, experts))
    router = ExpertChoice(2.0, Pool("sequence"))
    mask = jnp.ones((pools, tokens), bool)
    metrics = route(router, logits, jnp.eye(experts), mask)[1].metrics
    actual = np.asarray(metrics["experts_per_token"])
    np.testing.assert_allclose(metrics["mean_experts"], 2.0, rtol=1e-6)

    published = np.array([5.6, 28.5, 35.6, 22.3, 6.6, 1.4]) / 100
    error = np.sqrt(published * (1 - published) / tokens)
    assert (np.abs(actual - published) < 3 * error * np.sqrt(1 + 1 / pools)).all(), actual

    probability = oracles.softmax(np.random.default_rng(0).normal(size=(pools, tokens, experts)))
    kth = np.sort(probability, axis=1)[:, tokens - 32, None]
    per_token = (probability >= kth).sum(-1)
    simulated = np.array([(np.minimum(per_token, 5) == i).mean() for i in range(6)])
    assert (np.abs(actual - simulated) < 4 * error * np.sqrt(2 / pools)).all(), (actual, simulated)


@pytest.mark.parametrize(
    ("pool", "batch", "length", "reason"),
    [
        (Pool("position"), 31, 4096, "capacity is zero.*position pool has one token of each row"),
        (Pool("position", 16), 64, 4096, "capacity is zero"),
        (Pool("sequence"), 4096, 31, "sequence pool: capacity is zero"),
        (Pool("batch", 3), 64, 64, "does not divide"),
    ],
    ids=str,
)
def test_check_refuses_what_cannot_work(pool, batch, length, reason):
    """c = 2 and 64 experts need a pool of 32 tokens."""
    with pytest.raises(UserError, match=reason):
        ExpertChoice(2.0, pool).check(batch, length, 64)


@pytest.mark.parametrize(
    ("pool", "batch", "length"), [(Pool("position"), 32, 1), (Pool("sequence"), 1, 32)], ids=str
)
def test_check_accepts_the_smallest_pool(pool, batch, length):
    ExpertChoice(2.0, pool).check(batch, length, 64)


@pytest.mark.parametrize(
    "arguments", [{"capacity_factor": 0}, {"capacity_factor": -1.0}, {"threshold_decay": 1.0}]
)
def test_impossible_parameters_are_refused(arguments):
    with pytest.raises(UserError):
        ExpertChoice(**arguments)
