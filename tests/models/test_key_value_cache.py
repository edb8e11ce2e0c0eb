"""Attention over a cache, beside plain attention over all positions in numpy."""

import jax.numpy as jnp
import numpy as np

from moe_jax.models.key_value_cache import KeyValueCache, attend_with_cache

B, H, K, T, Q = 2, 3, 4, 6, 2


def softmax_attention(q, k, v):
    weights = np.exp(q @ k.T / np.sqrt(K))
    return weights / weights.sum(-1, keepdims=True) @ v


def test_attention_over_a_cache_is_attention_over_all_positions():
    """Rows with 5 and 2 earlier positions; what else is in the cache does not count."""
    rng = np.random.default_rng(0)
    k, v = (rng.normal(size=(B, T + Q, H, K)).astype(np.float32) for _ in range(2))
    q = rng.normal(size=(B, Q, H, K)).astype(np.float32)
    starts = np.array([5, 2])
    cache = KeyValueCache.of_positions(jnp.asarray(k[:, :T]), jnp.asarray(v[:, :T]))
    new = KeyValueCache.of_positions(jnp.asarray(k[:, T:]), jnp.asarray(v[:, T:]))
    cached = np.where(np.arange(T) < starts[:, None], 0.0, -1e30)[:, None, None]
    causal = np.where(np.tril(np.ones((Q, Q))), 0.0, -1e30)[None, None]
    masks = (jnp.asarray(cached, jnp.float32), jnp.asarray(causal, jnp.float32))
    found = attend_with_cache(jnp.asarray(q), new, cache, masks)
    assert found.shape == (B, Q, H, K)
    for b, i, h in np.ndindex(B, Q, H):
        seen = [*range(starts[b]), *range(T, T + i + 1)]
        expected = softmax_attention(q[b, i, h], k[b, seen, h], v[b, seen, h])
        np.testing.assert_allclose(found[b, i, h], expected, rtol=1e-5, atol=1e-6)


def test_rows_are_written_at_their_own_positions():
    """Also with layers in one array."""
    cache = KeyValueCache(jnp.zeros((B, H, T, K)), jnp.zeros((B, H, T, K)))
    new = KeyValueCache(jnp.ones((B, H, 1, K)), jnp.full((B, H, 1, K), 2.0))
    written = cache.written(new, jnp.array([4, 0]))
    expected = np.zeros((B, H, T, K))
    expected[0, :, 4], expected[1, :, 0] = 1, 1
    np.testing.assert_array_equal(written.key, expected)
    np.testing.assert_array_equal(written.value, 2 * expected)
    stacked = KeyValueCache(cache.key[None], cache.value[None])
    layers = stacked.written(KeyValueCache(new.key[None], new.value[None]), jnp.array([4, 0]))
    np.testing.assert_array_equal(layers.key[0], expected)


def test_padding_keeps_what_is_there():
    cache = KeyValueCache(jnp.ones((B, H, 2, K)), jnp.ones((B, H, 2, K))).padded(5)
    assert cache.length == 5
    np.testing.assert_array_equal(cache.key[0, 0, :, 0], [1, 1, 0, 0, 0])
