"""Position encodings: T5's relative bias (as in the paper) and rotary embeddings."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from moe_jax.models.config import ModelConfig
from moe_jax.models.parameters import kernel
from moe_jax.types import BiasHQS, KeysBSHK, TokensBS

# Number of queries, the last of a row, and number of keys.
_Shape = tuple[int, int]
# Added to masked attention logits; finite, so that a fully masked row does not become NaN.
MASKED = -1e30


def distance_buckets(buckets: int, max_distance: int) -> np.ndarray:
    """Returns the bucket of each distance 0 .. max_distance to an earlier position.

    The first half of the buckets are exact distances; the others grow logarithmically up to
    `max_distance`. All larger distances are in the last bucket.
    Source: Raffel et al. 2020, section 2.1 (the unidirectional case).
    """
    exact = buckets // 2
    distance = np.arange(max_distance + 1)
    ratio = np.log(np.maximum(distance, 1) / exact) / math.log(max_distance / exact)
    large = exact + (ratio * (buckets - exact)).astype(np.int64)
    return np.where(distance < exact, distance, np.minimum(large, buckets - 1))


class RelativeBias(nnx.Module):
    """A learned bias per head and distance bucket, added to attention logits."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.buckets, self.max_distance = config.relative_buckets, config.relative_max_distance
        is_exact = config.compute_dtype == "float32"
        self.precision = jax.lax.Precision.HIGHEST if is_exact else jax.lax.Precision.DEFAULT
        shape = (self.buckets, config.num_heads)
        self.table = kernel(rngs, shape, ("position", "position"), fan_in=config.num_heads)

    def at(self, distance: jax.Array) -> jax.Array:
        """Returns the bias [..., heads] for distances to earlier positions, of any shape.

        Negative distances, to later positions, have the bias of the distance 0.
        """
        lookup = jnp.asarray(distance_buckets(self.buckets, self.max_distance), jnp.int32)
        return self.table[...][lookup[jnp.clip(distance, 0, self.max_distance)]]

    def causal(self, table: jax.Array, queries: int, length: int) -> BiasHQS:
        """Returns the causally masked bias of the last queries of a row, [heads, query, key].

        Element (q, k) depends only on q - k: for n queries that start at position s, the bias of
        the keys 0 .. s + n - 1 is the last s + n columns.

        On CPU and GPU the matrix is made from one vector over distances by reshaping: its gradient
        is a sum, while that of a gather would be a scatter. On TPU such a reshape moves all data:
        see `pick_buckets`.

        Args:
            table: the table of this module, [buckets, heads], or the columns of some heads.
            queries: number of queries.
            length: length of the row, the number of keys.
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
    """Returns the first distance of every bucket; a bucket is a range of distances."""
    return tuple(np.searchsorted(lookup, np.arange(lookup[-1] + 1)).tolist())


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def pick_buckets(
    table: jax.Array, starts: tuple[int, ...], shape: _Shape, precision: jax.lax.Precision
) -> BiasHQS:
    """Returns the bias of the last queries of a row, [heads, query, key], by a one-hot product.

    The table is split into a sum of three terms that bfloat16 represents exactly, so that one pass
    of a matrix unit with float32 accumulation is exact.

    Args:
        table: the bias of each bucket, [buckets, heads].
        starts: the first distance of every bucket.
        shape: number of queries and of keys.
        precision: precision of the gradient, which is a sum over all elements.
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
    """Returns the distances of the last queries of a row from its keys, [query, key]."""
    query, key = (jax.lax.broadcasted_iota(jnp.int32, shape, i) for i in (0, 1))
    return query - key + (shape[1] - shape[0])


def _one_hot(starts: tuple[int, ...], shape: _Shape) -> jax.Array:
    """Returns the one-hot bucket of every element, [query, key, bucket]."""
    distance = jnp.maximum(_distance(shape), 0)[..., None]
    first, last = np.array(starts), np.array([*starts[1:], np.iinfo(np.int32).max])
    is_in = (distance >= first.astype(np.int32)) & (distance < last.astype(np.int32))
    return is_in.astype(jnp.float32)


def _skew(by_distance_HS: jax.Array, queries: int) -> BiasHQS:
    """Expands values by distance [heads, S] to [heads, query, key], masked where key > query.

    The queries are the last of the row.
    """
    heads, length = by_distance_HS.shape
    first = length - queries
    future = jnp.full((heads, queries), MASKED, by_distance_HS.dtype)
    # One period of a ring: the values of the first query for its keys, the mask of later keys, and
    # the values of larger distances, which later queries need.
    near, far = by_distance_HS[:, : first + 1], by_distance_HS[:, first + 1 :]
    ring = jnp.concatenate([jnp.flip(near, 1), future, jnp.flip(far, 1)], axis=1)
    rows = jnp.broadcast_to(ring[:, None, :], (heads, queries, length + queries))
    rows = rows.reshape(heads, -1)[:, : queries * (length + queries - 1)]
    return rows.reshape(heads, queries, length + queries - 1)[:, :, :length]


def causal_mask(queries: int, length: int) -> BiasHQS:
    """Returns the causal mask of the last queries of a row, 0 or `MASKED`, [1, Q, key]."""
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
