"""Rows of tokens sorted by the expert that works on them: what grouped dispatch runs on."""

import dataclasses

import jax

from moe_jax.dispatch.network import ExpertNetwork


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SortedRows:
    """Which tokens meet which experts, rows sorted by expert.

    Attributes:
        x_TD: tokens.
        token_M: token of each row, int32.
        weight_M: combine weight of each row, float32.
        count_E: rows of each expert, int32; rows after the last expert's are nobody's, and
            their weight is 0.
        experts: what they compute.
        uniform: every expert has M / E rows (static).
    """

    x_TD: jax.Array
    token_M: jax.Array
    weight_M: jax.Array
    count_E: jax.Array
    experts: ExpertNetwork
    uniform: bool = dataclasses.field(metadata={"static": True})


# With respect to x, weight, wi and wo.
Gradients = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
