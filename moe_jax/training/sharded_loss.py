"""Sum a loss over the tokens of a batch that is sharded over a mesh.

The loss processes tokens in chunks. If the compiler partitioned it, the gradient of the embedding
would be summed over all devices once per chunk; here every device first sums over its own tokens.
"""

from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec

from moe_jax.sharding.partition import Partition
from moe_jax.sharding.rules import BATCH_AXES

# From (embedding, arrays per token [T, ...], mesh axis of the vocabulary or None) to sums over
# tokens.
TokenSums = Callable[[jax.Array, tuple[jax.Array, ...], str | None], tuple[jax.Array, ...]]


def sum_over_data_shards(
    partition: Partition,
    function: TokenSums,
    embedding_VD: jax.Array,
    batch: tuple[jax.Array, ...],
) -> tuple[jax.Array, ...]:
    """Returns the sums of `function` over all tokens of the batch, on every device.

    Args:
        partition: the mesh, or a single device.
        function: computes sums over the tokens that it is given.
        embedding_VD: the embedding, as stored.
        batch: arrays [B, S, ...].
    """
    spec = partition.computed(("vocab", "embed"))
    axis = spec[0] if spec[0] and partition.size(spec[0]) > 1 else None

    def on_device(embedding_VD: jax.Array, batch: tuple) -> tuple:
        tokens = tuple(a.reshape(-1, *a.shape[2:]) for a in batch)
        return partition.sum_over_batch(function(embedding_VD, tokens, axis))

    in_specs = (PartitionSpec(spec[0]), PartitionSpec(BATCH_AXES))
    sums: tuple[jax.Array, ...]
    sums = partition.shard_map(on_device, in_specs, PartitionSpec())(embedding_VD, batch)
    return sums
