"""How many slots an expert has: the one rounding rule of the project.

Expert choice gives every expert k = N * c / E of a pool's N tokens (Zhou et al. 2022, eq. 1),
with c the capacity factor, the mean number of experts per token. The rule is to round **down**,
so that c is never exceeded. A pool in which k would be 0 is refused at start. Padding does not
count: a pool with n real tokens fills the first k(n) slots of each expert and leaves the rest
empty, at least one slot as long as there is a real token.
"""

import math

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError

# Keeps N * c / E from falling below a whole number by a rounding error, float32 included.
_SLACK = 1.0 + 1e-6


def expert_choice_capacity(tokens: int, capacity_factor: float, experts: int) -> int:
    """Returns k = floor(N * c / E), the slots per expert in a pool of N tokens.

    Raises:
        UserError: if that is 0, or more slots than the pool has tokens.
    """
    capacity = math.floor(tokens * capacity_factor / experts * _SLACK)
    if capacity < 1:
        raise UserError(
            f"capacity is zero: a pool of {tokens} tokens x capacity factor {capacity_factor:g} / "
            f"{experts} experts gives each expert {tokens * capacity_factor / experts:.3g} slots; "
            f"use a pool of at least {math.ceil(experts / capacity_factor)} tokens, a larger "
            "capacity factor or fewer experts"
        )
    if capacity > tokens:
        raise UserError(
            f"capacity factor {capacity_factor:g} is more than the {experts} experts: "
            f"each expert would take {capacity} of {tokens} tokens"
        )
    return capacity


def filled_capacity(
    real_tokens: jax.Array, capacity_factor: float, experts: int, capacity: int
) -> jax.Array:
    """Returns the slots to fill, given the number of real tokens (any shape, int32)."""
    ratio = jnp.float32(capacity_factor / experts * _SLACK)
    slots = jnp.floor(real_tokens.astype(jnp.float32) * ratio).astype(jnp.int32)
    return jnp.minimum(jnp.maximum(slots, jnp.minimum(real_tokens, 1)), capacity)
