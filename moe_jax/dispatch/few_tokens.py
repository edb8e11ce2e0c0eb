"""Dispatch of few tokens: a loop over the experts that at least one token has chosen.

In decoding, a step has one token per row, and its time is that of reading weights. Every chosen
expert is read once and applied to all tokens; the tokens that have not chosen it get the weight 0.
With few tokens this is cheaper than gathering rows, since a matrix product of one row takes about
as long as one of eight. Experts that no token has chosen are not read. More tokens, and slots, are
dispatched by `grouped`.
"""

import jax
import jax.numpy as jnp

from moe_jax.dispatch.grouped import grouped
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.rounds import sum_over_rounds
from moe_jax.routing.assignment import Assignment, Pairs
from moe_jax.types import ActivationsPND, ActivationsTD, CountE

# Above, gathering the rows of every expert is faster.
MOST_TOKENS = 16


def few_tokens(
    assignment: Assignment, x_PND: ActivationsPND, experts: ExpertNetwork
) -> ActivationsPND:
    """Dispatches up to `MOST_TOKENS` tokens expert by expert (see `moe_jax.dispatch`)."""
    pools, tokens, width = x_PND.shape
    if not isinstance(assignment, Pairs) or pools * tokens > MOST_TOKENS:
        return grouped(assignment, x_PND, experts)
    x_TD = jnp.asarray(x_PND).reshape(pools * tokens, width)
    weight_TE = assignment.dense_weight_PNE().reshape(x_TD.shape[0], -1)
    expert_PNK = jnp.where(
        assignment.chosen_PNK, assignment.expert_index_PNK, assignment.num_experts
    )
    chosen_E = jnp.zeros((assignment.num_experts,), jnp.bool_)
    chosen_E = chosen_E.at[expert_PNK.reshape(-1)].set(True, mode="drop")
    if experts.each is None:
        y_TD = _loop(x_TD, weight_TE, chosen_E, experts)
    else:
        y_TD = _conditions(x_TD, weight_TE, chosen_E, experts)
    return y_TD.astype(x_TD.dtype).reshape(x_PND.shape)


def _conditions(
    x_TD: ActivationsTD, weight_TE: jax.Array, chosen_E: jax.Array, experts: ExpertNetwork
) -> ActivationsTD:
    """Runs the chosen experts, whose weights are arrays of their own and are not copied."""
    y_TD = jnp.zeros(x_TD.shape, jnp.float32)
    for index, weights in enumerate(experts.each or ()):

        def run(y_TD: jax.Array, weight_T: jax.Array, weights: tuple) -> jax.Array:
            wi_DF, wo_FD = weights
            with jax.named_scope("experts"):
                out_TD = experts.activation(x_TD @ wi_DF) @ wo_FD
            return y_TD + _weighted(out_TD, weight_T)

        def skip(y_TD: jax.Array, weight_T: jax.Array, weights: tuple) -> jax.Array:
            return y_TD

        y_TD = jax.lax.cond(chosen_E[index], run, skip, y_TD, weight_TE[:, index], weights)
    return y_TD


def _loop(
    x_TD: ActivationsTD, weight_TE: jax.Array, chosen_E: jax.Array, experts: ExpertNetwork
) -> ActivationsTD:
    """Runs the chosen experts in a loop; differentiable."""
    # The chosen experts first, in their order.
    order_E = jnp.argsort(~chosen_E, stable=True).astype(jnp.int32)
    rounds = chosen_E.sum(dtype=jnp.int32)
    return sum_over_rounds(_round, rounds, (x_TD, weight_TE.T, experts), order_E)


def _round(index: jax.Array, arrays: tuple, order_E: CountE) -> ActivationsTD:
    """Returns the weighted outputs of one expert for all tokens, float32."""
    x_TD, weight_ET, experts = arrays

    def of_expert(array: jax.Array) -> jax.Array:
        return jax.lax.dynamic_index_in_dim(array, order_E[index], keepdims=False)

    with jax.named_scope("experts"):
        hidden_TF = experts.activation(x_TD @ of_expert(experts.wi_EDF))
        out_TD = jnp.einsum("tf,df->td", hidden_TF, of_expert(experts.wo_EDF))
    return _weighted(out_TD, of_expert(weight_ET))


def _weighted(out_TD: ActivationsTD, weight_T: jax.Array) -> ActivationsTD:
    return (out_TD * weight_T[:, None].astype(out_TD.dtype)).astype(jnp.float32)
