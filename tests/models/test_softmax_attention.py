"""Attention's own gradient against JAX's of the plain formula, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.models.position_embeddings import MASKED
from moe_jax.models.softmax_attention import attend

B, S, T, H, K = 2, 7, 7, 3, 4


def plain(q, k, v, mask):
    logits = jnp.einsum("bshk,bthk->bhst", q, k) / np.sqrt(K) + mask
    return jnp.einsum("bhst,bthk->bshk", jax.nn.softmax(logits, -1), v)


def arrays(shape, seed=0, queries=S):
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(B, queries, H, K))
    k, v = (rng.normal(size=(B, T, H, K)) for _ in range(2))
    future = np.arange(T) > np.arange(T - queries, T)[:, None]
    mask = rng.normal(size=shape)
    return q, k, v, np.where(future, MASKED, mask), rng.normal(size=q.shape)


@pytest.mark.parametrize("shape", [(B, H, S, T), (H, S, T), (1, S, T), (B, 1, S, T), (S, T)])
def test_values_and_gradients(shape):
    *inputs, dy = arrays(shape)
    low = [jnp.asarray(a, jnp.float32) for a in inputs]
    value, pull = jax.vjp(attend, *low)
    with jax.enable_x64(True):
        expected, pull_expected = jax.vjp(plain, *map(jnp.asarray, inputs))
        gradients = jax.device_get(pull_expected(jnp.asarray(dy)))
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-6)
    for found, right in zip(pull(jnp.asarray(dy, jnp.float32)), gradients, strict=True):
        assert found.shape == right.shape
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=5e-6)


def test_large_logits_do_not_overflow():
    q, k, v, mask, _ = (jnp.asarray(a, jnp.float32) for a in arrays((H, S, T)))
    value, pull = jax.vjp(attend, 300 * q, 300 * k, v, mask)
    np.testing.assert_allclose(value, plain(300 * q, 300 * k, v, mask), rtol=1e-4, atol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in pull(value))


def test_bfloat16_is_near_float32():
    q, k, v, mask, dy = (jnp.asarray(a, jnp.float32) for a in arrays((H, S, T)))
    low = [a.astype(jnp.bfloat16) for a in (q, k, v)]
    value, pull = jax.jit(lambda *a: jax.vjp(attend, *a))(*low, mask)
    exact, exact_pull = jax.vjp(attend, *(a.astype(jnp.float32) for a in low), mask)
    assert value.dtype == jnp.bfloat16
    np.testing.assert_allclose(value.astype(np.float32), exact, atol=0.02)
    for found, right in zip(pull(dy.astype(jnp.bfloat16)), exact_pull(dy), strict=True):
        np.testing.assert_allclose(found.astype(np.float32), right, atol=0.06)


def test_a_query_of_a_cache_sees_all_keys():
    q, k, v, mask, _ = (jnp.asarray(a, jnp.float32) for a in arrays((B, 1, 1, T), queries=1))
    np.testing.assert_allclose(attend(q, k, v, mask), plain(q, k, v, mask), rtol=2e-5, atol=2e-6)
