"""Causal self-attention, over whole rows or with a key-value cache."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from moe_jax.models import softmax_attention
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.config import ModelConfig
from moe_jax.models.parameters import kernel
from moe_jax.models.position_embeddings import MASKED, RelativeBias, causal_mask, rotate
from moe_jax.sharding.partition import SINGLE_DEVICE, Partition
from moe_jax.sharding.rules import BATCH_AXES
from moe_jax.types import ActivationsBSD, BiasHQS, KeysBSHK, QueriesBQHK

# With n blocks of queries, causal attention computes (n + 1) / 2n of all query-key pairs.
BLOCKS, SHORTEST_BLOCK = 4, 256


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyValueCache:
    """Keys and values of the previous positions, [B, T, heads, head_dim]."""

    key: jax.Array
    value: jax.Array


class Attention(nnx.Module):
    """Multi-head attention without biases; logits and softmax in float32."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, partition: Partition = SINGLE_DEVICE):
        width, inner = config.d_model, config.num_heads * config.head_dim
        self.query = kernel(rngs, (width, inner), ("embed", "heads"), width)
        self.key = kernel(rngs, (width, inner), ("embed", "heads"), width)
        self.value = kernel(rngs, (width, inner), ("embed", "heads"), width)
        self.output = kernel(rngs, (inner, width), ("heads", "embed"), inner)
        self.bias = RelativeBias(config, rngs) if config.position == "relative" else None
        self.config = config
        self.partition = partition

    def __call__(
        self, x_BSD: ActivationsBSD, batch: BatchContext, cache: KeyValueCache | None = None
    ) -> tuple[ActivationsBSD, KeyValueCache | None]:
        """Returns the output and, if a cache was given, the cache updated with these positions."""
        q, k, v = (self._project(x_BSD, w) for w in (self.query, self.key, self.value))
        if self.bias is None:
            q, k = rotate(q, batch.positions_BS), rotate(k, batch.positions_BS)
        q, k, v = (checkpoint_name(a, "qkv") for a in (q, k, v))
        if cache is None:
            context = self._attend(q, k, v, batch)
        else:
            k = _write(cache.key, k, batch.positions_BS[:, 0])
            v = _write(cache.value, v, batch.positions_BS[:, 0])
            cache = KeyValueCache(k, v)
            context = softmax_attention.attend(q, k, v, self._cache_mask(batch, k.shape[1]))
        context = context.reshape(*x_BSD.shape[:2], -1)
        return context @ self.output[...].astype(x_BSD.dtype), cache

    def _project(self, x_BSD: ActivationsBSD, weight: nnx.Param[jax.Array]) -> KeysBSHK:
        projected = x_BSD @ weight[...].astype(x_BSD.dtype)
        return projected.reshape(*x_BSD.shape[:2], self.config.num_heads, self.config.head_dim)

    def _attend(self, q: KeysBSHK, k: KeysBSHK, v: KeysBSHK, batch: BatchContext) -> KeysBSHK:
        """Attends within whole rows; on a mesh, each device processes its rows and heads.

        Partitioned by the compiler instead, the gradient of the bias would be summed over devices
        as [heads, query, key], although the gradient of the table is enough.
        """
        table = None if self.bias is None else self.bias.table[...]
        heads = self.partition.computed(("heads",))[0]
        by_head = PartitionSpec(BATCH_AXES, None, heads)
        in_specs = (by_head, PartitionSpec(BATCH_AXES), PartitionSpec(None, heads))
        attend = self.partition.shard_map(self._by_blocks, in_specs, by_head)
        attended: KeysBSHK = attend((q, k, v), batch, table)
        return attended

    def _by_blocks(
        self,
        qkv: tuple[KeysBSHK, KeysBSHK, KeysBSHK],
        batch: BatchContext,
        table: jax.Array | None,
    ) -> KeysBSHK:
        """Computes attention by blocks of queries, each over the keys up to the end of the block.

        Blocks of keys that the causal mask hides completely are not computed.
        """
        q, k, v = qkv
        length = q.shape[1]
        block = block_length(length) if batch.prefix_BS is None else length
        mask = self._last_mask(block, length, table)
        attended = []
        for start in range(0, length, block):
            end = start + block
            bias = self._of_rows(mask[..., length - end :], batch, table, slice(start, end))
            attended.append(softmax_attention.attend(q[:, start:end], k[:, :end], v[:, :end], bias))
        return jnp.concatenate(attended, axis=1)

    def _last_mask(self, queries: int, length: int, table: jax.Array | None) -> BiasHQS:
        """Returns the causal mask plus bias of the last queries of a row, [heads or 1, Q, key]."""
        if self.bias is None or table is None:
            return causal_mask(queries, length)
        return self.bias.causal(table, queries, length)

    def _of_rows(
        self, mask: jax.Array, batch: BatchContext, table: jax.Array | None, queries: slice
    ) -> jax.Array:
        """Unmasks the prefix in both directions and masks other documents."""
        if batch.prefix_BS is not None:
            prefix = batch.prefix_BS > 0
            both = prefix[:, None, queries, None] & prefix[:, None, None, : queries.stop]
            # As in T5's decoder, later positions have the bias of the distance 0.
            ahead = 0.0 if table is None else table[0][:, None, None]
            mask = jnp.where(both & (mask <= MASKED), ahead, mask)
        if batch.segments_BS is None:
            return mask
        segments = batch.segments_BS[:, : queries.stop]
        same = segments[:, queries, None] == segments[:, None]
        return jnp.where(same[:, None], mask, MASKED)

    def _cache_mask(self, batch: BatchContext, length: int) -> jax.Array:
        """Returns the mask plus bias of the logits over a cache, [B, heads or 1, query, key]."""
        distance_BQS = batch.positions_BS[:, :, None] - jnp.arange(length)
        seen_BQS = distance_BQS >= 0
        if batch.prefix_BS is not None:
            prefix_BQ = batch.prefix_BS > 0
            prefix_BS = jnp.pad(prefix_BQ, ((0, 0), (0, length - prefix_BQ.shape[1])))
            seen_BQS |= prefix_BQ[:, :, None] & prefix_BS[:, None, :]
        mask = jnp.where(seen_BQS, 0.0, MASKED)[:, None]
        if self.bias is None:
            return mask
        return mask + jnp.moveaxis(self.bias.at(distance_BQS), -1, 1)


def block_length(length: int) -> int:
    """Returns the number of queries per attention block: a quarter of the row, but at least 256.

    If this does not divide the row, the block is the whole row.
    """
    block = max(length // BLOCKS, SHORTEST_BLOCK)
    return block if length % block == 0 else length


def _write(cache_BSHK: KeysBSHK, new_BQHK: QueriesBQHK, start_B: jax.Array) -> KeysBSHK:
    """Writes `new` into each row of the cache at the start position of the row."""
    write = jax.vmap(lambda row, new, at: jax.lax.dynamic_update_slice_in_dim(row, new, at, 0))
    return write(cache_BSHK, new_BQHK.astype(cache_BSHK.dtype), start_B)
