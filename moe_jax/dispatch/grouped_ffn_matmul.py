"""Grouped feed-forward for accelerators: batched or ragged matrix products over all experts.

If all experts have equally many rows, the products are batched; otherwise they are those of
`grouped_products`. The formulas are those of `grouped_ffn_loop`, which is used on CPU instead.
"""

import jax
import jax.numpy as jnp

from moe_jax.dispatch.grouped_products import multiply_rows, weight_gradient
from moe_jax.dispatch.sorted_tokens import Gradients, SortedTokens
from moe_jax.types import ActivationsTD, RowsMD, RowsMF, WeightEDF


def forward(rows: SortedTokens) -> tuple[ActivationsTD, RowsMF]:
    """Returns y [T, D] and the pre-activations [M, F] (see `moe_jax.dispatch.grouped_ffn`)."""
    x_TD, wi_EDF, wo_EDF = rows.x_TD, rows.experts.wi_EDF, rows.experts.wo_EDF
    activation, token_M, weight_M = rows.experts.activation, rows.token_M, rows.weight_M
    multiply = _Products(rows)
    pre_MF = multiply.rows(_take(x_TD, token_M), wi_EDF, 1)
    out_MD = multiply.rows(activation(pre_MF), wo_EDF, 2)
    return _scatter(x_TD, token_M, out_MD * weight_M[:, None].astype(x_TD.dtype)), pre_MF


def backward(rows: SortedTokens, pre_MF: RowsMF, dy_TD: ActivationsTD) -> Gradients:
    """Returns the gradients with respect to x, weight, wi and wo."""
    x_TD, wi_EDF, wo_EDF = rows.x_TD, rows.experts.wi_EDF, rows.experts.wo_EDF
    activation, token_M, weight_M = rows.experts.activation, rows.token_M, rows.weight_M
    multiply = _Products(rows)
    weight_M1 = weight_M[:, None].astype(x_TD.dtype)
    g_MD = _take(dy_TD, token_M)
    hidden_MF, of_activation = jax.vjp(activation, pre_MF)
    u_MF = multiply.rows(g_MD, wo_EDF, 1)
    d_weight_M = jnp.einsum("mf,mf->m", u_MF, hidden_MF, preferred_element_type=jnp.float32)
    (d_pre_MF,) = of_activation(u_MF * weight_M1)
    dx_TD = _scatter(x_TD, token_M, multiply.rows(d_pre_MF, wi_EDF, 2))
    d_wi = multiply.weights(_take(x_TD, token_M), d_pre_MF)
    d_wo = multiply.weights(g_MD * weight_M1, hidden_MF)
    return dx_TD, d_weight_M, d_wi.astype(wi_EDF.dtype), d_wo.astype(wo_EDF.dtype)


class _Products:
    """Matrix products of sorted rows with the weights of their experts."""

    def __init__(self, rows: SortedTokens):
        self._uniform, self._count_E = rows.uniform, rows.count_E
        self._experts = rows.count_E.shape[0]
        # Unassigned rows are last; the products leave them undefined.
        self._assigned_M1 = (jnp.arange(rows.token_M.shape[0]) < rows.count_E.sum())[:, None]

    @jax.named_scope("experts")
    def rows(self, x: jax.Array, weight_EDF: jax.Array, contract: int) -> jax.Array:
        """Multiplies each row by its expert's weight, contracting axis `contract` of the weight."""
        if self._uniform:
            equation = {1: "era,eaf->erf", 2: "era,efa->erf"}[contract]
            out = jnp.einsum(equation, self._by_expert(x), weight_EDF)
            return out.reshape(x.shape[0], -1)
        out = multiply_rows(x, weight_EDF, self._count_E, contract)
        return jnp.where(self._assigned_M1, out, 0)

    @jax.named_scope("experts")
    def weights(self, a_MD: RowsMD, b_MF: RowsMF) -> WeightEDF:
        """Returns the sum of a b^T over the rows of each expert, [E, D, F]."""
        if self._uniform:
            return jnp.einsum("erd,erf->edf", self._by_expert(a_MD), self._by_expert(b_MF))
        return weight_gradient(a_MD, b_MF, self._count_E)

    def _by_expert(self, x: jax.Array) -> jax.Array:
        return x.reshape(self._experts, -1, x.shape[-1])


def _take(x_TD: jax.Array, token_M: jax.Array) -> jax.Array:
    return x_TD.at[token_M].get(mode="promise_in_bounds")


def _scatter(x_TD: jax.Array, token_M: jax.Array, value_MD: jax.Array) -> jax.Array:
    return jnp.zeros_like(x_TD).at[token_M].add(value_MD, mode="promise_in_bounds")
