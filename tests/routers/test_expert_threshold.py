"""Expert threshold routing, and the moving average that makes its thresholds."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from moe_jax.errors import UserError
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.expert_threshold import ExpertThreshold, moving_average
from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.pools import Pool

P, N, E = 3, 7, 4
MASK = np.arange(N) < np.array([7, 4, 0])[:, None]


@jax.jit
def route(logits_PNE, mask_PN, threshold_E):
    scores = RouterScores(logits_PNE, jax.nn.softmax(logits_PNE), mask_PN)
    return ExpertThreshold(warmup_steps=0)(scores, {"threshold": threshold_E})


@functools.cache
def logits(seed):
    return np.random.default_rng(seed).normal(size=(P, N, E)).astype(np.float32)


@pytest.mark.parametrize("threshold", [[0.0] * 4, [0.1, 0.2, 0.3, 0.4], [0.25] * 4, [2.0] * 4])
@pytest.mark.parametrize("mask", [MASK, np.ones_like(MASK)], ids=["padding", "no padding"])
def test_takes_every_real_token_that_reaches_the_threshold(threshold, mask):
    """Weights are the probabilities, of any number of experts, none included."""
    output = route(logits(0), mask, jnp.array(threshold))
    probability = oracles.softmax(logits(0))
    expected = oracles.expert_threshold(probability, np.array(threshold), mask)
    count, weight = oracles.assignment_table(output.assignment, N)
    np.testing.assert_array_equal(count, expected)
    np.testing.assert_allclose(weight, np.where(expected, probability, 0), rtol=2e-6)
    not_chosen = ~np.asarray(output.assignment.chosen_PNK)
    assert not np.asarray(output.assignment.weight_PNK)[not_chosen].any()


def test_a_score_on_the_threshold_is_taken():
    """The k-th token itself must pass, as expert choice takes it."""
    uniform, mask = np.zeros((P, N, E), np.float32), np.ones((P, N), bool)
    assert route(uniform, mask, jnp.full(E, 0.25)).assignment.chosen_PNK.all()
    above = jnp.full(E, np.nextafter(np.float32(0.25), np.float32(1)))
    assert not route(uniform, mask, above).assignment.chosen_PNK.any()


def test_kth_scores_of_a_pool_as_thresholds_give_expert_choice_of_that_pool():
    """What the router is for: one pool (the other two are padding), no ties."""
    mask = MASK & (np.arange(P) == 0)[:, None]

    @jax.jit
    def choose(logits_PNE):
        return ExpertChoice(2.0)(RouterScores(logits_PNE, jax.nn.softmax(logits_PNE), mask), {})

    chosen = choose(logits(3))
    same = route(logits(3), mask, chosen.statistics["kth_score_sum"])
    one = oracles.assignment_table(chosen.assignment, N)
    other = oracles.assignment_table(same.assignment, N)
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_allclose(one[1], other[1], rtol=1e-6)
    assert one[0].sum() == 12  # 4 experts x floor(7 * 2 / 4).


@pytest.mark.parametrize("token", [(0, 0), (0, 3), (1, 2)])
def test_a_token_does_not_depend_on_any_other(token):
    threshold = jnp.array([0.1, 0.2, 0.3, 0.4])
    before = oracles.assignment_table(route(logits(0), MASK, threshold).assignment, N)
    others = logits(1).copy()
    others[token] = logits(0)[token]
    after = oracles.assignment_table(route(others, MASK, threshold).assignment, N)
    assert (before[0] != after[0]).any()
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one[token], other[token])


def test_gradient_is_that_of_the_chosen_probabilities():
    """Law 5: d p_i / d logit_j = p_i (1[i = j] - p_j), summed over what was chosen."""
    threshold = jnp.array([0.1, 0.2, 0.3, 0.4])

    @jax.jit
    @jax.grad
    def gradient(logits):
        return route(logits, MASK, threshold).assignment.weight_PNK.sum()

    actual = gradient(logits(0))
    p = oracles.softmax(logits(0))
    chosen = oracles.expert_threshold(p, np.asarray(threshold), MASK) * p
    expected = chosen - chosen.sum(-1, keepdims=True) * p
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(expected).max() > 0.01


@functools.partial(
    jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0}
)
def train(router, logits_PNE, mask_PN, state):
    scores = RouterScores(logits_PNE, jax.nn.softmax(logits_PNE), mask_PN, key=jax.random.key(0))
    return router(scores, state)


def test_statistics_are_collected_while_training_only():
    """The k-th scores of the pools, whatever the thresholds are; k of real tokens only."""
    assert route(logits(0), MASK, jnp.full(E, 0.2)).statistics == {}
    router = ExpertThreshold(capacity_factor=1.25, warmup_steps=0)
    probability = oracles.softmax(logits(0))
    choices = oracles.expert_choice(probability, MASK, 1.25)
    expected = oracles.kth_scores(probability, choices)
    for threshold in (0.2, 0.9):
        output = train(router, logits(0), MASK, {"threshold": jnp.full(E, threshold)})
        assert output.statistics["pools"] == 2.0
        np.testing.assert_allclose(oracles.mean_kth_score(output.statistics), expected, rtol=2e-6)
        by_threshold = oracles.expert_threshold(probability, np.full(E, threshold), MASK)
        np.testing.assert_array_equal(output.assignment.chosen_PNK, by_threshold)


def test_state_follows_the_statistics():
    """Step 3 keeps 4 / 13 of the old value; without a real token nothing moves."""
    router, state = ExpertThreshold(warmup_steps=0), {"threshold": jnp.array([0.1, 0.2])}
    statistics = {"kth_score_sum": jnp.array([2.0, 1.0]), "pools": jnp.array(2.0)}
    after = router.update_state(state, statistics, jnp.int32(3))
    expected = [0.1 * 4 / 13 + 9 / 13, 0.2 * 4 / 13 + 0.5 * 9 / 13]
    np.testing.assert_allclose(after["threshold"], expected, rtol=1e-6)
    nothing = {"kth_score_sum": jnp.zeros(2), "pools": jnp.zeros(())}
    after = router.update_state(state, nothing, jnp.int32(3))
    np.testing.assert_array_equal(after["threshold"], state["threshold"])


def test_warm_up_is_expert_choice_and_ends():
    """With thresholds that nobody reaches, tokens are taken in the first two steps only."""
    router = ExpertThreshold(capacity_factor=1.25, warmup_steps=2)
    state = router.init_state(E) | {"threshold": jnp.full(E, 2.0)}
    choices = oracles.expert_choice(oracles.softmax(logits(0)), MASK, 1.25)
    taken = oracles.chosen_mask(choices, N)
    nothing = {"kth_score_sum": jnp.zeros(E), "pools": jnp.zeros(())}
    for step in range(4):
        assignment = train(router, logits(0), MASK, state).assignment
        np.testing.assert_array_equal(assignment.chosen_PNK, taken & (step < 2))
        state = router.update_state(state, nothing, jnp.int32(step))
    assert router.causal() == ExpertThreshold(capacity_factor=1.25, warmup_steps=0)


@pytest.mark.parametrize("experts", [1, 3, 64])
def test_first_thresholds_are_uniform_probabilities(experts):
    for router in (ExpertThreshold(warmup_steps=0), ExpertChoice()):
        state = router.init_state(experts)
        assert state.keys() == {"threshold"}
        np.testing.assert_allclose(state["threshold"], np.full(experts, 1 / experts), rtol=1e-6)


def test_check_refuses_bad_rows_no_experts_and_no_kth_score():
    """c = 2 and 64 experts need a pool of 32 tokens."""
    ExpertThreshold(Pool("position")).check(32, 1, 64)
    with pytest.raises(UserError, match="expert threshold, position pool: capacity is zero"):
        ExpertThreshold(Pool("position")).check(31, 4096, 64)
    with pytest.raises(UserError, match="does not divide"):
        ExpertThreshold(Pool("batch", 3)).check(4, 8, 2)
    with pytest.raises(UserError, match="at least 1 expert"):
        ExpertThreshold().check(4, 8, 0)


def test_first_step_moves_nine_tenths_of_the_way():
    after = moving_average(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), 0.999, jnp.int32(0))
    np.testing.assert_allclose(after, [0.1, 0.9], rtol=1e-6)


@pytest.mark.parametrize(
    ("decay", "step", "weight"),
    [
        (0.999, 8, 0.5),  # (1 + 8) / (10 + 8): still short-sighted.
        (0.999, 8989, 8990 / 8999),
        (0.999, 10**6, 0.999),  # Capped at the configured value.
        (0.9, 79, 80 / 89),
        (0.9, 80, 0.9),
        (0.0, 5, 0.0),
    ],
)
def test_decay_is_short_sighted_at_first_and_capped(decay, step, weight):
    after = moving_average(jnp.float32(1.0), jnp.float32(0.0), decay, jnp.int32(step))
    np.testing.assert_allclose(after, weight, rtol=1e-6)


@pytest.mark.parametrize("decay", [0.999, 0.5])
def test_constant_input_converges_as_in_closed_form(decay):
    """The distance left after T steps is the product of min(decay, (1 + t) / (10 + t)).

    Uncapped that is T! 9! / (T + 9)! = 1 / C(T + 9, 9); from (1 + t) / (10 + t) = 0.5, that is
    from t = 8 on, a decay of 0.5 halves it every step.
    """
    router, state = ExpertChoice(threshold_decay=decay), {"threshold": jnp.zeros(1)}
    update = jax.jit(router.update_state)
    for step in range(20):
        state = update(
            state, {"kth_score_sum": jnp.ones(1), "pools": jnp.ones(())}, jnp.int32(step)
        )
    left = 1 / math.comb(29, 9) if decay == 0.999 else 1 / math.comb(17, 9) * 0.5**12
    # In units of the input, whose float32 resolution is 6e-8 below 1.
    np.testing.assert_allclose(1 - state["threshold"], [left], atol=2e-7)
    np.testing.assert_allclose(state["threshold"], [1.0], atol=1e-6)


def test_expert_choice_hands_over_pool_and_capacity_factor():
    pool = Pool("position", 2)
    causal = ExpertChoice(1.25, pool).causal()
    assert causal == ExpertThreshold(pool, 1.25, warmup_steps=0)
    assert causal.causal() is causal
