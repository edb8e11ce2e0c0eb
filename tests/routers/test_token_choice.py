"""Token choice against a numpy version of the papers' equations; presets, noise, jitter."""

import dataclasses
import functools
import math

import choice_oracles
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tiers import mostly_slow

from moe_jax.routers import get_router
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing.assignment import Pairs, RouterScores
from moe_jax.routing.metrics import summarise
from moe_jax.routing.pools import Pool

# Pools of three rows of five tokens.
P, ROWS, S, E = 3, 3, 5, 8
N = ROWS * S
TIME = np.tile(np.arange(S, dtype=np.int32), (P, ROWS))
# A full pool, one with rows of 5, 2 and 1 tokens, and one of padding.
RAGGED = np.arange(S) < np.array([[5, 5, 5], [5, 2, 1], [0, 0, 0]])[..., None]
MASKS = [RAGGED.reshape(P, N), np.random.default_rng(0).random((P, N)) < 0.7]
BIAS = np.array([0.3, -0.2, 0.0, 0.1, -0.4, 0.2, 0.1, -0.1])
SHARP_BIAS = 10 * BIAS


def traced(router, logits_PNE, mask_PN, state, key=None, time_PN=TIME):
    time_PN = jnp.asarray(time_PN)
    scores = RouterScores(logits_PNE, jax.nn.softmax(logits_PNE), mask_PN, time_PN=time_PN, key=key)
    return router(scores, state)


# Compiling is what takes time here.
compiled = jax.jit(traced, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})


def route(*arguments, **options):
    return jax.device_get(compiled(*arguments, **options))


def random_logits(seed):
    """Returns logits that like some experts better than others, so that slots run out."""
    rng = np.random.default_rng(seed)
    return (1.5 * rng.normal(size=(P, N, E)) + rng.normal(size=E)).astype(np.float32)


def check(output, expected):
    """Compares choices, weights, slots and the dropped share."""
    pairs = output.assignment
    chosen_PNK = np.asarray(pairs.chosen_PNK)
    count, weight = oracles.assignment_table(pairs, N)
    assert count.max() == 1
    assert {tuple(index) for index in np.argwhere(count)} == expected.slot.keys()
    np.testing.assert_allclose(weight, expected.weight_PNE, rtol=2e-5, atol=1e-7)
    assert not np.asarray(pairs.weight_PNK)[~chosen_PNK].any()
    experts = np.asarray(pairs.expert_index_PNK)
    for (p, n), wanted in expected.wanted.items():
        assert experts[p, n, : len(wanted)].tolist() == wanted
    if pairs.capacity is not None:
        slots = np.asarray(pairs.slot_PNK)
        for p, n, k in np.argwhere(chosen_PNK):
            assert slots[p, n, k] == expected.slot[p, n, experts[p, n, k]] < pairs.capacity
    dropped = summarise(output.metrics)["dropped_share"]
    np.testing.assert_allclose(dropped, expected.dropped_share, atol=1e-6)


CASES = [
    {"k": 1, "normalise": False, "capacity_factor": 1.25},
    {"k": 1, "normalise": False, "score": "sqrt_softplus"},
    {"k": 2, "normalise": False, "score": "sigmoid"},
    {"k": 3, "scale": 2.5, "score": "sqrt_softplus"},
    {"k": 8},
    {"k": 4, "score": "sigmoid", "groups": 4, "top_groups": 2, "bias_E": BIAS},
    {"k": 2, "groups": 8, "top_groups": 3},  # Groups of one expert.
    {"k": 2, "bias_E": SHARP_BIAS, "capacity_factor": 0.7, "order": "priority"},
    {"k": 2, "capacity_factor": 0.5, "order": "left_to_right"},
    {"k": 2, "capacity_factor": 1.0, "order": "choices_first"},
    {"k": 2, "capacity_factor": 1.0, "order": "priority"},
    {"k": 3, "capacity_factor": 0.7, "order": "left_to_right", "score": "sigmoid"},
    {"k": 3, "capacity_factor": 0.7, "order": "choices_first", "normalise": False},
    {"k": 3, "capacity_factor": 5.0, "order": "priority"},  # More than N slots: nothing drops.
]


