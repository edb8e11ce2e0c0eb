"""Gather dispatch: tokens are gathered by index, with static shapes and without one-hot arrays.

The tokens of `Slots`, and of `Pairs` with a capacity, are gathered, processed by batched matrix
products, and scattered back in one pass. Without a capacity, experts process a fixed number of rows
per round until all chosen pairs are done: the result is exact for every load, shapes are static,
and the time depends on the most loaded expert.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from moe_jax.dispatch.rounds import sum_over_rounds
from moe_jax.routing.assignment import Assignment, Pairs, Slots
from moe_jax.types import ActivationsPND, ActivationsTD, RowsERD

# A function from the input rows of every expert [E, R, D] to their outputs, as `ExpertNetwork`.
Network = Callable[[RowsERD], RowsERD]


def gather(assignment: Assignment, x_PND: ActivationsPND, experts: Network) -> ActivationsPND:
    """Dispatches by gather and combines by scatter-add (see `moe_jax.dispatch`)."""
    pools, tokens, width = x_PND.shape
    x_TD = jnp.asarray(x_PND).reshape(pools * tokens, width)
    if isinstance(assignment, Pairs) and assignment.capacity is not None:
        assignment = assignment.slots()
    if isinstance(assignment, Slots):
        first_P11 = (jnp.arange(pools, dtype=jnp.int32) * tokens)[:, None, None]
        y_TD = _rows(
            experts,
            _by_expert(assignment.token_index_PEC + first_P11),
            _by_expert(jnp.where(assignment.filled_PEC, assignment.weight_PEC, 0.0)),
            x_TD,
        )
    else:
        y_TD = _rounds(assignment, x_TD, experts)
    return y_TD.reshape(x_PND.shape)


def _by_expert(value_PEC: jax.Array) -> jax.Array:
    """Rearranges [P, E, C] to [E, P * C]."""
    return value_PEC.swapaxes(0, 1).reshape(value_PEC.shape[1], -1)


def _rows(
    network: Network,
    token_ER: jax.Array,
    weight_ER: jax.Array,
    x_TD: ActivationsTD,
) -> ActivationsTD:
    """Applies each expert to its rows of `x_TD`; an empty row has weight 0 and adds nothing."""
    in_ERD = x_TD.at[token_ER].get(mode="promise_in_bounds")
    # The gradient of the weights needs the experts' outputs.
    out_ERD = checkpoint_name(network(in_ERD), "moe_rows")
    out_ERD = out_ERD * weight_ER[..., None].astype(x_TD.dtype)
    return jnp.zeros_like(x_TD).at[token_ER].add(out_ERD, mode="promise_in_bounds")


def _rounds(pairs: Pairs, x_TD: ActivationsTD, network: Network) -> ActivationsTD:
    """Processes the chosen tokens in rounds of T / E rows per expert."""
    total, num_experts = x_TD.shape[0], pairs.num_experts
    rows = -(-total // num_experts)
    weight_ET = pairs.dense_weight_PNE().reshape(total, num_experts).T
    chosen_ET = _chosen(pairs, total)
    # The chosen tokens of each expert first, in their order.
    order_ET = jnp.argsort(~chosen_ET, axis=-1, stable=True).astype(jnp.int32)
    most_rows = chosen_ET.sum(-1).max()
    padding = ((0, 0), (0, num_experts * rows - total))
    order_ET = jnp.pad(order_ET, padding)
    weight_ET = jnp.pad(jnp.take_along_axis(weight_ET, order_ET[:, :total], -1), padding)
    return sum_over_rounds(_round, -(-most_rows // rows), (x_TD, weight_ET, network), order_ET)


def _round(index: jax.Array, arrays: tuple, order_ET: jax.Array) -> jax.Array:
    """Processes the next T / E rows of every expert."""
    x_TD, weight_ET, network = arrays
    rows = order_ET.shape[1] // order_ET.shape[0]
    token_ER = jax.lax.dynamic_slice_in_dim(order_ET, index * rows, rows, axis=1)
    weight_ER = jax.lax.dynamic_slice_in_dim(weight_ET, index * rows, rows, axis=1)
    return _rows(network, token_ER, weight_ER, x_TD)


def _chosen(pairs: Pairs, total: int) -> jax.Array:
    """Returns a mask of the chosen tokens of each expert, [E, T]."""
    one_hot_PNKE = jax.nn.one_hot(pairs.expert_index_PNK, pairs.num_experts, dtype=jnp.bool_)
    chosen_PNE = jnp.any(one_hot_PNKE & pairs.chosen_PNK[..., None], axis=2)
    return chosen_PNE.reshape(total, pairs.num_experts).T
