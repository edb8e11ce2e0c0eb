"""Expert choice routing: experts choose tokens (Zhou et al., NeurIPS 2022).

In a pool of N tokens each of E experts takes its k = N * c / E highest-scoring tokens:

    S = softmax(X W_g) over experts,   G, I = TopK(S^T, k),   weight = G (raw probabilities)

(section 3.2, eq. 1 and 2). Every expert processes exactly k tokens; a token has c experts on
average, and from 0 to E of them. There is no auxiliary loss. The choice depends on the whole pool:
pools with later positions of a row (`sequence`, `batch`) leak information about the future, and the
model learns to use it (section 6 of the paper). A `position` pool holds one position of many rows
and does not. The k-th scores are returned as statistics from the first step on; their moving
averages are the router state, which `ExpertThreshold` uses in evaluation and decoding.
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.routers.expert_threshold import (
    ExpertThreshold,
    kth_score_statistics,
    last_filled,
    move_thresholds,
)
from moe_jax.routing.assignment import RouterOutput, RouterScores, Slots
from moe_jax.routing.capacity import expert_choice_capacity, filled_capacity
from moe_jax.routing.losses import router_z_loss
from moe_jax.routing.metrics import health
from moe_jax.routing.pools import Pool
from moe_jax.routing.router import Description, Router, RouterState
from moe_jax.settings import Decay, Positive
from moe_jax.types import CountP, IndexPEC, ScoresPEN, ScoresPNE, WeightPEC


@configurable
@dataclasses.dataclass(frozen=True)
class ExpertChoice(Router):
    """Expert choice with capacity factor c.

    Attributes:
        capacity_factor: c, the mean number of experts per token (the paper's default is 2).
        pool: the groups of tokens that compete for the experts.
        threshold_decay: decay of the moving average of the k-th scores.
    """

    capacity_factor: Positive = 2.0
    pool: Pool = dataclasses.field(default_factory=Pool)
    threshold_decay: Decay = 0.999

    name = "expert_choice"
    loss_weights = {"router_z": 0.0}
    description = Description(
        "each expert takes its k = N c / E best tokens; weight p",
        source="Zhou et al. 2022, eq. 1-4",
        balanced="always, by construction",
    )

    @property
    def is_causal(self) -> bool:
        """True for position pools only: others contain later positions of the same row."""
        return self.pool.kind == "position"

    @property
    def experts_per_token(self) -> float:
        """The capacity factor."""
        return self.capacity_factor

    @property
    def slots_per_token(self) -> float:
        """The capacity factor: every slot is computed."""
        return self.capacity_factor

    def check(self, batch: int, length: int, experts: int) -> None:
        """Checks that the capacity is at least one slot, and at most the tokens in a pool."""
        _, tokens = self.pool.shape(batch, length)
        try:
            expert_choice_capacity(tokens, self.capacity_factor, experts)
        except UserError as error:
            hint = ""
            if self.pool.kind == "position":
                hint = " (a position pool has one token of each row: the batch decides)"
            raise UserError(f"expert choice, {self.pool.kind} pool: {error}{hint}") from None

    def init_state(self, experts: int) -> RouterState:
        """Returns the thresholds of `ExpertThreshold`."""
        return ExpertThreshold(self.pool, warmup_steps=0).init_state(experts)

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Assigns to each expert its k highest-scoring real tokens of each pool."""
        del state
        _, tokens, num_experts = scores.probabilities_PNE.shape
        capacity = expert_choice_capacity(tokens, self.capacity_factor, num_experts)
        real_P = scores.mask_PN.sum(-1, dtype=jnp.int32)
        fill_P = self._slots_to_fill(real_P, num_experts, capacity)
        eligible_PEN, metrics = self._eligible(scores, fill_P)
        slots, statistics = _choose(scores.probabilities_PNE, eligible_PEN, fill_P, capacity)
        return RouterOutput(
            assignment=slots,
            losses={"router_z": router_z_loss(scores)},
            metrics=health(slots, scores) | metrics,
            statistics=jax.lax.stop_gradient(statistics),
        )

    def _slots_to_fill(self, real_P: CountP, experts: int, capacity: int) -> CountP:
        """Returns the number of slots to fill in each pool, k [P], from its real tokens."""
        return filled_capacity(real_P, self.capacity_factor, experts, capacity)

    def _eligible(
        self, scores: RouterScores, fill_P: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns a mask of the tokens that each expert may choose, and additional metrics.

        The mask has at least k real tokens for each expert, no padding, and a shape that
        broadcasts to [P, E, N].
        """
        del fill_P
        return scores.mask_PN[:, None, :], {}

    def update_state(
        self, state: RouterState, statistics: dict[str, jax.Array], step: jax.Array
    ) -> RouterState:
        """Moves the thresholds towards the mean of the step's k-th scores, if there are any."""
        threshold = move_thresholds(state["threshold"], statistics, self.threshold_decay, step)
        return {"threshold": threshold}

    def causal(self) -> ExpertThreshold:
        """Returns the threshold router; even position pools depend on the rest of the batch."""
        return ExpertThreshold(self.pool, self.capacity_factor, warmup_steps=0)


def _choose(
    probability_PNE: ScoresPNE, eligible_PEN: jax.Array, fill_P: CountP, capacity: int
) -> tuple[Slots, dict[str, jax.Array]]:
    """Fills the first k slots of each expert with its k best eligible tokens."""
    # Tokens that are not eligible sort last and are never chosen.
    score_PEN = jnp.where(eligible_PEN, probability_PNE.swapaxes(1, 2), -1.0)
    weight_PEC, index_PEC = _top_k(score_PEN, capacity)
    filled_PEC = jnp.arange(capacity) < fill_P[:, None, None]
    filled_PEC = jnp.broadcast_to(filled_PEC, index_PEC.shape)
    slots = Slots(
        token_index_PEC=jnp.where(filled_PEC, index_PEC, 0),
        weight_PEC=jnp.where(filled_PEC, weight_PEC, 0.0),
        filled_PEC=filled_PEC,
    )
    return slots, kth_score_statistics(last_filled(weight_PEC, fill_P), fill_P)


def _top_k(score_PEN: ScoresPEN, k: int) -> tuple[WeightPEC, IndexPEC]:
    """Returns the k largest scores and their token indices, differentiable in the scores."""
    _, index_PEC = jax.lax.top_k(jax.lax.stop_gradient(score_PEN), k)
    return jnp.take_along_axis(score_PEN, index_PEC, axis=-1), index_PEC
