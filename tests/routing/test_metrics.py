"""Health metrics on cases counted by hand, in both layouts of an assignment."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.routing.assignment import Pairs, RouterScores, Slots
from moe_jax.routing.metrics import health, routed_counts, summarise

# Two pools of four tokens, three experts. The last token of pool 1 is padding.
# Experts of each token: pool 0: {}, {0}, {0, 1}, {0, 1, 2}; pool 1: {0}, {2}, {}, padding.
MASK = np.array([[True] * 4, [True, True, True, False]])
SLOTS = Slots(
    token_index_PEC=jnp.array(
        [[[3, 1, 2], [2, 3, 0], [3, 0, 0]], [[0, 0, 0], [0, 0, 0], [1, 0, 0]]]
    ),
    weight_PEC=jnp.ones((2, 3, 3)),
    filled_PEC=jnp.array(
        [[[1, 1, 1], [1, 1, 0], [1, 0, 0]], [[1, 0, 0], [0, 0, 0], [1, 0, 0]]], bool
    ),
)
PAIRS = Pairs(
    expert_index_PNK=jnp.array(
        [[[0, 1, 2], [1, 0, 2], [1, 0, 0], [2, 0, 1]], [[0, 0, 0], [2, 2, 2], [1, 1, 1], [0, 1, 2]]]
    ),
    weight_PNK=jnp.ones((2, 4, 3)),
    chosen_PNK=jnp.array(
        [
            [[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 1]],
            [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]],
        ],
        bool,
    ),
    num_experts=3,
)


@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def means_of(assignment, logits_PNE, mask_PN=MASK, wanted_PN=None):
    scores = RouterScores(logits_PNE, jax.nn.softmax(logits_PNE), mask_PN)
    return health(assignment, scores, wanted_PN)


def metrics_of(*arguments):
    return jax.jit(summarise)(means_of(*arguments))


@pytest.mark.parametrize("assignment", [SLOTS, PAIRS], ids=["slots", "pairs"])
def test_hand_counted_case(assignment):
    """Experts get 4, 2 and 2 of the 8 pairs; of 7 real tokens 2, 3, 1, 1 have 0, 1, 2, 3."""
    per_token, per_expert = routed_counts(assignment, 4, 3)
    np.testing.assert_array_equal(per_token, [[0, 1, 2, 3], [1, 1, 0, 0]])
    np.testing.assert_array_equal(per_expert, [4, 2, 2])
    metrics = metrics_of(assignment, np.zeros((2, 4, 3)))
    expected = {
        "load": [0.5, 0.25, 0.25],
        "max_violation": 0.5,
        "dropped_share": 0.0,
        "unrouted_share": 2 / 7,
        "experts_per_token": np.array([2, 3, 1, 1, 0, 0]) / 7,
        "mean_experts": 8 / 7,
        "entropy": np.log(3),
        "confidence": 1 / 3,
        "gap_histogram": np.eye(10)[0],
    }
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, atol=1e-7, err_msg=name)


def test_histogram_ends_with_more_than_four():
    """Tokens with 4, 5 and 7 experts of 7."""
    chosen = np.arange(7) < np.array([4, 5, 7])[:, None]
    pairs = Pairs(
        jnp.broadcast_to(jnp.arange(7), (1, 3, 7)),
        jnp.ones((1, 3, 7)),
        jnp.asarray(chosen[None]),
        7,
    )
    metrics = metrics_of(pairs, np.zeros((1, 3, 7)), np.ones((1, 3), bool))
    np.testing.assert_allclose(metrics["experts_per_token"], [0, 0, 0, 0, 1 / 3, 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(metrics["mean_experts"], 16 / 3, rtol=1e-6)
    np.testing.assert_allclose(metrics["max_violation"], 3 / 16 * 7 - 1, rtol=1e-5)


def test_entropy_and_confidence_count_real_tokens_only():
    """One certain token (0 nats), one with two equal experts (ln 2); padding is uniform."""
    logits = np.full((1, 3, 4), -1e9)
    logits[0, 0, 2] = logits[0, 1, 1] = logits[0, 1, 3] = 0.0
    logits[0, 2] = 0.0
    pairs = Pairs(
        jnp.zeros((1, 3, 1), jnp.int32), jnp.zeros((1, 3, 1)), jnp.zeros((1, 3, 1), bool), 4
    )
    metrics = metrics_of(pairs, logits, np.array([[True, True, False]]))
    np.testing.assert_allclose(metrics["entropy"], np.log(2) / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["confidence"], 0.75, rtol=1e-6)
    assert metrics["unrouted_share"] == 1.0


def test_metrics_carry_no_gradient():
    logits = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)

    @jax.jit
    @jax.grad
    def gradient(logits):
        scores = RouterScores(logits, jax.nn.softmax(logits), MASK)
        return sum(value.sum() for value in summarise(health(SLOTS, scores)).values())

    np.testing.assert_array_equal(gradient(logits), np.zeros((2, 4, 3)))


@pytest.mark.parametrize("assignment", [SLOTS, PAIRS], ids=["slots", "pairs"])
def test_dropped_share(assignment):
    """Real tokens asked for 12 pairs and got 8; what padding asked for does not count."""
    wanted = jnp.array([[1, 1, 2, 3], [1, 2, 2, 9]])
    metrics = metrics_of(assignment, np.zeros((2, 4, 3)), MASK, wanted)
    np.testing.assert_allclose(metrics["dropped_share"], 4 / 12, rtol=1e-6)
    np.testing.assert_allclose(metrics["mean_experts"], 8 / 7, rtol=1e-6)


def test_no_real_token_is_all_zeros():
    nobody = Pairs(PAIRS.expert_index_PNK, jnp.zeros((2, 4, 3)), jnp.zeros((2, 4, 3), bool), 3)
    metrics = metrics_of(nobody, np.zeros((2, 4, 3)), np.zeros((2, 4), bool), jnp.ones((2, 4)))
    assert all(not np.asarray(value).any() for value in metrics.values())


def test_gap_histogram_counts_real_tokens_only():
    """Gaps 0 (a tie), 0.25, 0.55, 0.98 and 1; the last token is padding with a gap of 0.75."""
    p = np.array(
        [
            [0.4, 0.4, 0.2],
            [0.15, 0.55, 0.3],
            [0.7, 0.15, 0.15],
            [0.005, 0.01, 0.985],
            [0.0, 1.0, 0.0],
            [0.85, 0.1, 0.05],
        ]
    )
    logits = np.log(np.maximum(p, 1e-30))[None].astype(np.float32)
    mask = np.array([[True] * 5 + [False]])
    pairs = Pairs(
        jnp.zeros((1, 6, 1), jnp.int32), jnp.zeros((1, 6, 1)), jnp.zeros((1, 6, 1), bool), 3
    )
    expected = np.array([1, 0, 1, 0, 0, 1, 0, 0, 0, 2]) / 5
    np.testing.assert_allclose(
        metrics_of(pairs, logits, mask)["gap_histogram"], expected, atol=1e-6
    )


def test_means_of_two_halves_give_the_metrics_of_the_whole():
    """Weighted by their real tokens, 4 and 3: why ratios are made last; layers may be in front."""
    logits = np.random.default_rng(1).normal(size=(2, 4, 3)).astype(np.float32)
    wanted = jnp.array([[1, 1, 2, 3], [1, 2, 2, 0]])
    whole = metrics_of(PAIRS, logits, MASK, wanted)
    halves = [
        means_of(*jax.tree.map(lambda x, p=p: x[p : p + 1], (PAIRS, logits, MASK, wanted)))
        for p in (0, 1)
    ]
    means = jax.tree.map(lambda one, other: jnp.stack([(4 * one + 3 * other) / 7] * 2), *halves)
    together = jax.jit(summarise)(means)
    assert together.keys() == whole.keys()
    for name, value in whole.items():
        for layer in (0, 1):
            np.testing.assert_allclose(together[name][layer], value, atol=1e-6, err_msg=name)
    shares = [summarise(half)["dropped_share"] for half in halves]
    assert abs((4 * shares[0] + 3 * shares[1]) / 7 - whole["dropped_share"]) > 1e-3


def test_other_metrics_pass_through():
    assert summarise({"entropy": 1.0}) == {"entropy": 1.0}
