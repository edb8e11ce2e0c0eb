"""Capped expert choice: the program against general solvers, the choice against its laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import transport_oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import mostly_slow

from moe_jax.errors import UserError
from moe_jax.routers.capped_expert_choice import CappedExpertChoice, choose_in_turn
from moe_jax.routers.expert_threshold import ExpertThreshold
from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.optimal_transport import capped_transport
from moe_jax.routing.pools import Pool

P = 2
# Experts, tokens, capacity factor, cap: the cap tight (c = b), loose, c not a whole number.
CASES = [(4, 12, 1.0, 1), (4, 12, 2.0, 2), (3, 10, 1.25, 2), (4, 12, 2.0, 3), (5, 13, 2.5, 3)]
EXAMPLES = settings(max_examples=30, deadline=None)

# Three experts (rows) that all like token 0 best, then token 1.
ALIKE_EN = [[0.9, 0.8, 0.1], [0.8, 0.5, 0.1], [0.5, 0.4, 0.3]]


@functools.partial(jax.jit, static_argnums=0)
def route(router, logits_PNE, mask_PN):
    return router(RouterScores(logits_PNE, jax.nn.softmax(logits_PNE), mask_PN), {})


@functools.partial(jax.jit, static_argnames=("cap", "regularisation", "iterations"))
def log_a(score_PEN, k_P, mask_PN, **options):
    return capped_transport(score_PEN, k_P, mask_PN=mask_PN, **options)


def transport(score_EN, k, cap, **options):
    """Returns A [E, N] in float64 for one pool without padding."""
    score_PEN = jnp.asarray(score_EN, jnp.float32)[None]
    mask_PN = jnp.ones((1, score_PEN.shape[-1]), bool)
    a_PEN = log_a(score_PEN, jnp.array([k]), mask_PN, cap=cap, **options)
    return np.exp(np.minimum(np.asarray(a_PEN[0], np.float64), 0.0))


def random_logits(seed, experts, tokens, scale=1.0, pools=P):
    return (
        np.random.default_rng(seed).normal(size=(pools, tokens, experts), scale=scale).astype("f")
    )


@pytest.mark.parametrize(
    ("score_EN", "k", "cap", "expected_EN"),
    [
        # Both want token 0. 0.8 + 0.7 is more than 0.9 + 0.1: the second expert gets it.
        ([[0.9, 0.8], [0.7, 0.1]], 1, 1, [[0, 1], [1, 0]]),
        # No cap in the way.
        ([[0.9, 0.8], [0.7, 0.1]], 1, 2, [[1, 0], [1, 0]]),
        # The six ways to hand out three tokens are worth 1.7, 1.9, 1.4, 1.4, 1.3 and 1.1.
        (ALIKE_EN, 1, 1, [[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
        # Everybody leaves one token, and every token is left once: by the way that is worth 1.1.
        (ALIKE_EN, 2, 2, [[1, 1, 0], [1, 0, 1], [0, 1, 1]]),
        # No cap in the way: everybody's best two.
        (ALIKE_EN, 2, 3, [[1, 1, 0], [1, 1, 0], [1, 1, 0]]),
    ],
)
def test_transport_of_cases_worked_out_by_hand(score_EN, k, cap, expected_EN):
    actual_EN = transport(score_EN, k, cap)
    np.testing.assert_allclose(actual_EN, expected_EN, atol=0.01)


@pytest.mark.parametrize("seed", mostly_slow(range(4)))
@pytest.mark.parametrize(("k", "cap"), [(1, 1), (2, 2), (2, 3)])
def test_transport_solves_the_program_with_entropy(k, cap, seed):
    """Against sequential quadratic programming, 3 experts and 4 tokens, lambda = 0.1."""
    score_EN = oracles.softmax(random_logits(seed, 3, 4)[0]).T
    expected_EN = transport_oracle.entropic_assignment(score_EN, k, cap, 0.1)
    actual_EN = transport(score_EN, k, cap, regularisation=0.1, iterations=2000)
    np.testing.assert_allclose(actual_EN, expected_EN, atol=2e-4)


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("cap", [2, 3])
def test_transport_nears_the_linear_program(cap, scale):
    """As lambda H(A) is at most lambda E k log(N / k), <S, A> is that near to the optimum."""
    experts, tokens, k = 4, 12, 6
    for seed in range(3):
        score_EN = oracles.softmax(random_logits(seed, experts, tokens, scale)[0]).T
        optimum, _ = transport_oracle.best_assignment(score_EN, k, cap)
        a_EN = transport(score_EN, k, cap, iterations=20000)
        np.testing.assert_allclose(a_EN.sum(1), k, atol=2e-3)
        assert (a_EN.sum(0) < cap + 2e-3).all()
        slack = 1e-3 * experts * k * np.log(tokens / k)
        assert optimum - slack - 5e-3 < (score_EN * a_EN).sum() < optimum + 5e-3


def test_transport_of_padding_and_of_empty_pools_is_nothing():
    score_PEN = jax.nn.softmax(random_logits(0, 3, 10, pools=3)).swapaxes(1, 2)
    mask_PN = jnp.arange(10) < jnp.array([6, 0, 10])[:, None]
    result_PEN = np.asarray(log_a(score_PEN, jnp.array([2, 0, 0]), mask_PN, cap=2))
    assert np.isfinite(result_PEN[0, :, :6]).all()
    assert (result_PEN[0, :, 6:] == -np.inf).all()
    assert (result_PEN[1:] == -np.inf).all()
    np.testing.assert_allclose(np.exp(np.minimum(result_PEN[0], 0)).sum(-1), 2, atol=0.02)


@pytest.mark.parametrize(
    ("experts", "tokens", "k", "cap", "expected"),
    [
        # The second expert gets what the first leaves.
        (2, 4, 2, 1, [[0, 1], [2, 3]]),
        # The second expert must take token 2: with 0 and 1, the third would find only token 2.
        (3, 3, 2, 2, [[0, 1], [0, 2], [1, 2]]),
        # All the room there is for all.
        (3, 4, 2, 3, [[0, 1], [0, 1], [0, 1]]),
    ],
)
def test_turns_of_experts_with_the_same_wishes(experts, tokens, k, cap, expected):
    value_PEN = jnp.broadcast_to(-jnp.arange(tokens, dtype=jnp.float32), (1, experts, tokens))
    mask_PN = jnp.ones((1, tokens), bool)
    taken_PEN = choose_in_turn(value_PEN, jnp.zeros_like(value_PEN), jnp.array([k]), cap, mask_PN)
    assert [np.flatnonzero(taken_N).tolist() for taken_N in taken_PEN[0]] == expected


@pytest.mark.parametrize(("experts", "cap"), [(3, 1), (3, 2), (4, 2), (3, 3)])
def test_turns_equal_trying_all_ways(experts, cap):
    """As many tokens per expert as there is room for, and one fewer; three to six real tokens."""
    rng = np.random.default_rng(0)
    turns = jax.jit(choose_in_turn, static_argnums=3)
    for _ in range(12):
        mask_N = np.arange(6) < rng.integers(3, 7)
        value_EN = rng.normal(size=(experts, 6), scale=0.2).astype("f")
        assigned_EN = rng.choice([0.0, 0.25, 0.5, 1.0], (experts, 6))
        most = min(cap * mask_N.sum() // experts, mask_N.sum())
        for k in {most, max(most - 1, 0)}:
            arrays = (jnp.array(a)[None] for a in (value_EN, assigned_EN, k))
            actual = turns(*arrays, cap, jnp.array(mask_N)[None])
            expected_EN = transport_oracle.choose_in_turn(value_EN, assigned_EN, k, cap, mask_N)
            np.testing.assert_array_equal(actual[0], expected_EN)


@st.composite
def pools(draw, experts, tokens):
    """Logits flat, usual or sharp, some with many ties; any padding."""
    scale = draw(st.sampled_from([0.0, 1.0, 10.0]))
    logits = random_logits(draw(st.integers(0, 2**32 - 1)), experts, tokens, scale)
    flags = draw(st.lists(st.booleans(), min_size=P * tokens, max_size=P * tokens))
    mask = np.array(flags).reshape(P, tokens) | draw(st.booleans())
    return np.round(logits) if draw(st.booleans()) else logits, mask


@pytest.mark.parametrize("case", mostly_slow(CASES, 2), ids=str)
@given(data=st.data())
@EXAMPLES
def test_cap_balance_and_padding_are_exact(case, data):
    """No token has more than b experts, and every expert has exactly k distinct real tokens."""
    experts, tokens, factor, cap = case
    logits, mask = data.draw(pools(experts, tokens))
    output = route(CappedExpertChoice(factor, cap=cap), logits, mask)
    count, weight = oracles.assignment_table(output.assignment, tokens)
    assert count.max(initial=0) <= 1
    assert not count[~mask].any()
    assert count.sum(-1).max() <= cap
    for count_NE, real in zip(count, mask.sum(1), strict=True):
        k = max(oracles.capacity(int(real), factor, experts), min(int(real), 1))
        k = min(k, cap * real // experts)
        assert count_NE.sum(0).tolist() == [k] * experts
    expected = np.where(count > 0, oracles.softmax(logits), 0.0)
    np.testing.assert_allclose(weight, expected, rtol=2e-5, atol=1e-12)
    # Slots best first, as in expert choice; empty ones 0.
    assert (np.diff(output.assignment.weight_PEC, axis=-1) <= 0).all()
    assert not np.asarray(output.assignment.token_index_PEC)[~output.assignment.filled_PEC].any()


def test_with_a_tight_cap_every_token_has_exactly_that_many():
    """12 tokens x 2 / 4 experts is whole: 6 tokens per expert, 2 experts per token."""
    output = route(CappedExpertChoice(2.0, cap=2), random_logits(0, 4, 12), np.ones((P, 12), bool))
    count, _ = oracles.assignment_table(output.assignment, 12)
    assert (count.sum(-1) == 2).all()


@pytest.mark.parametrize("case", mostly_slow(CASES, 2), ids=str)
def test_permuting_a_pool_permutes_the_result(case):
    experts, tokens, factor, cap = case
    rng, rows = np.random.default_rng(1), np.arange(P)[:, None]
    for seed in range(10):
        logits, mask = random_logits(seed, experts, tokens), rng.random((P, tokens)) < 0.8
        order = np.array([rng.permutation(tokens) for _ in range(P)])
        router = CappedExpertChoice(factor, cap=cap)
        count, _ = oracles.assignment_table(route(router, logits, mask).assignment, tokens)
        moved = route(router, logits[rows, order], mask[rows, order]).assignment
        moved_count, _ = oracles.assignment_table(moved, tokens)
        np.testing.assert_array_equal(moved_count, count[rows, order])


@pytest.mark.slow
@pytest.mark.parametrize("cap", mostly_slow([2, 3]))
def test_what_top_k_alone_would_leave_over_the_cap_is_a_metric(cap):
    """8 experts, 64 tokens, some padding: counted from the same A."""
    logits, mask = random_logits(3, 8, 64, 3.0), np.random.default_rng(3).random((P, 64)) < 0.9
    output = route(CappedExpertChoice(2.0, cap=cap, iterations=20), logits, mask)
    k_P = np.array([oracles.capacity(int(real), 2.0, 8) for real in mask.sum(1)])
    score_PEN = jax.nn.softmax(logits).swapaxes(1, 2)
    a_PEN = np.asarray(log_a(score_PEN, jnp.asarray(k_P), mask, cap=cap, iterations=20))
    per_token = np.zeros(mask.shape)
    for p, k in enumerate(k_P):
        for a_N in a_PEN[p]:
            per_token[p, np.argsort(-a_N)[:k]] += 1
    over = (per_token > cap).sum() / mask.sum()
    assert over > 0.01
    np.testing.assert_allclose(output.metrics["over_cap_share"], over, rtol=1e-6)


def test_pools_without_room_for_one_token_per_expert_stay_empty():
    """A pool of padding, and one whose only token cannot go to all four experts; no NaN."""
    mask = np.arange(12) < np.array([0, 1])[:, None]
    output = route(CappedExpertChoice(2.0, cap=2), random_logits(0, 4, 12), mask)
    assert not np.asarray(output.assignment.filled_PEC).any()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((output.metrics, output.statistics)))
    assert float(output.statistics["pools"]) == 0


# Tokens, experts, capacity factor, cap; 10 pools each.
SHAPES = [(64, 8, 2, 2), (64, 8, 2, 3), (128, 16, 2, 2), (128, 8, 1, 1), (96, 4, 2, 2)]


@pytest.fixture(scope="module")
def shortfalls():
    """Returns by how much the chosen scores of 50 pools fall short of the optimum, as shares of it.

    From flat to nearly one-hot probabilities, and experts of different popularity. The optimum is
    that of the linear program without entropy, by HiGHS.
    """
    random, result = np.random.default_rng(0), []
    for tokens, experts, factor, cap in SHAPES:
        scale_P11 = np.repeat([0.5, 1.0, 2.5, 5.0, 10.0], 2)[:, None, None]
        logits = scale_P11 * random.normal(size=(10, tokens, experts))
        logits += 0.3 * scale_P11 * random.normal(size=(10, 1, experts))
        logits, mask = logits.astype("f"), np.ones((10, tokens), bool)
        output = route(CappedExpertChoice(factor, cap=cap), logits, mask)
        _, weight = oracles.assignment_table(output.assignment, tokens)
        for score_NE, weight_NE in zip(oracles.softmax(logits), weight, strict=True):
            best, _ = transport_oracle.best_assignment(score_NE.T, tokens * factor // experts, cap)
            result.append(1.0 - weight_NE.sum() / best)
    return np.array(result)


def test_choice_is_close_to_the_best_there_is(shortfalls):
    """On average within 0.1% of the optimum, at worst within 1%."""
    assert len(shortfalls) == 50
    assert (shortfalls > -1e-6).all()
    assert shortfalls.mean() < 1e-3
    assert shortfalls.max() < 1e-2


@pytest.mark.slow
def test_gradient_is_that_of_the_gathered_probabilities():
    """With respect to the logits; nothing through A, the metrics or the statistics."""
    logits, mask = random_logits(5, 4, 12), np.random.default_rng(5).random((P, 12)) < 0.8
    router = CappedExpertChoice(2.0, cap=2)
    slots = route(router, logits, mask).assignment
    coefficient_PEC = np.random.default_rng(6).normal(size=slots.weight_PEC.shape)

    def routed(logits):
        output = route(router, logits, mask)
        others = jax.tree.leaves((output.metrics, output.statistics))
        return (coefficient_PEC * output.assignment.weight_PEC).sum() + sum(x.sum() for x in others)

    def gathered(logits):
        p, e, _ = np.indices(slots.token_index_PEC.shape)
        picked_PEC = jax.nn.softmax(logits)[p, slots.token_index_PEC, e]
        return (coefficient_PEC * picked_PEC * slots.filled_PEC).sum()

    gradient = jax.grad(routed)(logits)
    np.testing.assert_allclose(gradient, jax.grad(gathered)(logits), rtol=1e-5, atol=1e-7)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 1e-2


def test_statistics_are_those_of_the_threshold_router():
    """The lowest chosen probability of each expert, averaged over pools."""
    logits, mask = random_logits(8, 4, 12), np.arange(12) < np.array([12, 7])[:, None]
    router = CappedExpertChoice(2.0, cap=3, threshold_decay=0.5)
    output = route(router, logits, mask)
    count, _ = oracles.assignment_table(output.assignment, 12)
    choices = [[np.flatnonzero(taken_N).tolist() for taken_N in pool.T] for pool in count]
    expected_E = oracles.kth_scores(oracles.softmax(logits), choices)
    np.testing.assert_allclose(oracles.mean_kth_score(output.statistics), expected_E, rtol=2e-5)
    assert isinstance(router.causal(), ExpertThreshold)
    assert not router.is_causal
    assert CappedExpertChoice(pool=Pool("position")).is_causal


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"cap": 1}, "a cap of 1 expert per token cannot hold a mean of 2"),
        ({"capacity_factor": 2.5, "cap": 2}, "cannot hold a mean of 2.5"),
        ({"cap": 0}, "cap must be a whole number above 0, not 0"),
        ({"cap": 2.0}, "cap must be a whole number above 0, not 2.0"),
        ({"cap": True, "capacity_factor": 1.0}, "cap must be a whole number"),
        ({"iterations": 0}, "iterations must be a whole number"),
        ({"regularisation": 0.0}, "regularisation must be above 0"),
        ({"threshold_decay": 1.0}, "threshold_decay"),
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(arguments, reason):
    with pytest.raises(UserError, match=reason):
        CappedExpertChoice(**arguments)


def test_check_refuses_a_capacity_of_zero():
    with pytest.raises(UserError, match="capacity is zero"):
        CappedExpertChoice(pool=Pool("sequence")).check(1, 31, 64)
    CappedExpertChoice(pool=Pool("sequence")).check(1, 32, 64)
