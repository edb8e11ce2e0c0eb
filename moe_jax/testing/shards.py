"""Execution of a function on the shards of a batch, on several devices or on one."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

NUM_SHARDS = 4


def over_shards(
    function: Callable[..., tuple[Any, Any]], arguments: tuple, axes: tuple
) -> tuple[Any, Any]:
    """Runs a function on four shards: on four devices or, with fewer, in one program on one."""
    devices = jax.devices()
    if len(devices) < NUM_SHARDS:
        mapped = jax.vmap(function, axes, (0, None), axis_name="shard")
        return jax.jit(mapped)(*arguments)
    mesh = Mesh(np.array(devices[:NUM_SHARDS]), ("shard",))
    specs = jax.tree.map(
        lambda axis: PartitionSpec("shard") if axis == 0 else PartitionSpec(),
        axes,
        is_leaf=lambda axis: axis is None,
    )

    def on_device(*shards: Any) -> tuple[Any, Any]:
        local = jax.tree.map(
            lambda axis, a: a[0] if axis == 0 else a,
            axes,
            shards,
            is_leaf=lambda axis: axis is None,
        )
        assignment, sums = function(*local)
        return jax.tree.map(lambda a: a[None], assignment), sums

    run = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=specs,
        out_specs=(PartitionSpec("shard"), PartitionSpec()),
        check_vma=False,
    )
    return jax.jit(run)(*arguments)


def different(actual: Any, expected: Any) -> str:
    """Returns the names of the leaves that differ by more than rounding, separated by commas."""
    paths = jax.tree_util.tree_leaves_with_path(jax.device_get(actual))
    others = jax.tree.leaves(jax.device_get(expected))
    return ", ".join(
        jax.tree_util.keystr(path)
        for (path, a), b in zip(paths, others, strict=True)
        if not np.allclose(a, b, rtol=1e-4, atol=1e-5)
    )
