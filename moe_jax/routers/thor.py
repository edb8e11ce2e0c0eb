"""THOR: stochastic experts with consistency regularisation (Zuo et al. 2021, section 4)."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.routers.unlearned import UnlearnedRouter, random_numbers
from moe_jax.routing.assignment import RouterOutput, RouterScores
from moe_jax.routing.pools import Pool
from moe_jax.routing.router import Description, RouterState
from moe_jax.settings import rule

# The unit of tokens that share one random expert in training.
DrawnPer = Literal["layer", "sequence", "token"]


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Thor(UnlearnedRouter):
    """Stochastic experts: one random expert in each of two passes with a consistency loss.

    The loss of a step is CE(pass 1) + CE(pass 2) + alpha (KL(p1 || p2) + KL(p2 || p1)) / 2, with
    alpha = `Loss.weights['consistency']` (Zuo et al. 2021, eq. 4 and 5).

    Attributes:
        drawn_per: in training, draw one expert for all tokens of a `layer`, of a `sequence`, or
            for each `token`.
    """

    drawn_per: DrawnPer = "layer"

    name = "thor"
    loss_weights = {"consistency": 1.0}
    description = Description(
        "one at random for a layer and pass; two passes, whose predictions must agree; weight 1",
        source="Zuo et al. 2021, eq. 4-5",
        balanced="over many steps",
    )
    experts_per_token = 1.0
    passes = 2

    @staticmethod
    @rule
    def _sequences_are_pools(drawn_per: DrawnPer, pool: Pool) -> None:
        if drawn_per == "sequence" and pool.kind != "sequence":
            raise UserError(
                "Thor.drawn_per = 'sequence' needs a sequence pool: Pool.kind = 'sequence'"
            )

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Draws random experts; outside of training, one for each token."""
        del state
        pools, tokens, num_experts = scores.logits_PNE.shape
        if scores.key is not None and self.drawn_per == "layer":
            number_PN = jax.random.uniform(scores.key, (1, 1))
        else:
            draws = 1 if scores.key is not None and self.drawn_per == "sequence" else tokens
            number_PN = random_numbers(scores, (pools, draws, 1))[..., 0]
        expert_PN = jnp.minimum((number_PN * num_experts).astype(jnp.int32), num_experts - 1)
        return self._output(jnp.broadcast_to(expert_PN, (pools, tokens))[..., None], scores)
