"""Whether arrays are finite, decided on the devices: one small sum over all of them."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from moe_jax.sharding.partition import Partition


def all_finite(
    trees: Sequence[Any], partition: Partition | None = None, shardings: Sequence[Any] = ()
) -> jax.Array:
    """Returns for each tree whether all its floating-point values are finite, bool [trees].

    Every device looks at what it holds and all get the same answer, also where one of several
    copies of an array went wrong.

    Args:
        trees: of arrays.
        partition: the mesh; None for a single device.
        shardings: of the trees' arrays over the mesh.
    """
    if partition is None:
        return ~jnp.stack([_is_bad(tree) for tree in trees])

    def on_device(*trees: Any) -> jax.Array:
        bad = jnp.stack([_is_bad(tree) for tree in trees]).astype(jnp.int32)
        return jax.lax.psum(bad, partition.mesh.axis_names) == 0

    specs = jax.tree.map(lambda sharding: sharding.spec, tuple(shardings))
    return jax.shard_map(
        on_device, mesh=partition.mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
    )(*trees)


def _is_bad(tree: Any) -> jax.Array:
    """Returns whether any value is not finite, bool scalar.

    What the optimiser keeps of a parameter is looked at together with the parameter, element by
    element: the compiler then computes and reduces all of it in one loop.
    """
    together: dict[tuple, list[jax.Array]] = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            names = [part.key for part in path if isinstance(part, jax.tree_util.DictKey)]
            together.setdefault((*names[-1:], leaf.shape), []).append(leaf)
    bad = jnp.zeros((), jnp.bool_)
    for leaves in together.values():
        finite = functools.reduce(jnp.logical_and, map(jnp.isfinite, leaves))
        bad |= ~jnp.all(finite)
    return bad
