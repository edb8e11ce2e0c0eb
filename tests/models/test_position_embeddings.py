"""The bias of positions as a TPU computes it, against the one of other platforms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from tiers import mostly_slow

from moe_jax.models.position_embeddings import (
    MASKED,
    RelativeBias,
    bucket_starts,
    distance_buckets,
    pick_buckets,
)

BUCKETS, LARGEST, HEADS = 8, 16, 3
LOOKUP = distance_buckets(BUCKETS, LARGEST)
STARTS = bucket_starts(LOOKUP)
HIGHEST = jax.lax.Precision.HIGHEST


def make_table(seed=0):
    """Numbers with all 24 bits of float32, of very different sizes."""
    random = np.random.default_rng(seed)
    size = 2.0 ** random.integers(-20, 20, size=(BUCKETS, HEADS))
    return (random.normal(size=(BUCKETS, HEADS)) * size).astype(np.float32)


def expected(table, shape):
    queries, length = shape
    bias = np.full((HEADS, *shape), MASKED, np.float32)
    for query in range(queries):
        position = length - queries + query
        for key in range(position + 1):
            bias[:, query, key] = table[LOOKUP[min(position - key, LARGEST)]]
    return bias


def pick(table, shape):
    return pick_buckets(table, STARTS, shape, HIGHEST)


SHAPES = [(1, 1), (7, 7), (LARGEST, LARGEST), (LARGEST + 1,) * 2, (48, 48), (1, 30), (7, 30)]


def test_starts_of_the_buckets():
    assert STARTS[: BUCKETS // 2] == (0, 1, 2, 3)
    assert all(LOOKUP[first] == bucket for bucket, first in enumerate(STARTS))
    assert all(LOOKUP[first - 1] == bucket for bucket, first in enumerate(STARTS[1:]))


@pytest.mark.parametrize("shape", mostly_slow([*SHAPES, (2, 2), (LARGEST + 2,) * 2], 3))
def test_a_product_of_0_and_1_picks_every_bit(shape):
    table = make_table()
    np.testing.assert_array_equal(pick(table, shape), expected(table, shape))
    np.testing.assert_array_equal(jax.jit(pick, static_argnums=1)(table, shape), pick(table, shape))


@pytest.mark.parametrize("shape", mostly_slow(SHAPES, 2))
def test_it_is_the_skewed_bias_and_its_gradient(shape):
    config = tiny.config(relative_buckets=BUCKETS, relative_max_distance=LARGEST)
    bias = RelativeBias(config, nnx.Rngs(params=jax.random.key(0)))
    table = make_table(1)
    # On a CPU the causal bias is the skewed one.
    by_skew, backward = jax.vjp(lambda table: bias.causal(table, *shape), jnp.asarray(table))
    picked, backward_of_pick = jax.vjp(lambda table: pick(table, shape), jnp.asarray(table))
    np.testing.assert_array_equal(picked, by_skew)
    weights = np.random.default_rng(2).normal(size=picked.shape).astype(np.float32)
    (gradient,), (other) = backward_of_pick(jnp.asarray(weights)), backward(jnp.asarray(weights))
    # By hand, in float64: the sum over all places of a bucket.
    exact = np.zeros((BUCKETS, HEADS))
    queries, length = shape
    for query in range(queries):
        position = length - queries + query
        for key in range(position + 1):
            exact[LOOKUP[min(position - key, LARGEST)]] += weights[:, query, key]
    scale = np.abs(weights).sum()
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(other[0], exact, rtol=0, atol=1e-6 * scale)


def test_in_bfloat16_parts_it_still_is_exact():
    """What the matrix unit of a TPU multiplies by default: bfloat16, added up in float32."""
    table, length = make_table(3), 2 * LARGEST
    text = str(jax.make_jaxpr(lambda table: pick(table, (length, length)))(table))
    assert text.count("reduce_precision[exponent_bits=8 mantissa_bits=7]") == 3
    rest, total = table.copy(), np.zeros_like(table)
    for _ in range(3):
        part = np.asarray(jnp.asarray(rest).astype(jnp.bfloat16).astype(jnp.float32))
        rest, total = rest - part, total + part
    np.testing.assert_array_equal(total, table)
    np.testing.assert_array_equal(rest, 0)
