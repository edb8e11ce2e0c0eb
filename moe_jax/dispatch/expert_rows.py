"""Experts on rows that are sorted by expert, with a gradient of its own, for every platform.

    y[t] = sum over the rows m of token t of  weight_m * activation(x[t] W1_e) W2_e^T

with e the expert of row m. The program is chosen when it is compiled for a platform, so a
program compiled for TPU on a machine without one is the TPU's.
"""

import dataclasses

import jax
from jax.ad_checkpoint import checkpoint_name

from moe_jax.dispatch import expert_loop, expert_products
from moe_jax.dispatch.sorted_rows import SortedRows


@jax.custom_vjp
def expert_rows(rows: SortedRows) -> jax.Array:
    """Returns y [T, D]."""
    return _forward(rows)[0]


def _forward(rows: SortedRows) -> tuple:
    y_TD, pre_MF = jax.lax.platform_dependent(
        rows, cpu=expert_loop.forward, default=expert_products.forward
    )
    return y_TD, (rows, checkpoint_name(pre_MF, "moe_hidden"))


def _backward(residuals: tuple, dy_TD: jax.Array) -> tuple[SortedRows]:
    rows, pre_MF = residuals
    dx_TD, d_weight_M, d_wi, d_wo = jax.lax.platform_dependent(
        rows, pre_MF, dy_TD, cpu=expert_loop.backward, default=expert_products.backward
    )
    experts = dataclasses.replace(rows.experts, wi_EDF=d_wi, wo_EDF=d_wo)
    return (
        dataclasses.replace(
            rows, x_TD=dx_TD, token_M=None, weight_M=d_weight_M, count_E=None, experts=experts
        ),
    )


expert_rows.defvjp(_forward, _backward)