def router_of(case):
    fields = {name: value for name, value in case.items() if name != "bias_E"}
    balance = "bias" if "bias_E" in case else "none"
    return TokenChoice(pool=Pool("batch", ROWS), balance=balance, **fields)


@pytest.mark.parametrize("case", mostly_slow(CASES, 5), ids=str)
def test_equals_oracle(case):
    router = router_of(case)
    router.check(P * ROWS, S, E)
    state = {"bias": jnp.asarray(case["bias_E"], jnp.float32)} if "bias_E" in case else {}
    dropped = 0.0
    for seed, mask in enumerate(MASKS):
        expected = choice_oracles.token_choice(random_logits(seed), mask, time_PN=TIME, **case)
        check(route(router, random_logits(seed), mask, state), expected)
        dropped += expected.dropped_share
    assert (dropped > 0) == (case.get("capacity_factor", 9) < 5)


def test_slots_by_hand():
    """Two rows of three tokens that all want expert 0 first, then 1; C = floor(6 2 / 4) = 3.

    Left to right, time 0 and 1 of both rows come first; choices first, the tokens' own order;
    priority, the highest scores.
    """
    p_N = np.array([0.6, 0.7, 0.8, 0.5, 0.9, 0.55])
    rest = (1 - p_N) / 4
    logits = np.log(np.stack([p_N, 2 * rest, rest, rest], -1))[None].astype(np.float32)
    time = np.array([[0, 1, 2, 0, 1, 2]])
    expected = {
        "left_to_right": [[0, 0], [2, 2], [9, 9], [1, 1], [9, 9], [9, 9]],
        "choices_first": [[0, 0], [1, 1], [2, 2], [9, 9], [9, 9], [9, 9]],
        "priority": [[9, 9], [2, 2], [1, 1], [9, 9], [0, 0], [9, 9]],
    }
    for order, slots in expected.items():
        router = TokenChoice(capacity_factor=1.0, order=order)
        pairs = route(router, logits, np.ones((1, 6), bool), {}, time_PN=time).assignment
        assert pairs.capacity == 3
        np.testing.assert_array_equal(pairs.expert_index_PNK[0], [[0, 1]] * 6)
        np.testing.assert_array_equal(np.where(pairs.chosen_PNK, pairs.slot_PNK, 9)[0], slots)


def test_first_choices_of_late_tokens_push_out_second_choices():
    """C = floor(2 2 / 2) / 2 = 1: token 0 wants 0 then 1, token 1 wants 1 then 0."""
    logits = np.array([[[1.0, 0.0], [0.0, 1.0]]], np.float32)
    chosen = {"left_to_right": [[1, 1], [0, 0]], "choices_first": [[1, 0], [1, 0]]}
    for order, expected in chosen.items():
        router, time = TokenChoice(capacity_factor=0.5, order=order), np.array([[0, 1]])
        pairs = route(router, logits, np.ones((1, 2), bool), {}, time_PN=time).assignment
        np.testing.assert_array_equal(pairs.chosen_PNK[0], expected)


@pytest.mark.parametrize("case", [CASES[3], CASES[8], CASES[10]], ids=str)
def test_the_experts_view_is_the_same_assignment(case):
    pairs = route(router_of(case), random_logits(0), MASKS[0], {}).assignment
    if pairs.capacity is None:
        with pytest.raises(AssertionError):
            pairs.slots()
    else:
        slots = jax.device_get(jax.jit(Pairs.slots)(pairs))
        assert slots.filled_PEC.shape == (P, E, pairs.capacity)
        count, weight = oracles.assignment_table(pairs, N)
        as_slots = oracles.assignment_table(slots, N)
        np.testing.assert_array_equal(as_slots[0], count)
        np.testing.assert_array_equal(as_slots[1], weight)
        empty = ~np.asarray(slots.filled_PEC)
        assert not np.asarray(slots.token_index_PEC)[empty].any()
        assert not np.asarray(slots.weight_PEC)[empty].any()
    np.testing.assert_allclose(
        pairs.dense_weight_PNE(), oracles.assignment_table(pairs, N)[1], rtol=1e-6
    )


