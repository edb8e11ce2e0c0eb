"""Experts on rows that are sorted by expert, with a gradient of its own, for every platform.

    y[t] = sum over the rows m of token t of  weight_m * activation(x[t] W1_e) W2_e^T

with e the expert of row m. The program is chosen when it is compiled for a platform, so a
program compiled for TPU on a machine without one is the TPU's.
"""

import functools

import jax
from jax.ad_checkpoint import checkpoint_name

from moe_jax.dispatch import expert_loop, expert_products
from moe_jax.dispatch.expert_loop import Activation


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def expert_rows(
    activation: Activation,
    uniform: bool,
    x_TD: jax.Array,
    token_M: jax.Array,
    weight_M: jax.Array,
    count_E: jax.Array,
    wi_EDF: jax.Array,
    wo_EDF: jax.Array,
) -> jax.Array:
    """Returns y [T, D].

    Args:
        activation: elementwise, between an expert's two matrices.
        uniform: every expert has M / E rows.
        x_TD: tokens.
        token_M: token of each row, rows sorted by expert.
        weight_M: combine weight of each row, float32.
        count_E: rows of each expert, int32; rows after the last expert's are nobody's, and
            their weight is 0.
        wi_EDF: first matrices.
        wo_EDF: second matrices, stored like the first.
    """
    return _forward(activation, uniform, x_TD, token_M, weight_M, count_E, wi_EDF, wo_EDF)[0]


def _forward(activation: Activation, uniform: bool, *arrays: jax.Array) -> tuple:
    y_TD, pre_MF = jax.lax.platform_dependent(
        *arrays,
        cpu=functools.partial(expert_loop.forward, activation, uniform),
        default=functools.partial(expert_products.forward, activation, uniform),
    )
    return y_TD, (*arrays, checkpoint_name(pre_MF, "moe_hidden"))


def _backward(activation: Activation, uniform: bool, residuals: tuple, dy_TD: jax.Array) -> tuple:
    dx_TD, d_weight_M, d_wi, d_wo = jax.lax.platform_dependent(
        *residuals,
        dy_TD,
        cpu=functools.partial(expert_loop.backward, activation, uniform),
        default=functools.partial(expert_products.backward, activation, uniform),
    )
    return dx_TD, None, d_weight_M, None, d_wi, d_wo


expert_rows.defvjp(_forward, _backward)
