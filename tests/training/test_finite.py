"""Non-finite values found on every device."""

import jax
import jax.numpy as jnp

from moe_jax.sharding.mesh import MeshConfig
from moe_jax.sharding.partition import make_partition
from moe_jax.training.finite import all_finite


def test_every_device_gets_the_same_answer_in_one_sum():
    """A bad value is on one device of four, of an array that is sharded over two of them."""
    partition = make_partition(MeshConfig(fsdp=2, expert=2), jax.devices()[:4])
    sharded = partition.sharding(jax.sharding.PartitionSpec("fsdp"))
    trees = [{"a": jnp.ones(8), "b": jnp.ones(8)}, {"c": jnp.ones(3), "count": jnp.ones((), int)}]
    shardings = (
        {"a": sharded, "b": sharded},
        {"c": partition.replicated, "count": partition.replicated},
    )
    check = jax.jit(lambda *trees: all_finite(trees, partition, shardings))
    assert check(*trees).tolist() == [True, True]
    trees[0]["b"] = trees[0]["b"].at[7].set(jnp.nan)
    assert check(*trees).tolist() == [False, True]
    answers = {tuple(s.data.tolist()) for s in check(*trees).addressable_shards}
    assert answers == {(False, True)}
    assert check.lower(*trees).compile().as_text().count(" all-reduce(") == 1
