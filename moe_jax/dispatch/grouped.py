"""Grouped dispatch: rows sorted by expert, work proportional to the chosen pairs, none dropped.

The form for token choice without a capacity, and for `Slots` the fastest one on CPU. Time follows
the pairs that were chosen, not the worst case: a token that goes to one expert costs half of one
that goes to two.
"""

import jax
import jax.numpy as jnp

from moe_jax.dispatch.expert_rows import expert_rows
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.sorted_rows import SortedRows, WorkList, sorted_by_expert
from moe_jax.dispatch.turns import sum_over_turns
from moe_jax.routing.assignment import Assignment, Slots
from moe_jax.routing.ranks import expert_bounds
from moe_jax.types import ActivationsPND

# Rows in memory at a time, relative to tokens. Only a router of more choices than this, such as
# a threshold for every expert, can need more than one turn.
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
        y_TD = work_off(WorkList.of_pairs(assignment), x_TD, experts)
    return y_TD.reshape(x_PND.shape)


def _slots(slots: Slots, x_TD: jax.Array, experts: ExpertNetwork) -> jax.Array:
    """Every expert has P * C rows; empty slots have weight 0."""
    pools, number, capacity = slots.token_index_PEC.shape
    first_P11 = (jnp.arange(pools, dtype=jnp.int32) * (x_TD.shape[0] // pools))[:, None, None]
    weight_PEC = jnp.where(slots.filled_PEC, slots.weight_PEC, 0.0)
    return expert_rows(
        SortedRows(
            x_TD,
            (slots.token_index_PEC + first_P11).swapaxes(0, 1).reshape(-1),
            weight_PEC.swapaxes(0, 1).reshape(-1),
            jnp.full((number,), pools * capacity, jnp.int32),
            experts,
            uniform=True,
        )
    )


def work_off(work: WorkList, x_TD: jax.Array, experts: ExpertNetwork) -> jax.Array:
    """Works off a list of (token, expert, weight), all experts being here; returns y [T, D]."""
    rows = work.token_M.shape[0]
    work = sorted_by_expert(work)
    bounds = expert_bounds(work.expert_M, work.experts)
    if rows <= _ROWS_PER_TOKEN * x_TD.shape[0]:
        count_E = bounds[1:] - bounds[:-1]
        return expert_rows(
            SortedRows(x_TD, work.token_M, work.weight_M, count_E, experts, uniform=False)
        )
    return _in_turns(x_TD, work.token_M, work.weight_M, bounds, experts)


def _in_turns(
    x_TD: jax.Array,
    token_M: jax.Array,
    weight_M: jax.Array,
    bounds: jax.Array,
    experts: ExpertNetwork,
) -> jax.Array:
    """Works off sorted rows in turns of a bounded number, as many turns as there are rows for."""
    rows = _ROWS_PER_TOKEN * x_TD.shape[0]
    padding = -token_M.shape[0] % rows
    token_M, weight_M = (jnp.pad(a, (0, padding)) for a in (token_M, weight_M))
    return sum_over_turns(
        _turn, -(-bounds[-1] // rows), (x_TD, weight_M, experts), (token_M, bounds)
    )


def _turn(turn: jax.Array, arrays: tuple, indices: tuple) -> jax.Array:
    """Works on the rows of one turn."""
    x_TD, weight_M, experts = arrays
    token_M, bounds = indices
    rows = _ROWS_PER_TOKEN * x_TD.shape[0]
    first = turn * rows
    inside = jnp.clip(bounds - first, 0, rows)
    return expert_rows(
        SortedRows(
            x_TD,
            jax.lax.dynamic_slice_in_dim(token_M, first, rows),
            jax.lax.dynamic_slice_in_dim(weight_M, first, rows),
            inside[1:] - inside[:-1],
            experts,
            uniform=False,
        )
    )