PRESETS = {
    "switch": {"k": 1, "normalise": False, "capacity_factor": 1.25},
    "gshard_top2": {"k": 2, "capacity_factor": 1.0, "order": "choices_first"},
    "glam_top2": {"k": 2, "capacity_factor": 1.0, "order": "choices_first"},
    "topk": {"k": 2},
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_their_papers_without_a_key(name):
    """C = 1.25 N / E, 2 N / E, 2 N / E, and no limit."""
    router = get_router(name)
    for seed, mask in enumerate(MASKS):
        expected = choice_oracles.token_choice(
            random_logits(seed), mask, time_PN=TIME, **PRESETS[name]
        )
        check(route(router, random_logits(seed), mask, {}), expected)
    assert router.input_jitter == (0.01 if name == "switch" else 0.0)


@pytest.mark.parametrize("name", ["switch", "glam_top2"])
def test_only_gshard_draws_second_choices(name):
    """Switch's jitter is not the router's own business: it is on the input."""
    router, logits = get_router(name), random_logits(0)
    without = route(router, logits, MASKS[0], {})
    keyed = route(router, logits, MASKS[0], {}, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, without, keyed)


@pytest.mark.parametrize(("name", "first_only"), [("gshard_top2", True), ("topk", False)])
def test_which_choices_are_balanced(name, first_only):
    """GShard's algorithm 1 counts c_e from first choices, before any is dropped."""
    output = route(get_router(name), random_logits(0), MASKS[0], {})
    wanted = choice_oracles.token_choice(random_logits(0), MASKS[0]).wanted
    chosen = [e for experts in wanted.values() for e in experts[: 1 if first_only else 2]]
    count = np.bincount(chosen, minlength=E)
    np.testing.assert_array_equal(output.statistics["choices"], count)
    p = oracles.softmax(random_logits(0))[MASKS[0]].mean(0)
    expected = E * (count / count.sum() * p).sum()
    np.testing.assert_allclose(output.losses["balance"], expected, rtol=1e-5)


@functools.cache
def second_choices(draws):
    """Returns which second choices GShard without a capacity keeps, [draws, P, N]."""
    router = dataclasses.replace(get_router("gshard_top2"), capacity_factor=None)

    @jax.jit
    @jax.vmap
    def draw(key):
        return traced(router, random_logits(0), MASKS[0], {}, key).assignment.chosen_PNK

    chosen = np.asarray(draw(jax.random.split(jax.random.key(0), draws)))
    np.testing.assert_array_equal(chosen[..., 0], np.broadcast_to(MASKS[0], chosen.shape[:-1]))
    return chosen[..., 1]


def test_gshard_keeps_seconds_with_probability_twice_their_weight():
    """Five standard errors of 4000 draws, for each of the tokens."""
    draws = 4000
    share = second_choices(draws).mean(0)
    p = np.sort(oracles.softmax(random_logits(0)), -1)[..., ::-1]
    kept = np.minimum(1, 2 * p[..., 1] / (p[..., 0] + p[..., 1]))
    assert not share[~MASKS[0]].any()
    real = kept[MASKS[0]]
    error = np.sqrt(real * (1 - real) / draws)
    assert (np.abs(share[MASKS[0]] - real) < 5 * error + 1e-3).all()


def test_gshard_gives_no_slots_to_seconds_that_are_not_used():
    """Algorithm 1 with the draws of a key; the dropped share is of the choices that are left."""
    key = jax.random.key(3)
    dropless = dataclasses.replace(get_router("gshard_top2"), capacity_factor=None)
    kept = np.asarray(route(dropless, random_logits(0), MASKS[0], {}, key).assignment.chosen_PNK)
    seconds = kept[..., 1]
    assert 0 < seconds.sum() < MASKS[0].sum()
    expected = choice_oracles.token_choice(
        random_logits(0), MASKS[0], seconds_PN=seconds, **PRESETS["gshard_top2"]
    )
    check(route(get_router("gshard_top2"), random_logits(0), MASKS[0], {}, key), expected)


@pytest.mark.parametrize("noise", [1.0, 0.5])
def test_noise_is_normal_in_units_of_one_over_the_experts(noise):
    """Two experts a logit of d apart, six that nobody takes: the first wins with Phi.

    The difference of two noises has standard deviation sqrt(2) noise / E.
    """
    router = TokenChoice(k=1, normalise=False, noise=noise)
    d, tokens = 0.1, 20000
    logits = jnp.full((1, tokens, E), -1e9).at[..., 0].set(d).at[..., 1].set(0.0)
    mask = jnp.ones((1, tokens), bool)

    @jax.jit
    def first(key):
        scores = RouterScores(logits, jax.nn.softmax(logits), mask, key=key)
        pairs = router(scores, {}).assignment
        return (pairs.expert_index_PNK == 0).mean(), pairs.weight_PNK

    share, weight = first(jax.random.key(0))
    z = d * E / noise / math.sqrt(2)
    expected = (1 + math.erf(z / math.sqrt(2))) / 2
    assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / tokens)
    # The weight is the noisy score: the winner of two, so at least a half.
    assert 0.5 <= weight.min() < weight.max() < 1
    assert first(jax.random.key(1))[0] != share


