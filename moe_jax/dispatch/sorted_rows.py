"""Rows of tokens sorted by the expert that works on them: what grouped dispatch runs on."""

import dataclasses

import jax
import jax.numpy as jnp

from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.routing.assignment import Pairs
from moe_jax.routing.ranks import sort_by_expert


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


@dataclasses.dataclass(frozen=True)
class WorkList:
    """(token, expert, weight) in any order: what is left of an assignment once pools do not matter.

    Attributes:
        token_M: index of the token, int32.
        expert_M: its expert, int32; E for entries that are nobody's.
        weight_M: combine weight, float32; 0 where nobody's.
        experts: E.
    """

    token_M: jax.Array
    expert_M: jax.Array
    weight_M: jax.Array
    experts: int

    @classmethod
    def of_pairs(cls, pairs: Pairs) -> "WorkList":
        """Lists the chosen pairs; tokens are counted through all pools."""
        choices = pairs.expert_index_PNK.shape[-1]
        expert_M = jnp.where(pairs.chosen_PNK, pairs.expert_index_PNK, pairs.experts).reshape(-1)
        token_M = jnp.arange(expert_M.shape[0], dtype=jnp.int32) // choices
        return cls(token_M, expert_M, pairs.weight_PNK.reshape(-1), pairs.experts)


def sorted_by_expert(work: WorkList) -> WorkList:
    """Sorts the entries by expert, nobody's last."""
    expert_M, order_M = sort_by_expert(work.expert_M, work.experts)
    weight_M = jnp.where(expert_M < work.experts, work.weight_M[order_M], 0.0)
    return WorkList(work.token_M[order_M], expert_M, weight_M, work.experts)


# With respect to x, weight, wi and wo.
Gradients = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
