"""Ranks of choices within their experts: the order in which slots are assigned.

| order           | sequence in which choices receive slots                                    |
|-----------------|----------------------------------------------------------------------------|
| `left_to_right` | by position over all rows, a token's first choice before its second: a     |
|                 | later token never displaces an earlier one                                 |
| `choices_first` | all first choices in the order of the tokens, then all second choices:     |
|                 | GShard's algorithm 1 (Lepikhin et al. 2020); a later token's first choice  |
|                 | displaces an earlier token's second choice                                 |
| `priority`      | as `choices_first`, with the tokens ordered by their largest score         |
|                 | (batch-prioritised routing, Riquelme et al. 2021, section 4.1)             |
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from moe_jax.types import IndexM, IndexPNK, MaskPNK, TokensPN, ValuePN

Order = Literal["left_to_right", "choices_first", "priority"]
ORDERS: tuple[Order, ...] = get_args(Order)


def positions_in_expert(
    expert_PNK: IndexPNK,
    wanted_PNK: MaskPNK,
    experts: int,
    order: str,
    *,
    time_PN: TokensPN | None = None,
    score_PN: ValuePN | None = None,
) -> IndexPNK:
    """Returns how many wanted choices of the same expert in the pool come before, [P, N, K] int32.

    Args:
        expert_PNK: the expert of each choice.
        wanted_PNK: false for choices that request no slot; their rank is undefined.
        experts: number of experts, E.
        order: one of `ORDERS`.
        time_PN: positions in rows, for `left_to_right`; None if the tokens are in that order.
        score_PN: the largest score of each token, for `priority`.
    """
    pools, tokens, choices = expert_PNK.shape
    place_PN = jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32), (pools, tokens))
    if order == "left_to_right" and time_PN is not None:
        place_PN = _place(time_PN)
    elif order == "priority":
        assert score_PN is not None
        place_PN = _place(-score_PN)
    choice_K = jnp.arange(choices, dtype=jnp.int32)
    if order == "left_to_right":
        place_PNK = place_PN[..., None] * choices + choice_K
    else:
        place_PNK = place_PN[..., None] + choice_K * tokens
    ranks_PM = jax.vmap(_ranks, in_axes=(0, 0, None))(
        jnp.where(wanted_PNK, expert_PNK, experts).reshape(pools, -1),
        place_PNK.reshape(pools, -1),
        experts,
    )
    return ranks_PM.reshape(expert_PNK.shape)


def _place(value_PN: jax.Array) -> jax.Array:
    """Returns the index of each token in the order of the values, ties by index."""
    order_PN = jnp.argsort(value_PN, axis=-1, stable=True).astype(jnp.int32)
    return jax.vmap(_inverse)(order_PN)


def _inverse(permutation_M: jax.Array) -> jax.Array:
    places = jnp.arange(permutation_M.shape[0], dtype=jnp.int32)
    return jnp.zeros_like(places).at[permutation_M].set(places, unique_indices=True)


def _ranks(expert_M: IndexM, place_M: IndexM, num_experts: int) -> IndexM:
    """Ranks one pool's choices by (expert, place); `place_M` is a permutation of 0 ... M - 1."""
    pairs = expert_M.shape[0]
    by_place_M = jnp.zeros_like(expert_M).at[place_M].set(expert_M, unique_indices=True)
    sorted_expert_M, sorted_place_M = sort_by_expert(by_place_M, num_experts)
    first_E = expert_bounds(sorted_expert_M, num_experts)
    rank_M = jnp.arange(pairs, dtype=jnp.int32) - first_E[sorted_expert_M]
    by_place_M = jnp.zeros_like(rank_M).at[sorted_place_M].set(rank_M, unique_indices=True)
    return by_place_M[place_M]


def sort_by_expert(expert_M: IndexM, experts: int) -> tuple[IndexM, IndexM]:
    """Sorts choices by expert, stably; the value `experts` stands for no expert and sorts last.

    This is one unstable sort of a single int32 key, which is fastest on CPU, unless the key would
    overflow.

    Returns:
        the sorted experts and the indices of the choices in this order, both int32 [M].
    """
    pairs = expert_M.shape[0]
    index_M = jnp.arange(pairs, dtype=jnp.int32)
    expert_M = expert_M.astype(jnp.int32)
    if (experts + 1) * pairs < 2**31:
        key_M = jax.lax.sort(expert_M * pairs + index_M, is_stable=False)
        return key_M // pairs, key_M % pairs
    sorted_M, order_M = jax.lax.sort((expert_M, index_M), num_keys=1, is_stable=True)
    return sorted_M, order_M


def expert_bounds(sorted_expert_M: IndexM, experts: int) -> jax.Array:
    """Returns the start of each expert's range in the sorted choices, and of no expert's, [E + 1].

    Every choice is compared with every expert in one fused pass, instead of a search in a loop.
    """
    bounds = jnp.searchsorted(
        sorted_expert_M, jnp.arange(experts + 1), side="left", method="compare_all"
    )
    return bounds.astype(jnp.int32)
