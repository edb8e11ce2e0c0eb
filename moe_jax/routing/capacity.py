"""Expert capacity: the number of slots per expert, with one rounding rule for all routers.

Expert choice gives every expert k = N * c / E of a pool's N tokens (Zhou et al. 2022, eq. 1),
where c is the capacity factor, the mean number of experts per token. k is rounded **down**, so that
c is never exceeded. A pool with k = 0 is an error. Padding does not count: a pool with n real
tokens fills the first k(n) slots of each expert, at least one if n > 0, and leaves the rest empty.

The computation is exact: c is rounded to the nearest fraction with a denominator of up to 1000, and
all arithmetic is on integers.
"""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError

_LARGEST_DENOMINATOR = 1000


def _slots_per_token(capacity_factor: float, num_experts: int) -> Fraction:
    return Fraction(capacity_factor).limit_denominator(_LARGEST_DENOMINATOR) / num_experts


def expert_choice_capacity(tokens: int, capacity_factor: float, experts: int) -> int:
    """Returns k = floor(N * c / E), the slots per expert in a pool of N tokens.

    Raises:
        UserError: if k is 0, or more than the pool has tokens.
    """
    ratio = _slots_per_token(capacity_factor, experts)
    capacity = math.floor(tokens * ratio)
    if capacity < 1:
        enough = f"a pool of at least {math.ceil(1 / ratio)} tokens, " if ratio else ""
        raise UserError(
            f"capacity is zero: a pool of {tokens} tokens x capacity factor {capacity_factor:g} / "
            f"{experts} experts gives each expert {tokens * capacity_factor / experts:.3g} slots; "
            f"use {enough}a larger capacity factor or fewer experts"
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
    """Returns the number of slots to fill, given the number of real tokens (any shape, int32).

    To compute n p / q without int32 overflow, n is first divided by q with remainder.
    """
    ratio = _slots_per_token(capacity_factor, experts)
    p, q = ratio.numerator, ratio.denominator
    slots = real_tokens // q * p + real_tokens % q * p // q
    return jnp.minimum(jnp.maximum(slots, jnp.minimum(real_tokens, 1)), capacity)
