"""Expert parallelism by the compiler: batched products with sharding constraints.

It supports assignments with slots. Rows are gathered on the devices of their pools; then the expert
axis is constrained to the sharding of the experts, which the compiler implements as an all-to-all.
"""

import jax
import jax.numpy as jnp

from moe_jax.dispatch.gather import Network
from moe_jax.routing.assignment import Slots
from moe_jax.types import ActivationsPND


def implicit_expert_parallel(
    slots: Slots,
    x_PND: ActivationsPND,
    experts: Network,
    by_pool: jax.sharding.Sharding,
    by_expert: jax.sharding.Sharding,
) -> ActivationsPND:
    """Dispatches by gather and combines by scatter-add, inside `jax.jit` over a mesh.

    Args:
        slots: the assignment.
        x_PND: all tokens.
        experts: all experts.
        by_pool: sharding of arrays [P, ...] over the devices of the tokens.
        by_expert: sharding of arrays [E, P, ...] over the devices of the experts.
    """
    pools, num_experts, capacity = slots.token_index_PEC.shape
    width = x_PND.shape[-1]
    constrain = jax.lax.with_sharding_constraint
    token_PM = constrain(slots.token_index_PEC.reshape(pools, -1), by_pool)
    weight_PM = jnp.where(slots.filled_PEC, slots.weight_PEC, 0.0).reshape(pools, -1)
    in_PMD = jax.vmap(lambda x_ND, token_M: x_ND.at[token_M].get(mode="promise_in_bounds"))(
        constrain(x_PND, by_pool), token_PM
    )
    in_PECD = constrain(in_PMD.reshape(pools, num_experts, capacity, width), by_pool)
    in_EPCD = constrain(in_PECD.swapaxes(0, 1), by_expert)
    out_EPCD = experts(in_EPCD.reshape(num_experts, pools * capacity, width)).reshape(in_EPCD.shape)
    out_PECD = constrain(constrain(out_EPCD, by_expert).swapaxes(0, 1), by_pool)
    out_PMD = out_PECD.reshape(in_PMD.shape) * weight_PM[..., None].astype(x_PND.dtype)

    def combine(token_M: jax.Array, out_MD: jax.Array) -> jax.Array:
        zeros_ND = jnp.zeros(x_PND.shape[1:], x_PND.dtype)
        return zeros_ND.at[token_M].add(out_MD, mode="promise_in_bounds")

    return constrain(jax.vmap(combine)(token_PM, out_PMD), by_pool)
