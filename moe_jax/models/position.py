"""Positions: T5's relative bias (the paper's choice) and rotary embeddings."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from moe_jax.models.config import ModelConfig
from moe_jax.models.parameters import kernel
from moe_jax.types import BiasHQS, KeysBSHK, TokensBS

# Number of the last queries of a row, and of its keys.
_Shape = tuple[int, int]
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
        is_exact = config.compute_dtype == "float32"
        self.precision = jax.lax.Precision.HIGHEST if is_exact else jax.lax.Precision.DEFAULT
        shape = (self.buckets, config.num_heads)
        self.table = kernel(rngs, shape, ("position", "position"), fan_in=config.num_heads)

    def at(self, distance: jax.Array) -> jax.Array:
        """Returns the bias [..., H] at distances to earlier positions, any shape.

        Later positions, at distances below 0, have the bias of the distance 0.
        """
        lookup = jnp.asarray(distance_buckets(self.buckets, self.max_distance), jnp.int32)
        return self.table[...][lookup[jnp.clip(distance, 0, self.max_distance)]]

    def causal(self, table: jax.Array, queries: int, length: int) -> BiasHQS:
        """Returns the bias of a row's last queries, [H, Q, S], with the future masked.

        Element (q, k) depends on q - k only: of n queries from position s on, the bias to the
        s + n keys up to theirs is the last s + n columns.

        On CPU and GPU one vector over distances is skewed into the matrix by reshaping: its
        gradient is a sum, where a gather's would be a scatter. On a TPU such a reshape moves
        everything: see `pick_buckets`.

        Args:
            table: this module's [buckets, H], or the columns of some of its heads.
            queries: how many.
            length: of the row, the number of keys.
        """
        lookup = distance_buckets(self.buckets, self.max_distance)
        starts, shape = bucket_starts(lookup), (queries, length)
        return jax.lax.platform_dependent(
            table,
            tpu=lambda table: pick_buckets(table, starts, shape, self.precision),
            default=lambda table: self._by_skew(table, shape),
        )

    def _by_skew(self, table: jax.Array, shape: tuple[int, int]) -> jax.Array:
        lookup = distance_buckets(self.buckets, self.max_distance)
        lookup = lookup[np.minimum(np.arange(shape[1]), self.max_distance)]
        one_hot = jnp.asarray(np.eye(self.buckets, dtype=np.float32)[lookup])
        bias_SH = jnp.dot(one_hot, table, precision=jax.lax.Precision.HIGHEST)
        return _skew(bias_SH.T, shape[0])


def bucket_starts(lookup: np.ndarray) -> tuple[int, ...]:
    """Returns the first distance of every bucket; buckets are ranges of distances."""
    return tuple(np.searchsorted(lookup, np.arange(lookup[-1] + 1)).tolist())


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def pick_buckets(
    table: jax.Array, starts: tuple[int, ...], shape: _Shape, precision: jax.lax.Precision
) -> BiasHQS:
    """Returns the bias of a row's last queries, [H, Q, S], by a product of 0 and 1.

    The table is cut into three parts that bfloat16 holds exactly and that add up to it, so that
    one pass of a matrix unit that adds in float32 is exact.

    Args:
        table: [buckets, H].
        starts: the first distance of every bucket.
        shape: number of queries and of keys.
        precision: of the gradient, which sums over all elements.
    """
    parts, rest = [], table
    for _ in range(3):
        parts.append(jax.lax.reduce_precision(rest, exponent_bits=8, mantissa_bits=7))
        rest = rest - parts[-1]
    one_hot = jnp.tile(_one_hot(starts, shape), 3)
    bias = jnp.einsum(
        "qsb,bh->hqs", one_hot, jnp.concatenate(parts), precision=jax.lax.Precision.DEFAULT
    )
    return jnp.where(_distance(shape) < 0, MASKED, bias)


def _pick_forward(
    table: jax.Array, starts: tuple[int, ...], shape: _Shape, precision: jax.lax.Precision
) -> tuple[jax.Array, None]:
    return pick_buckets(table, starts, shape, precision), None


def _pick_backward(
    starts: tuple[int, ...],
    shape: _Shape,
    precision: jax.lax.Precision,
    kept: None,
    d_bias_HQS: BiasHQS,
) -> tuple[jax.Array]:
    d_bias_HQS = jnp.where(_distance(shape) < 0, 0.0, d_bias_HQS)
    d_table = jnp.einsum("qsb,hqs->bh", _one_hot(starts, shape), d_bias_HQS, precision=precision)
    return (d_table,)


pick_buckets.defvjp(_pick_forward, _pick_backward)


def _distance(shape: _Shape) -> jax.Array:
    """Returns how far the last queries of a row are from its keys, [Q, S]."""
    query, key = (jax.lax.broadcasted_iota(jnp.int32, shape, i) for i in (0, 1))
    return query - key + (shape[1] - shape[0])


def _one_hot(starts: tuple[int, ...], shape: _Shape) -> jax.Array:
    """Returns the bucket of every element as 0 and 1, [Q, S, buckets]."""
    distance = jnp.maximum(_distance(shape), 0)[..., None]
    first, last = np.array(starts), np.array([*starts[1:], np.iinfo(np.int32).max])
    is_in = (distance >= first.astype(np.int32)) & (distance < last.astype(np.int32))
    return is_in.astype(jnp.float32)


def _skew(by_distance_HS: jax.Array, queries: int) -> BiasHQS:
    """Turns values by distance [H, S] into [H, Q, S], masked where key > query.

    The queries are the last of the row.
    """
    heads, length = by_distance_HS.shape
    first = length - queries
    future = jnp.full((heads, queries), MASKED, by_distance_HS.dtype)
    # From the first of these queries to its keys, and on; then, around the ring, of the last one.
    near, far = by_distance_HS[:, : first + 1], by_distance_HS[:, first + 1 :]
    ring = jnp.concatenate([jnp.flip(near, 1), future, jnp.flip(far, 1)], axis=1)
    rows = jnp.broadcast_to(ring[:, None, :], (heads, queries, length + queries))
    rows = rows.reshape(heads, -1)[:, : queries * (length + queries - 1)]
    return rows.reshape(heads, queries, length + queries - 1)[:, :, :length]


def causal_mask(queries: int, length: int) -> BiasHQS:
    """Returns 0 where a row's last queries may look and `MASKED` in their future, [1, Q, S]."""
    past = np.tril(np.ones((queries, length), bool), length - queries)
    return jnp.asarray(np.where(past, 0.0, MASKED).astype(np.float32))[None]


def rotate(x_BSHK: KeysBSHK, positions_BS: TokensBS, base: float = 10000.0) -> KeysBSHK:
    """Rotates pairs (i, i + K/2) of each head by position * base^(-2i/K) (Su et al. 2021)."""
    half = x_BSHK.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions_BS.astype(jnp.float32)[..., None, None] * frequency  # [B, S, 1, K / 2]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = jnp.split(x_BSHK.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BSHK.dtype)
