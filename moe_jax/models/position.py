"""Positions: T5's relative bias (the paper's choice) and rotary embeddings."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from moe_jax.models.config import ModelConfig
from moe_jax.models.parameters import kernel

# Added to attention logits that must not count; finite, so that no row becomes NaN.
MASKED = -1e30


def distance_buckets(buckets: int, max_distance: int) -> np.ndarray:
    """Returns the bucket of each distance 0 .. max_distance to an earlier position.

    The first half of the buckets are exact distances; the rest grow logarithmically up to
    `max_distance`, from where on all distances share the last bucket.
    Source: Raffel et al. 2020, section 2.1 (the unidirectional case).
    """
    exact = buckets // 2
    distance = np.arange(max_distance + 1)
    ratio = np.log(np.maximum(distance, 1) / exact) / math.log(max_distance / exact)
    large = exact + (ratio * (buckets - exact)).astype(np.int64)
    return np.where(distance < exact, distance, np.minimum(large, buckets - 1))


class RelativeBias(nnx.Module):
    """A learned bias per head and bucket of distance, added to attention logits."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.buckets, self.max_distance = config.relative_buckets, config.relative_max_distance
        shape = (self.buckets, config.num_heads)
        self.table = kernel(rngs, shape, ("position", "position"), fan_in=config.num_heads)

    def at(self, distance: jax.Array) -> jax.Array:
        """Returns the bias [..., heads] at distances to earlier positions, any shape.

        Later positions, at distances below 0, have the bias of the distance 0.
        """
        lookup = jnp.asarray(distance_buckets(self.buckets, self.max_distance), jnp.int32)
        return self.table[...][lookup[jnp.clip(distance, 0, self.max_distance)]]

    def causal(self, table: jax.Array, length: int) -> jax.Array:
        """Returns the bias of a whole row, [heads, query, key], with the future masked.

        The table [buckets, heads] is this module's, or the columns of some of its heads.

        Element (q, k) depends on q - k only, so one vector over distances is skewed into the
        matrix by reshaping: its gradient is a sum, where a gather's would be a scatter.
        """
        lookup = distance_buckets(self.buckets, self.max_distance)
        lookup = lookup[np.minimum(np.arange(length), self.max_distance)]
        one_hot = jnp.asarray(np.eye(self.buckets, dtype=np.float32)[lookup])
        bias_SH = jnp.dot(one_hot, table, precision=jax.lax.Precision.HIGHEST)
        return _skew(bias_SH.T)


def _skew(by_distance_HS: jax.Array) -> jax.Array:
    """Turns values by distance [heads, S] into [heads, query, key], masked where key > query."""
    heads, length = by_distance_HS.shape
    future = jnp.full((heads, length), MASKED, by_distance_HS.dtype)
    # Entry -d (modulo 2 S) of the ring is the value at distance d.
    ring = jnp.concatenate(
        [by_distance_HS[:, :1], future, jnp.flip(by_distance_HS[:, 1:], axis=1)], axis=1
    )
    rows = jnp.broadcast_to(ring[:, None, :], (heads, length, 2 * length))
    rows = rows.reshape(heads, -1)[:, : length * (2 * length - 1)]
    return rows.reshape(heads, length, 2 * length - 1)[:, :, :length]


def causal_mask(length: int) -> jax.Array:
    """Returns 0 where a query may look and `MASKED` in its future, [1, query, key]."""
    past = np.tril(np.ones((length, length), bool))
    return jnp.asarray(np.where(past, 0.0, MASKED).astype(np.float32))[None]


def rotate(x_BSHK: jax.Array, positions_BS: jax.Array, base: float = 10000.0) -> jax.Array:
    """Rotates pairs (i, i + K/2) of each head by position * base^(-2i/K) (Su et al. 2021)."""
    half = x_BSHK.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_BS1F = positions_BS.astype(jnp.float32)[..., None, None] * frequency
    cos, sin = jnp.cos(angle_BS1F), jnp.sin(angle_BS1F)
    first, second = jnp.split(x_BSHK.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BSHK.dtype)
