"""Grouped dispatch: rows are sorted by expert; the cost is proportional to the chosen pairs.

It suits token choice without a capacity, and is the fastest dispatch of `Slots` on CPU. No pair is
dropped. The time depends on the number of chosen pairs, not on the worst case: a token with one
expert costs half as much as a token with two.
"""

import jax
import jax.numpy as jnp

from moe_jax.dispatch.grouped_ffn import grouped_ffn
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.rounds import sum_over_rounds
from moe_jax.dispatch.sorted_tokens import SortedTokens, TokenExpertPairs, sorted_by_expert
from moe_jax.routing.assignment import Assignment, Slots
from moe_jax.routing.position_in_expert import expert_bounds
from moe_jax.types import ActivationsPND, ActivationsTD

# Rows in memory at a time, relative to tokens. Only a router with more choices per token, such as
# `ExpertThreshold`, can need more than one round.
_ROWS_PER_TOKEN = 4


def grouped(
    assignment: Assignment, x_PND: ActivationsPND, experts: ExpertNetwork
) -> ActivationsPND:
    """Dispatches rows sorted by expert (see `moe_jax.dispatch`)."""
    pools, tokens, width = x_PND.shape
    x_TD = jnp.asarray(x_PND).reshape(pools * tokens, width)
    if isinstance(assignment, Slots):
        y_TD = _slots(assignment, x_TD, experts)
    else:
        y_TD = dispatch_pairs(TokenExpertPairs.of_pairs(assignment), x_TD, experts)
    return y_TD.reshape(x_PND.shape)


def _slots(slots: Slots, x_TD: ActivationsTD, experts: ExpertNetwork) -> ActivationsTD:
    """Dispatches slots: every expert has P * C rows; empty slots have weight 0."""
    pools, num_experts, capacity = slots.token_index_PEC.shape
    first_P11 = (jnp.arange(pools, dtype=jnp.int32) * (x_TD.shape[0] // pools))[:, None, None]
    weight_PEC = jnp.where(slots.filled_PEC, slots.weight_PEC, 0.0)
    return grouped_ffn(
        SortedTokens(
            x_TD,
            (slots.token_index_PEC + first_P11).swapaxes(0, 1).reshape(-1),
            weight_PEC.swapaxes(0, 1).reshape(-1),
            jnp.full((num_experts,), pools * capacity, jnp.int32),
            experts,
            uniform=True,
        )
    )


def dispatch_pairs(
    pairs: TokenExpertPairs, x_TD: ActivationsTD, experts: ExpertNetwork
) -> ActivationsTD:
    """Dispatches token-expert pairs to experts that are all on this device; returns y [T, D]."""
    rows = pairs.token_M.shape[0]
    pairs = sorted_by_expert(pairs)
    bounds = expert_bounds(pairs.expert_M, pairs.num_experts)
    if rows <= _ROWS_PER_TOKEN * x_TD.shape[0]:
        count_E = bounds[1:] - bounds[:-1]
        return grouped_ffn(
            SortedTokens(x_TD, pairs.token_M, pairs.weight_M, count_E, experts, uniform=False)
        )
    return _in_rounds(x_TD, pairs, bounds, experts)


def _in_rounds(
    x_TD: ActivationsTD, pairs: TokenExpertPairs, bounds: jax.Array, experts: ExpertNetwork
) -> ActivationsTD:
    """Dispatches sorted pairs in rounds of a bounded size, as many as the pairs need."""
    rows = _ROWS_PER_TOKEN * x_TD.shape[0]
    padding = -pairs.token_M.shape[0] % rows
    token_M, weight_M = (jnp.pad(a, (0, padding)) for a in (pairs.token_M, pairs.weight_M))
    return sum_over_rounds(
        _round, -(-bounds[-1] // rows), (x_TD, weight_M, experts), (token_M, bounds)
    )


def _round(index: jax.Array, arrays: tuple, indices: tuple) -> jax.Array:
    """Dispatches the pairs of one round."""
    x_TD, weight_M, experts = arrays
    token_M, bounds = indices
    rows = _ROWS_PER_TOKEN * x_TD.shape[0]
    first = index * rows
    inside = jnp.clip(bounds - first, 0, rows)
    return grouped_ffn(
        SortedTokens(
            x_TD,
            jax.lax.dynamic_slice_in_dim(token_M, first, rows),
            jax.lax.dynamic_slice_in_dim(weight_M, first, rows),
            inside[1:] - inside[:-1],
            experts,
            uniform=False,
        )
    )
