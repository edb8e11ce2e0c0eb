"""Expert threshold routing: the causal form of expert choice, and a router by itself.

Expert choice takes the k best tokens of a pool for each expert, so that the routing of a token
depends on all others, later ones included. If the score of the k-th token is known in advance,
taking every token that reaches it makes the same choice from the token alone, causally and
independently of the rest of the batch. The threshold is an exponential moving average of the k-th
score over training steps. Source: Expert Threshold routing, arXiv 2603.11535, algorithm 1
(c_i <- beta c_i + (1 - beta) * k-th largest score); here with the softmax probabilities of expert
choice, so that both routers have the same scores and combine weights. In the paper the first 4,000
steps of training use the top k of expert choice, until the thresholds have converged.
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.routing.assignment import Pairs, RouterOutput, RouterScores
from moe_jax.routing.capacity import expert_choice_capacity, filled_capacity
from moe_jax.routing.losses import router_z_loss
from moe_jax.routing.metrics import health
from moe_jax.routing.pools import Pool
from moe_jax.routing.router import Description, Router, RouterState
from moe_jax.settings import Count, Decay, Positive
from moe_jax.types import CountP, MaskPNE, ScoresPE, WeightPEC


def moving_average(
    average: jax.Array, value: jax.Array, decay: float, step: jax.Array
) -> jax.Array:
    """Returns the moving average after step `step` (the first is 0).

    The decay is min(decay, (1 + step) / (10 + step)): small at first, so that the average follows
    the router while it changes fast and soon forgets its initial value.
    """
    step = step.astype(jnp.float32)
    weight = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return weight * average + (1.0 - weight) * value


def last_filled(value_PEC: WeightPEC, fill_P: CountP) -> ScoresPE:
    """Returns the values in the last filled slots, [P, E]; in the first slots if none is filled."""
    last_PE1 = jnp.broadcast_to(
        jnp.maximum(fill_P - 1, 0)[:, None, None], (*value_PEC.shape[:2], 1)
    )
    return jnp.take_along_axis(value_PEC, last_PE1, axis=-1)[..., 0]


def kth_score_statistics(kth_PE: ScoresPE, fill_P: CountP) -> dict[str, jax.Array]:
    """Returns the sum of the experts' k-th scores over pools, and the number of pools.

    Pools without real tokens do not count. Sum and count are returned separately, so that their
    quotient is still correct after both are averaged over micro-batches and devices.
    """
    real_P = (fill_P > 0).astype(jnp.float32)
    return {"kth_score_sum": (kth_PE * real_P[:, None]).sum(0), "pools": real_P.sum()}


def move_thresholds(
    threshold: jax.Array, statistics: dict[str, jax.Array], decay: float, step: jax.Array
) -> jax.Array:
    """Moves thresholds towards the mean of the step's k-th scores, if there are any."""
    pools = statistics["pools"][..., None]
    kth_score = statistics["kth_score_sum"] / jnp.where(pools > 0, pools, 1.0)
    return jnp.where(pools > 0, moving_average(threshold, kth_score, decay, step), threshold)


def pairs_of_chosen(chosen_PNE: MaskPNE, scores: RouterScores) -> Pairs:
    """Returns the assignment of each token to any of the experts, weighted by probability."""
    p_PNE = scores.probabilities_PNE
    expert_E = jnp.arange(p_PNE.shape[-1], dtype=jnp.int32)
    return Pairs(
        expert_index_PNK=jnp.broadcast_to(expert_E, p_PNE.shape),
        weight_PNK=jnp.where(chosen_PNE, p_PNE, 0.0),
        chosen_PNK=chosen_PNE,
        num_experts=p_PNE.shape[-1],
    )


