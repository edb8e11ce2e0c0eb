"""Which slot of its expert a choice gets: first come, first served, in a stated order.

| order           | who comes first                                                            |
|-----------------|----------------------------------------------------------------------------|
| `left_to_right` | earlier positions of all rows, a token's first choice before its second:   |
|                 | no later token can push an earlier one out                                 |
| `choices_first` | all first choices in the order of the tokens, then all second choices:     |
|                 | GShard's algorithm 1 (Lepikhin et al. 2020); a later token's first choice  |
|                 | pushes out an earlier token's second                                       |
| `priority`      | as `choices_first`, the tokens ordered by their largest score              |
|                 | (batch-prioritised routing, Riquelme et al. 2021, section 4.1)             |
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from moe_jax.types import IndexM, IndexPNK, MaskPNK, TokensPN, ValuePN

Order = Literal["left_to_right", "choices_first", "priority"]
ORDERS: tuple[Order, ...] = get_args(Order)


def slot_ranks(
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
        wanted_PNK: false for choices that want no slot; their rank means nothing.
        experts: E.
        order: one of `ORDERS`.
        time_PN: positions in rows, for `left_to_right`; by default tokens are in that order.
        score_PN: the tokens' largest scores, for `priority`.
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
    """Returns the place of each token when they are ordered by value, ties by index."""
    order_PN = jnp.argsort(value_PN, axis=-1, stable=True).astype(jnp.int32)
    return jax.vmap(_inverse)(order_PN)


def _inverse(permutation_M: jax.Array) -> jax.Array:
    places = jnp.arange(permutation_M.shape[0], dtype=jnp.int32)
    return jnp.zeros_like(places).at[permutation_M].set(places, unique_indices=True)


def _ranks(expert_M: IndexM, place_M: IndexM, experts: int) -> IndexM:
    """Ranks one pool's choices by (expert, place); `place_M` is a permutation of 0 ... M - 1."""
    pairs = expert_M.shape[0]
    by_place_M = jnp.zeros_like(expert_M).at[place_M].set(expert_M, unique_indices=True)
    sorted_expert_M, sorted_place_M = sort_by_expert(by_place_M, experts)
    first_E = expert_bounds(sorted_expert_M, experts)
    rank_M = jnp.arange(pairs, dtype=jnp.int32) - first_E[sorted_expert_M]
    by_place_M = jnp.zeros_like(rank_M).at[sorted_place_M].set(rank_M, unique_indices=True)
    return by_place_M[place_M]


def sort_by_expert(expert_M: IndexM, experts: int) -> tuple[IndexM, IndexM]:
    """Sorts choices by expert, keeping their order; `experts` stands for no expert, last.

    One unstable sort of a single int32 key, the fastest form on CPU, unless that would overflow.

    Returns:
        the sorted experts and the index of the choice that came to each place, both int32 [M].
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
    """Returns how many sorted choices come before each expert's, and before no expert's, [E + 1].

    By comparing all with all, which is one fused pass, rather than by a search in a loop.
    """
    bounds = jnp.searchsorted(
        sorted_expert_M, jnp.arange(experts + 1), side="left", method="compare_all"
    )
    return bounds.astype(jnp.int32)
