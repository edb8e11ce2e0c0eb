"""Causal self-attention, over whole rows or with a key-value cache."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from moe_jax.models import softmax_attention
from moe_jax.models.attention_choice import choose_attention
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.config import ModelConfig
from moe_jax.models.key_value_cache import KeyValueCache, attend_with_cache
from moe_jax.models.parameters import kernel
from moe_jax.models.position_embeddings import MASKED, RelativeBias, causal_mask, rotate
from moe_jax.sharding.partition import SINGLE_DEVICE, Partition
from moe_jax.sharding.rules import BATCH_AXES
from moe_jax.types import ActivationsBSD, BiasHQS, KeysBSHK

# With n blocks of queries, causal attention computes (n + 1) / 2n of all query-key pairs.
BLOCKS, SHORTEST_BLOCK = 4, 256


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
        """Returns the output and, if a cache was given, the keys and values of these positions.

        The cache holds the positions before the first of `batch.positions_BS`. An empty one, of
        length 0, is for the start of a row: the result is that of whole rows without a cache.
        """
        q, k, v = (self._project(x_BSD, w) for w in (self.query, self.key, self.value))
        if self.bias is None:
            q, k = rotate(q, batch.positions_BS), rotate(k, batch.positions_BS)
        q, k, v = (checkpoint_name(a, "qkv") for a in (q, k, v))
        new = None if cache is None else KeyValueCache.of_positions(k, v)
        if cache is None or cache.length == 0:
            context = self._attend(q, k, v, batch)
        else:
            assert new is not None
            context = attend_with_cache(q, new, cache, self._cache_masks(batch, cache.length))
        context = context.reshape(*x_BSD.shape[:2], -1)
        return context @ self.output[...].astype(x_BSD.dtype), new

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
        choice = choose_attention(self.config, self.partition.platform, q.shape[1])
        attend_rows = self._by_blocks
        if choice.is_kernel:
            attend_rows = functools.partial(self._by_kernel, interpret=choice.interpret)
        attend = self.partition.shard_map(attend_rows, in_specs, by_head)
        attended: KeysBSHK = attend((q, k, v), batch, table)
        return attended

    def _by_kernel(
        self,
        qkv: tuple[KeysBSHK, KeysBSHK, KeysBSHK],
        batch: BatchContext,
        table: jax.Array | None,
        interpret: bool,
    ) -> KeysBSHK:
        """Computes attention in tiles, in one kernel."""
        # Importing Pallas takes a second, which only those who use it should wait for.
        from moe_jax.models.attention_tiles import SQUARE, Bias
        from moe_jax.models.flash_attention import flash_attention

        bias = None
        if self.bias is not None and table is not None:
            bias = Bias.of_row(self.bias.causal(table, 2 * SQUARE, 2 * SQUARE), table)
        return flash_attention(qkv, bias, batch.segments_BS, batch.prefix_BS, interpret=interpret)

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

    def _cache_masks(self, batch: BatchContext, length: int) -> tuple[jax.Array, jax.Array]:
        """Returns mask plus bias of the logits over a cache and over the new positions.

        The shapes are [B, heads or 1, query, T] and [B, heads or 1, query, query].
        """
        positions_BQ = batch.positions_BS
        cached_T = jnp.arange(length)
        is_filled_BT = cached_T < positions_BQ[:, :1]
        distances = (
            positions_BQ[:, :, None] - cached_T,
            positions_BQ[:, :, None] - positions_BQ[:, None, :],
        )
        seen = (is_filled_BT[:, None, :], distances[1] >= 0)
        masks = []
        for distance_BQS, seen_BQS in zip(distances, seen, strict=True):
            mask = jnp.where(seen_BQS, 0.0, MASKED)[:, None]
            if self.bias is not None:
                mask = mask + jnp.moveaxis(self.bias.at(distance_BQS), -1, 1)
            masks.append(mask)
        return masks[0], masks[1]


def block_length(length: int) -> int:
    """Returns the number of queries per attention block: a quarter of the row, but at least 256.

    If this does not divide the row, the block is the whole row.
    """
    block = max(length // BLOCKS, SHORTEST_BLOCK)
    return block if length % block == 0 else length