@configurable
@dataclasses.dataclass(frozen=True)
class ExpertThreshold(Router):
    """Routes a token to every expert whose threshold its probability reaches.

    A token may have any number of experts, including none. There is no capacity and no token is
    dropped; the load is balanced only as far as the thresholds are accurate.

    Attributes:
        pool: the groups of tokens whose k-th scores the thresholds follow; the choice depends on
            it only during warm-up.
        capacity_factor: c; thresholds follow the k-th scores for k = N c / E.
        threshold_decay: decay of the moving average.
        warmup_steps: number of initial steps in which experts take the k best tokens of the pool;
            0 for none (4,000 in the paper).
    """

    pool: Pool = dataclasses.field(default_factory=Pool)
    capacity_factor: Positive = 2.0
    threshold_decay: Decay = 0.999
    warmup_steps: Count = 4000

    name = "expert_threshold"
    loss_weights = {"router_z": 0.0}
    description = Description(
        "every expert with p >= its threshold, the moving average of its k-th best score; weight p",
        source="arXiv 2603.11535, algorithm 1",
        balanced="as far as thresholds are right",
    )

    @property
    def is_causal(self) -> bool:
        """True unless there is a warm-up with pools that contain later positions."""
        return self.warmup_steps == 0 or self.pool.kind == "position"

    @property
    def experts_per_token(self) -> float:
        """The capacity factor that the thresholds correspond to."""
        return self.capacity_factor

    def check(self, batch: int, length: int, experts: int) -> None:
        """Checks that the capacity is at least one slot; otherwise there is no k-th score."""
        super().check(batch, length, experts)
        _, tokens = self.pool.shape(batch, length)
        try:
            expert_choice_capacity(tokens, self.capacity_factor, experts)
        except UserError as error:
            raise UserError(f"expert threshold, {self.pool.kind} pool: {error}") from None

    def init_state(self, experts: int) -> RouterState:
        """Returns thresholds of 1 / E, the probabilities of a uniform router."""
        state = {"threshold": jnp.full((experts,), 1.0 / experts, jnp.float32)}
        if self.warmup_steps:
            state["steps"] = jnp.zeros((), jnp.float32)
        return state

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Chooses by `probability >= threshold`; the weight is the probability itself."""
        p_PNE = scores.probabilities_PNE
        threshold_P1E = state["threshold"][None, None]
        statistics = {}
        if scores.key is not None:
            kth_PE, fill_P = self._kth_scores(scores)
            statistics = kth_score_statistics(kth_PE, fill_P)
            if self.warmup_steps:
                warming = state["steps"] < self.warmup_steps
                threshold_P1E = jnp.where(warming, kth_PE[:, None], threshold_P1E)
        chosen_PNE = (p_PNE >= threshold_P1E) & scores.mask_PN[..., None]
        pairs = pairs_of_chosen(chosen_PNE, scores)
        return RouterOutput(
            assignment=pairs,
            losses={"router_z": router_z_loss(scores)},
            metrics=health(pairs, scores),
            statistics=statistics,
        )

    def _kth_scores(self, scores: RouterScores) -> tuple[ScoresPE, CountP]:
        """Returns the k-th largest score of each expert in each pool, and k of each pool."""
        p_PEN = jax.lax.stop_gradient(scores.probabilities_PNE).swapaxes(1, 2)
        p_PEN = jnp.where(scores.mask_PN[:, None, :], p_PEN, -1.0)
        num_experts, tokens = p_PEN.shape[1:]
        capacity = expert_choice_capacity(tokens, self.capacity_factor, num_experts)
        best_PEC = jax.lax.top_k(p_PEN, capacity)[0]
        real_P = scores.mask_PN.sum(-1, dtype=jnp.int32)
        fill_P = filled_capacity(real_P, self.capacity_factor, num_experts, capacity)
        return last_filled(best_PEC, fill_P), fill_P

    def update_state(
        self, state: RouterState, statistics: dict[str, jax.Array], step: jax.Array
    ) -> RouterState:
        """Moves the thresholds towards the step's k-th scores."""
        threshold = move_thresholds(state["threshold"], statistics, self.threshold_decay, step)
        new = {"threshold": threshold}
        if self.warmup_steps:
            new["steps"] = state["steps"] + 1.0
        return new

    def causal(self) -> "ExpertThreshold":
        """Returns the router without warm-up; itself, if it has none."""
        return dataclasses.replace(self, warmup_steps=0) if self.warmup_steps else self
