"""Feed-forward experts on rows sorted by expert, with a custom gradient, for every platform.

    y[t] = sum over the rows m of token t of  weight_m * activation(x[t] W1_e) W2_e^T

where e is the expert of row m. The implementation is selected at lowering by the target platform,
so that a program compiled for TPU on a machine without one is the TPU's program.
"""

import dataclasses

import jax
from jax.ad_checkpoint import checkpoint_name

from moe_jax.dispatch import grouped_ffn_loop, grouped_ffn_matmul
from moe_jax.dispatch.sorted_tokens import SortedTokens
from moe_jax.types import ActivationsTD


@jax.custom_vjp
def grouped_ffn(rows: SortedTokens) -> ActivationsTD:
    """Returns the weighted sum of the experts' outputs for each token, y [T, D]."""
    return _forward(rows)[0]


def _forward(rows: SortedTokens) -> tuple:
    y_TD, pre_MF = jax.lax.platform_dependent(
        rows, cpu=grouped_ffn_loop.forward, default=grouped_ffn_matmul.forward
    )
    return y_TD, (rows, checkpoint_name(pre_MF, "moe_hidden"))


def _backward(residuals: tuple, dy_TD: ActivationsTD) -> tuple[SortedTokens]:
    rows, pre_MF = residuals
    dx_TD, d_weight_M, d_wi, d_wo = jax.lax.platform_dependent(
        rows, pre_MF, dy_TD, cpu=grouped_ffn_loop.backward, default=grouped_ffn_matmul.backward
    )
    experts = dataclasses.replace(rows.experts, wi_EDF=d_wi, wo_EDF=d_wo)
    return (
        dataclasses.replace(
            rows, x_TD=dx_TD, token_M=None, weight_M=d_weight_M, count_E=None, experts=experts
        ),
    )


grouped_ffn.defvjp(_forward, _backward)
