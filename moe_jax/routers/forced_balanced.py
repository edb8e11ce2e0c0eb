"""Forced balance: experts are assigned round-robin, for benchmarks without load imbalance."""

import dataclasses

import jax.numpy as jnp

from moe_jax.registration import configurable
from moe_jax.routers.unlearned import FixedNumberOfExperts
from moe_jax.routing.assignment import RouterOutput, RouterScores
from moe_jax.routing.router import Description, RouterState


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ForcedBalanced(FixedNumberOfExperts):
    """Round-robin: token n of the batch takes experts n k, ..., n k + k - 1, modulo E.

    Attributes:
        k: experts per token.
    """

    name = "forced_balanced"
    description = Description(
        "token n takes n k, ... (mod E); weight 1 / k", source="-", balanced="exactly"
    )

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Assigns experts by index in training, and otherwise by position in the document."""
        del state
        pools, tokens, num_experts = scores.logits_PNE.shape
        place_PN = scores.positions_PN
        if scores.key is not None or place_PN is None:
            place_PN = jnp.arange(pools * tokens, dtype=jnp.int32).reshape(pools, tokens)
            place_PN += scores.first_pool * tokens
        expert_PNK = (place_PN[..., None] * self.k + jnp.arange(self.k)) % num_experts
        return self._output(expert_PNK, scores)
