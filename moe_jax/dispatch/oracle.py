"""The one-hot oracle: a simple, slow reference implementation of dispatch.

It follows the equations of Zhou et al. 2022 (eq. 2 to 4) and is the reference in the tests of every
other dispatch. Memory grows with tokens x experts x capacity: it is not for training.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from moe_jax.routing.assignment import Assignment, Pairs, Slots
from moe_jax.types import ActivationsPND, RowsERD


def oracle(
    assignment: Assignment, x_PND: ActivationsPND, expert_fn: Callable[[RowsERD], RowsERD]
) -> ActivationsPND:
    """Dispatches and combines by one-hot matrix products (see `moe_jax.dispatch`)."""
    if isinstance(assignment, Slots):
        return _slots(assignment, x_PND, expert_fn)
    return _every_expert(assignment, x_PND, expert_fn)


def _slots(
    slots: Slots, x_PND: ActivationsPND, expert_fn: Callable[[RowsERD], RowsERD]
) -> ActivationsPND:
    """X_in = P X; X_e = expert(X_in); X_out = sum over e, c of P G X_e."""
    pools, num_experts, capacity = slots.token_index_PEC.shape
    _, tokens, width = x_PND.shape
    p_PECN = jax.nn.one_hot(slots.token_index_PEC, tokens, dtype=x_PND.dtype)
    p_PECN = p_PECN * slots.filled_PEC[..., None]
    in_EPCD = jnp.einsum("pecn,pnd->epcd", p_PECN, x_PND)
    out_ERD = expert_fn(in_EPCD.reshape(num_experts, pools * capacity, width))
    out_EPCD = out_ERD.reshape(num_experts, pools, capacity, width)
    weight_PEC = slots.weight_PEC.astype(x_PND.dtype)
    return jnp.einsum("pecn,pec,epcd->pnd", p_PECN, weight_PEC, out_EPCD)


def _every_expert(
    pairs: Pairs, x_PND: ActivationsPND, expert_fn: Callable[[RowsERD], RowsERD]
) -> ActivationsPND:
    """Applies every expert to every token; weights of 0 remove those that were not chosen."""
    pools, tokens, width = x_PND.shape
    rows_RD = x_PND.reshape(pools * tokens, width)
    in_ERD = jnp.broadcast_to(rows_RD, (pairs.num_experts, *rows_RD.shape))
    out_EPND = expert_fn(in_ERD).reshape(pairs.num_experts, pools, tokens, width)
    return jnp.einsum("pne,epnd->pnd", pairs.dense_weight_PNE().astype(x_PND.dtype), out_EPND)
