"""Sums over the tokens of a batch whose rows are spread over a mesh.

The loss works through tokens in chunks. Left to the compiler over a mesh, every chunk's gradient
of the embedding would be summed over all devices; here each device sums its own tokens' first.
"""

from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec

from moe_jax.sharding.mesh import BATCH_AXES
from moe_jax.sharding.partition import Partition

# From (embedding, rows, mesh axis that the vocabulary is cut along or None) to sums over tokens.
# Rows come as arrays [T, ...].
Sums = Callable[[jax.Array, tuple[jax.Array, ...], str | None], tuple[jax.Array, ...]]


def sum_over_data_shards(
    partition: Partition | None,
    function: Sums,
    embedding_VD: jax.Array,
    rows: tuple[jax.Array, ...],
) -> tuple[jax.Array, ...]:
    """Returns `function` of all tokens, on every device.

    Args:
        partition: the mesh; None for a single device.
        function: sums over the tokens it is given.
        embedding_VD: as parameters are stored.
        rows: arrays [B, S, ...].
    """

    def of_device(embedding_VD: jax.Array, rows: tuple, axis: str | None) -> tuple:
        flat = tuple(a.reshape(-1, *a.shape[2:]) for a in rows)
        return function(embedding_VD, flat, axis)

    if partition is None:
        return of_device(embedding_VD, rows, None)
    spec = partition.computed(("vocab", "embed"))
    axis = spec[0] if spec[0] and partition.size(spec[0]) > 1 else None

    def on_device(embedding_VD: jax.Array, rows: tuple) -> tuple:
        return jax.lax.psum(of_device(embedding_VD, rows, axis), BATCH_AXES)

    return jax.shard_map(
        on_device,
        mesh=partition.mesh,
        in_specs=(PartitionSpec(spec[0]), PartitionSpec(BATCH_AXES)),
        out_specs=PartitionSpec(),
        check_vma=False,
    )(embedding_VD, rows)
