"""Expert threshold routing: what expert choice decodes and evaluates with.

Expert choice takes each expert's k best tokens of a pool, so a token's fate depends on the
others, the future included. If the score of the k-th token is known in advance, taking every
token that reaches it makes the same choice from the token alone: causal, and independent of the
rest of the batch. The known score is an exponential moving average over training steps.
Source: Expert Threshold routing, arXiv 2603.11535, algorithm 1 (c_i <- beta c_i +
(1 - beta) * k-th largest score); here on the softmax probabilities that expert choice uses, so
that both share the scores and the combine weights.
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError
from moe_jax.routing.assignment import Pairs, RouterOutput, RouterScores
from moe_jax.routing.losses import router_z_loss
from moe_jax.routing.metrics import health
from moe_jax.routing.pools import Pool
from moe_jax.routing.router import RouterState


def moving_average(
    average: jax.Array, value: jax.Array, decay: float, step: jax.Array
) -> jax.Array:
    """Returns the moving average after step `step`, which counts from 0.

    The decay is min(decay, (1 + step) / (10 + step)): short-sighted at first, so that the
    average follows a router that still moves fast and never leans on its initial value.
    """
    step = step.astype(jnp.float32)
    weight = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return weight * average + (1.0 - weight) * value


@dataclasses.dataclass(frozen=True)
class ExpertThreshold:
    """Takes a token to every expert whose threshold its probability reaches.

    A token may go to any number of experts, none included. There is no capacity and no token is
    dropped; how many tokens an expert gets is balanced only as far as the thresholds are right.

    Attributes:
        pool: only how the tokens are laid out; the choice does not depend on it.
        experts_per_token: the capacity factor that the thresholds were collected for.
    """

    pool: Pool = dataclasses.field(default_factory=Pool)
    experts_per_token: float = 2.0

    name = "expert_threshold"
    is_causal = True

    def check(self, batch: int, length: int, experts: int) -> None:
        """Checks the pool's shape and that there are experts at all."""
        self.pool.shape(batch, length)
        if experts < 1:
            raise UserError(f"a mixture-of-experts layer needs at least 1 expert, not {experts}")

    def init_state(self, experts: int) -> RouterState:
        """Returns thresholds of 1 / E: the probabilities of a router that knows nothing."""
        return {"threshold": jnp.full((experts,), 1.0 / experts, jnp.float32)}

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Chooses by `probability >= threshold`; the weight is the probability itself."""
        p_PNE = scores.probabilities_PNE
        chosen_PNE = (p_PNE >= state["threshold"]) & scores.mask_PN[..., None]
        experts = jnp.arange(p_PNE.shape[-1], dtype=jnp.int32)
        pairs = Pairs(
            expert_index_PNK=jnp.broadcast_to(experts, p_PNE.shape),
            weight_PNK=jnp.where(chosen_PNE, p_PNE, 0.0),
            chosen_PNK=chosen_PNE,
            experts=p_PNE.shape[-1],
        )
        return RouterOutput(
            assignment=pairs,
            losses={"router_z": router_z_loss(scores)},
            metrics=health(pairs, scores),
            statistics={},
        )

    def update_state(
        self, state: RouterState, statistics: dict[str, jax.Array], step: jax.Array
    ) -> RouterState:
        """Returns the state as it is: thresholds come from the router that was trained."""
        del statistics, step
        return state

    def causal(self) -> "ExpertThreshold":
        """Returns itself."""
        return self
