"""Dispatch of few tokens: a loop over the experts that at least one token has chosen.

In decoding, a step has one token per row, and its time is that of reading weights. An expert that
no token has chosen is not read. One with copies of its weights (`ExpertNetwork.each`) is applied to
its tokens one by one while these are few: on CPU a product of eight rows takes 3.5 to 4 times that
of one row, as XLA rearranges the weights for it. Otherwise an expert is applied to all tokens at
once, with the weight 0 for those that have not chosen it, which is cheaper than gathering rows.
More tokens, and slots, are dispatched by `grouped`.
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
# Up to this number of tokens of an expert, products of one row each are faster than one of all.
MOST_SINGLE_ROWS = 4


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
    expert_TK = expert_PNK.reshape(x_TD.shape[0], -1)
    chosen_TE = (expert_TK[:, :, None] == jnp.arange(assignment.num_experts)).any(1)
    if experts.each is None:
        y_TD = _loop(x_TD, weight_TE, chosen_TE.any(0), experts)
    else:
        y_TD = _conditions(x_TD, weight_TE, chosen_TE, experts)
    return y_TD.astype(x_TD.dtype).reshape(x_PND.shape)


def _conditions(
    x_TD: ActivationsTD, weight_TE: jax.Array, chosen_TE: jax.Array, experts: ExpertNetwork
) -> ActivationsTD:
    """Runs the chosen experts, whose weights are arrays of their own and are not copied."""
    y_TD = jnp.zeros(x_TD.shape, jnp.float32)
    tokens_E = chosen_TE.sum(0, dtype=jnp.int32)
    # 0: no token; 1: a few, one by one; 2: all tokens at once.
    way_E = (tokens_E > 0).astype(jnp.int32) + (tokens_E > MOST_SINGLE_ROWS)
    # The tokens of an expert before the others.
    order_TE = jnp.argsort(~chosen_TE, axis=0, stable=True).astype(jnp.int32)
    for index, weights in enumerate(experts.each or ()):

        def skip(y_TD: jax.Array, order_T: jax.Array, weight_T: jax.Array, _: tuple) -> jax.Array:
            return y_TD

        def one_by_one(
            y_TD: jax.Array,
            order_T: jax.Array,
            weight_T: jax.Array,
            weights: tuple,
            count: jax.Array = tokens_E[index],
        ) -> jax.Array:
            def add(place: jax.Array, y_TD: jax.Array) -> jax.Array:
                token = order_T[place]
                x_1D = jax.lax.dynamic_slice_in_dim(x_TD, token, 1)
                out_1D = _weighted(_apply(x_1D, weights, experts), weight_T[token][None])
                old_1D = jax.lax.dynamic_slice_in_dim(y_TD, token, 1)
                return jax.lax.dynamic_update_slice_in_dim(y_TD, old_1D + out_1D, token, 0)

            return jax.lax.fori_loop(0, count, add, y_TD)

        def at_once(
            y_TD: jax.Array, order_T: jax.Array, weight_T: jax.Array, weights: tuple
        ) -> jax.Array:
            return y_TD + _weighted(_apply(x_TD, weights, experts), weight_T)

        branches = (skip, one_by_one, at_once)
        operands = y_TD, order_TE[:, index], weight_TE[:, index], weights
        y_TD = jax.lax.switch(way_E[index], branches, *operands)
    return y_TD


def _apply(x_TD: ActivationsTD, weights: tuple, experts: ExpertNetwork) -> ActivationsTD:
    wi_DF, wo_FD = weights
    with jax.named_scope("experts"):
        return experts.activation(x_TD @ wi_DF) @ wo_FD


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
