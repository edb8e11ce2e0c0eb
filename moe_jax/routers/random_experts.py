"""Random routing: k random experts for every token (Zuo et al. 2021, section 3)."""

import dataclasses

import jax

from moe_jax.registration import configurable
from moe_jax.routers.unlearned import FixedNumberOfExperts, random_numbers
from moe_jax.routing.assignment import RouterOutput, RouterScores
from moe_jax.routing.router import Description, RouterState


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomExperts(FixedNumberOfExperts):
    """Random routing: k distinct experts for every token, drawn anew in every step.

    Attributes:
        k: experts per token.
    """

    name = "random"
    description = Description(
        "k at random; weight 1 / k", source="Zuo et al. 2021, section 3", balanced="on average"
    )

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Draws a random number for every expert and takes the k largest."""
        del state
        num_experts = scores.logits_PNE.shape[-1]
        number_PNE = random_numbers(scores, scores.logits_PNE.shape)
        return self._output(jax.lax.top_k(number_PNE, min(self.k, num_experts))[1], scores)
