"""Check on the devices whether all values of arrays are finite, with one small all-reduce."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from moe_jax.sharding.partition import SINGLE_DEVICE, Partition


def all_finite(
    trees: Sequence[Any], partition: Partition = SINGLE_DEVICE, shardings: Sequence[Any] = ()
) -> jax.Array:
    """Checks for each tree that all its floating-point values are finite.

    Every device checks its local shards, and all devices get the same result, even if only one
    of several replicas of an array has a non-finite value.

    Args:
        trees: trees of arrays.
        partition: the mesh, or a single device.
        shardings: for each tree, the shardings of its arrays over the mesh; none on one device.

    Returns:
        bool [trees].
    """
    if not partition.is_sharded:
        return ~jnp.stack([_has_non_finite(tree) for tree in trees])

    def on_device(*trees: Any) -> jax.Array:
        bad = jnp.stack([_has_non_finite(tree) for tree in trees]).astype(jnp.int32)
        return partition.sum_over_devices(bad) == 0

    specs = jax.tree.map(lambda sharding: sharding.spec, tuple(shardings))
    found: jax.Array = partition.shard_map(on_device, specs, PartitionSpec())(*trees)
    return found


def _has_non_finite(tree: Any) -> jax.Array:
    """Returns True if any value is not finite, bool scalar.

    The optimiser state of a parameter is checked together with the parameter, elementwise: the
    compiler then computes and reduces all of them in one loop.
    """
    by_parameter: dict[tuple, list[jax.Array]] = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            names = [part.key for part in path if isinstance(part, jax.tree_util.DictKey)]
            by_parameter.setdefault((*names[-1:], leaf.shape), []).append(leaf)
    bad = jnp.zeros((), jnp.bool_)
    for leaves in by_parameter.values():
        finite = functools.reduce(jnp.logical_and, map(jnp.isfinite, leaves))
        bad |= ~jnp.all(finite)
    return bad
