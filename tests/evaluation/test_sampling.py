"""Sampling of tokens: greedy limits, and frequencies against probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from moe_jax.errors import UserError
from moe_jax.evaluation.sampling import SamplingConfig, sample_tokens

DRAWS = 4000
# Not sorted, so that ids and ranks differ.
PROBABILITIES = np.array([0.05, 0.3, 0.02, 0.25, 0.03, 0.15, 0.2])


def draw_many(config, probabilities=PROBABILITIES, seed=0):
    """Returns how often each token is drawn from the logits of these probabilities."""
    # A constant changes nothing.
    logits_BV = jnp.tile(jnp.log(jnp.asarray(probabilities)) + 3.0, (DRAWS, 1))
    drawn = sample_tokens(logits_BV, jax.random.key(seed), config)
    assert drawn.shape == (DRAWS,)
    assert drawn.dtype == jnp.int32
    return np.bincount(drawn, minlength=len(probabilities))


def kept_by_nucleus(probabilities, p):
    """Returns the fewest tokens that together have probability `p` (Holtzman et al. 2020)."""
    order = np.argsort(-probabilities)
    count = np.searchsorted(np.cumsum(probabilities[order]), p) + 1
    return set(order[:count].tolist())


def assert_drawn_from(counts, probabilities):
    """Asserts counts by the chi-square test, and that nothing impossible is drawn."""
    possible = probabilities > 0
    assert counts[~possible].sum() == 0
    if possible.sum() == 1:
        return
    expected = DRAWS * probabilities[possible] / probabilities.sum()
    assert scipy.stats.chisquare(counts[possible], expected).pvalue > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {"temperature": 0.0, "top_k": 3, "top_p": 0.5},
        {"temperature": 1.0, "top_k": 1, "top_p": 1.0},
        {"temperature": 1.0, "top_p": 1e-6},
        {"temperature": 1e-4, "top_p": 1.0},
    ],
)
def test_limits_are_arg_max(settings):
    logits = np.random.default_rng(0).normal(size=(64, 33)).astype(np.float32)
    drawn = sample_tokens(jnp.asarray(logits), jax.random.key(1), SamplingConfig(**settings))
    np.testing.assert_array_equal(drawn, logits.argmax(-1))
    assert drawn.dtype == jnp.int32


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_tempered_probabilities(temperature):
    counts = draw_many(SamplingConfig(temperature=temperature, top_p=1.0))
    assert_drawn_from(counts, PROBABILITIES ** (1 / temperature))


@pytest.mark.parametrize("k", [2, 3, 6, 7, 100])
def test_top_k_draws_from_the_k_most_likely_only(k):
    counts = draw_many(SamplingConfig(temperature=1.0, top_k=k, top_p=1.0))
    kept = np.argsort(-PROBABILITIES)[:k]
    expected = np.zeros_like(PROBABILITIES)
    expected[kept] = PROBABILITIES[kept]
    assert_drawn_from(counts, expected)


@pytest.mark.parametrize("p", [0.1, 0.29, 0.31, 0.6, 0.76, 0.99])
def test_top_p_draws_from_the_fewest_tokens_of_that_probability(p):
    counts = draw_many(SamplingConfig(temperature=1.0, top_p=p))
    kept = kept_by_nucleus(PROBABILITIES, p)
    expected = np.where([i in kept for i in range(len(PROBABILITIES))], PROBABILITIES, 0.0)
    assert_drawn_from(counts, expected)


@pytest.mark.parametrize(
    ("k", "p", "kept"), [(2, 0.9, [1, 3]), (5, 0.6, [1, 3]), (3, 0.8, [1, 3, 6])]
)
def test_temperature_comes_before_both_cuts(k, p, kept):
    """Squared and normalised, the probabilities are 0.41, 0.29, 0.18, 0.10 and little more."""
    counts = draw_many(SamplingConfig(temperature=0.5, top_k=k, top_p=p))
    expected = np.zeros_like(PROBABILITIES)
    expected[kept] = PROBABILITIES[kept] ** 2
    assert_drawn_from(counts, expected)


@pytest.mark.parametrize(
    ("settings", "kept"), [({"top_k": 1}, 1), ({"top_k": 3}, 3), ({"top_p": 0.45}, 4)]
)
def test_ties_do_not_widen_the_choice(settings, kept):
    """Of eight equally likely tokens, k are k, and four have a probability of 0.45 or more."""
    counts = draw_many(SamplingConfig(**{"temperature": 1.0, "top_p": 1.0, **settings}), np.ones(8))
    assert np.sum(counts > 0) == kept


def test_rows_are_cut_and_drawn_one_by_one():
    """Each row has its own cut and an independent draw; another key draws anew."""
    logits = np.full((2, 8), -2.0, np.float32)
    logits[0, :2], logits[1, 6:] = 2.0, 2.5
    logits[0, 1], logits[1, 7] = 1.9, 2.4
    config = SamplingConfig(temperature=1.0, top_k=2, top_p=1.0)
    keys = jax.random.split(jax.random.key(3), 200)
    drawn = np.asarray(jax.vmap(lambda key: sample_tokens(jnp.asarray(logits), key, config))(keys))
    assert set(drawn[:, 0]) == {0, 1}
    assert set(drawn[:, 1]) == {6, 7}
    # Independent rows agree in about half of the draws: 100 +- 5 standard deviations.
    assert 65 < np.sum(drawn[:, 0] == drawn[:, 1] - 6) < 135


def test_same_key_same_draw():
    config = SamplingConfig(temperature=1.0)
    np.testing.assert_array_equal(draw_many(config, seed=5), draw_many(config, seed=5))
    assert np.any(draw_many(config, seed=5) != draw_many(config, seed=6))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number above 0, not 0"),
        ({"temperature": -0.1}, "temperature must be 0 or more, not -0.1"),
        ({"top_k": -1}, "top_k must be a whole number, 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, not 1.5"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        SamplingConfig(**settings)
