"""Token-expert pairs, and tokens sorted by expert: the inputs of grouped dispatch."""

import dataclasses

import jax
import jax.numpy as jnp

from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.routing.assignment import Pairs
from moe_jax.routing.position_in_expert import sort_by_expert
from moe_jax.types import ActivationsTD, CountE, IndexM, WeightEDF, WeightM


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SortedTokens:
    """Token-expert rows sorted by expert; a row is one token for one expert.

    Attributes:
        x_TD: tokens.
        token_M: token of each row, int32.
        weight_M: combine weight of each row, float32.
        count_E: number of rows of each expert, int32; rows after those of the last expert have no
            expert, and weight 0.
        experts: networks of the experts.
        uniform: true if every expert has M / E rows (static).
    """

    x_TD: ActivationsTD
    token_M: IndexM
    weight_M: WeightM
    count_E: CountE
    experts: ExpertNetwork
    uniform: bool = dataclasses.field(metadata={"static": True})


@dataclasses.dataclass(frozen=True)
class TokenExpertPairs:
    """An assignment as a flat list of (token, expert, weight), in any order and without pools.

    Attributes:
        token_M: index of the token, int32.
        expert_M: index of the expert, int32; E for entries without an expert.
        weight_M: combine weight, float32; 0 for entries without an expert.
        num_experts: number of experts, E.
    """

    token_M: IndexM
    expert_M: IndexM
    weight_M: WeightM
    num_experts: int

    @classmethod
    def of_pairs(cls, pairs: Pairs) -> "TokenExpertPairs":
        """Lists the chosen pairs; token indices run over all pools."""
        choices = pairs.expert_index_PNK.shape[-1]
        expert_M = jnp.where(pairs.chosen_PNK, pairs.expert_index_PNK, pairs.num_experts).reshape(
            -1
        )
        token_M = jnp.arange(expert_M.shape[0], dtype=jnp.int32) // choices
        return cls(token_M, expert_M, pairs.weight_PNK.reshape(-1), pairs.num_experts)


def sorted_by_expert(pairs: TokenExpertPairs) -> TokenExpertPairs:
    """Sorts the entries by expert, those without one last."""
    expert_M, order_M = sort_by_expert(pairs.expert_M, pairs.num_experts)
    weight_M = jnp.where(expert_M < pairs.num_experts, pairs.weight_M[order_M], 0.0)
    return TokenExpertPairs(pairs.token_M[order_M], expert_M, weight_M, pairs.num_experts)


# With respect to x, weight, wi and wo.
Gradients = tuple[ActivationsTD, WeightM, WeightEDF, WeightEDF]
