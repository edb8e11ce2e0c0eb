"""Health metrics on cases counted by hand, in both layouts of an assignment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.routing.assignment import Pairs, RouterScores, Slots
from moe_jax.routing.metrics import health, routed_counts

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
    experts=3,
)


@jax.jit
def metrics_of(assignment, logits_PNE, mask_PN=MASK):
    return health(assignment, RouterScores(logits_PNE, jax.nn.softmax(logits_PNE), mask_PN))


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
        "unrouted_share": 2 / 7,
        "experts_per_token": np.array([2, 3, 1, 1, 0, 0]) / 7,
        "mean_experts": 8 / 7,
        "entropy": np.log(3),
        "confidence": 1 / 3,
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
        return sum(value.sum() for value in metrics_of(SLOTS, logits).values())

    np.testing.assert_array_equal(gradient(logits), np.zeros((2, 4, 3)))
