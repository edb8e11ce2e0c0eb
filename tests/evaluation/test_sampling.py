"""Sampling of tokens: greedy limits, and frequencies against probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from tiers import mostly_slow

from moe_jax.errors import UserError
from moe_jax.evaluation.sampling import SamplingConfig, _draw, _nucleus, sample_tokens

DRAWS = 4000
# Not sorted, so that ids and ranks differ.
PROBABILITIES = np.array([0.05, 0.3, 0.02, 0.25, 0.03, 0.15, 0.2])


def draw_many(config, probabilities=PROBABILITIES, seed=0):
    """Returns how often each token is drawn from the logits of these probabilities."""
    # A constant changes nothing.
    logits_BV = jnp.tile(jnp.log(jnp.asarray(probabilities)) + 3.0, (DRAWS, 1))
    drawn = sample_tokens(logits_BV, jax.random.split(jax.random.key(seed), DRAWS), config)
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
    keys = jax.random.split(jax.random.key(1), 64)
    drawn = sample_tokens(jnp.asarray(logits), keys, SamplingConfig(**settings))
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
    keys = jax.random.split(jax.random.key(3), 400)
    rows = jnp.tile(jnp.asarray(logits), (200, 1))
    drawn = np.asarray(sample_tokens(rows, keys, config)).reshape(200, 2)
    assert set(drawn[:, 0]) == {0, 1}
    assert set(drawn[:, 1]) == {6, 7}
    # Independent rows agree in about half of the draws: 100 +- 5 standard deviations.
    assert 65 < np.sum(drawn[:, 0] == drawn[:, 1] - 6) < 135


@pytest.mark.parametrize("top_p", mostly_slow([0.9, 0.02, 0.5, 0.999]))
def test_the_nucleus_of_a_large_vocabulary_is_that_of_a_sort(top_p):
    """3,000 tokens in several blocks, a third tied; drawn at every twentieth of the mass."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=3000).astype(np.float32)
    logits[::3] = logits[0]
    p = np.exp(logits.astype(np.float64))
    order = np.lexsort((np.arange(3000), -logits))
    kept = order[: np.searchsorted(np.cumsum(p[order]) / p.sum(), top_p) + 1]
    found = np.flatnonzero(np.asarray(_nucleus(jax.nn.softmax(jnp.asarray(logits)), top_p)))
    # Sums in float32 decide about a token at the boundary.
    assert len(set(found) ^ set(kept)) <= 1
    inside = np.where(np.isin(np.arange(3000), found), p, 0.0)
    share = (np.arange(20) + 0.5) / 20
    wanted = np.searchsorted(np.cumsum(inside) / inside.sum(), share)
    row = np.log(inside, where=inside > 0, out=np.full(3000, -np.inf))
    p_V = jax.nn.softmax(jnp.asarray(row, jnp.float32))
    drawn = jax.vmap(_draw, (None, 0))(p_V, jnp.asarray(share, jnp.float32))
    assert np.abs(np.asarray(drawn) - wanted).max() <= 2
    assert inside[np.asarray(drawn)].min() > 0


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
        ({"beams": 0}, "beams must be a whole number above 0, not 0"),
        ({"beams": 4}, "beams = 4 needs Sampling.temperature = 0, not 0.8: beam search does not"),
        ({"length_penalty": -1.0}, "length_penalty must be 0 or more, not -1.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        SamplingConfig(**settings)
