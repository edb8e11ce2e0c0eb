"""The contract between routing and dispatch: who goes where, with which weight.

Two layouts with one meaning. `Slots` is the natural form where experts choose (a static number
of slots per expert); `Pairs` is the natural form where tokens choose (a static number of choices
per token, no capacity). Every transport in `moe_jax.dispatch` takes both.
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe_jax.types import (
    IndexPEC,
    IndexPNK,
    MaskPEC,
    MaskPN,
    MaskPNK,
    ScoresPNE,
    WeightPEC,
    WeightPNK,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RouterScores:
    """What a router decides on, always float32.

    Attributes:
        logits_PNE: the router's raw outputs.
        probabilities_PNE: their softmax over the experts.
        mask_PN: true for real tokens; padding is never routed.
    """

    logits_PNE: ScoresPNE
    probabilities_PNE: ScoresPNE
    mask_PN: MaskPN


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """An assignment as seen by the experts: each has C slots in each pool.

    Attributes:
        token_index_PEC: the token in the slot; 0 in an empty slot.
        weight_PEC: the combine weight, float32; 0 in an empty slot.
        filled_PEC: false for an empty slot.
    """

    token_index_PEC: IndexPEC
    weight_PEC: WeightPEC
    filled_PEC: MaskPEC


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pairs:
    """An assignment as seen by the tokens: each has K choices, without a capacity.

    Attributes:
        expert_index_PNK: the expert of the choice; distinct for the chosen ones of a token.
        weight_PNK: the combine weight, float32; 0 where not chosen.
        chosen_PNK: false for a choice that is not made.
        experts: E, the number of experts (static).
    """

    expert_index_PNK: IndexPNK
    weight_PNK: WeightPNK
    chosen_PNK: MaskPNK
    experts: int = dataclasses.field(metadata={"static": True})

    def dense_weight_PNE(self) -> ScoresPNE:
        """Returns the combine weight of every token for every expert, 0 where not chosen."""
        one_hot_PNKE = jax.nn.one_hot(self.expert_index_PNK, self.experts)
        return jnp.einsum(
            "pnk,pnke->pne", self.weight_PNK, one_hot_PNKE * self.chosen_PNK[..., None]
        )


Assignment = Slots | Pairs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RouterOutput:
    """What a router returns: nothing is left behind as a side effect.

    Attributes:
        assignment: who goes where.
        losses: unscaled auxiliary losses by name, scalars.
        metrics: health of the routing by name, scalars or vectors (`moe_jax.routing.metrics`).
        statistics: what the router's state is updated from after the step
            (`Router.update_state`), averaged over micro-batches and devices.
    """

    assignment: Assignment
    losses: dict[str, jax.Array]
    metrics: dict[str, jax.Array]
    statistics: dict[str, jax.Array]