def test_noise_needs_a_key():
    noisy, plain = TokenChoice(noise=1.0), get_router("topk")
    one = route(noisy, random_logits(0), MASKS[0], {})
    other = route(plain, random_logits(0), MASKS[0], {})
    jax.tree.map(np.testing.assert_array_equal, one.assignment, other.assignment)
    assert one.losses.keys() - other.losses.keys() == {"importance"}
    trained = jax.eval_shape(
        lambda key: traced(noisy, random_logits(0), MASKS[0], {}, key), jax.random.key(0)
    )
    assert trained.losses.keys() - other.losses.keys() == {"importance", "load"}


@pytest.mark.parametrize(
    "case", [CASES[0], CASES[2], {"k": 3, "scale": 2.5, "capacity_factor": 0.7}], ids=str
)
def test_gradient_is_that_of_the_weights(case):
    """Law 5: of a random sum of weights, by float64 differences of the oracle, entry by entry."""
    router, logits = TokenChoice(**case), random_logits(0)[:1]
    mask = MASKS[0][:1]
    coefficient = np.random.default_rng(1).normal(size=logits.shape)

    def expected_sum(logits):
        choice = choice_oracles.token_choice(logits, mask, **case)
        return (coefficient * choice.weight_PNE).sum()

    @jax.jit
    @jax.grad
    def gradient(logits):
        scores = RouterScores(logits, jax.nn.softmax(logits), jnp.asarray(mask))
        return (coefficient * router(scores, {}).assignment.dense_weight_PNE()).sum()

    actual = np.asarray(gradient(logits))
    entries = np.random.default_rng(2).integers((1, N, E), size=(40, 3))
    for entry in map(tuple, entries):
        shift = np.zeros(logits.shape)
        shift[entry] = 1e-6
        expected = (expected_sum(logits + shift) - expected_sum(logits - shift)) / 2e-6
        np.testing.assert_allclose(actual[entry], expected, rtol=2e-3, atol=1e-5)
    assert np.abs(actual).max() > 0.01
