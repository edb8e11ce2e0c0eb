"""Expert threshold routing: what expert choice decodes and evaluates with, and a router of its own.

Expert choice takes each expert's k best tokens of a pool, so a token's fate depends on the
others, the future included. If the score of the k-th token is known in advance, taking every
token that reaches it makes the same choice from the token alone: causal, and independent of the
rest of the batch. The known score is an exponential moving average over training steps.
Source: Expert Threshold routing, arXiv 2603.11535, algorithm 1 (c_i <- beta c_i +
(1 - beta) * k-th largest score); here on the softmax probabilities that expert choice uses, so
that both share the scores and the combine weights. The paper trains its first 4,000 steps with
expert choice's own top k, while thresholds settle.
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
from moe_jax.types import CountP, ScoresPE, WeightPEC


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


def last_filled(value_PEC: WeightPEC, fill_P: CountP) -> ScoresPE:
    """Returns the values in the last of the filled slots, [P, E]; the first if none is."""
    last_PE1 = jnp.broadcast_to(
        jnp.maximum(fill_P - 1, 0)[:, None, None], (*value_PEC.shape[:2], 1)
    )
    return jnp.take_along_axis(value_PEC, last_PE1, axis=-1)[..., 0]


def kth_score_statistics(kth_PE: ScoresPE, fill_P: CountP) -> dict[str, jax.Array]:
    """Returns the experts' k-th scores summed over pools, and the number of pools.

    Pools without a real token do not count. Sum and count are kept apart so that their averages
    over micro-batches and devices still have the right quotient.
    """
    real_P = (fill_P > 0).astype(jnp.float32)
    return {"kth_score_sum": (kth_PE * real_P[:, None]).sum(0), "pools": real_P.sum()}


def move_thresholds(
    threshold: jax.Array, statistics: dict[str, jax.Array], decay: float, step: jax.Array
) -> jax.Array:
    """Returns thresholds moved towards the mean of the step's k-th scores, if there were any."""
    pools = statistics["pools"][..., None]
    kth_score = statistics["kth_score_sum"] / jnp.where(pools > 0, pools, 1.0)
    return jnp.where(pools > 0, moving_average(threshold, kth_score, decay, step), threshold)


@configurable
@dataclasses.dataclass(frozen=True)
class ExpertThreshold(Router):
    """Takes a token to every expert whose threshold its probability reaches.

    A token may go to any number of experts, none included. There is no capacity and no token is
    dropped; how many tokens an expert gets is balanced only as far as the thresholds are right.

    Attributes:
        pool: the tokens whose k-th score the thresholds follow; the choice does not depend on
            it, except in the warm-up.
        capacity_factor: c; thresholds follow the k-th scores for k = N c / E.
        threshold_decay: of the moving average.
        warmup_steps: first steps, in which experts take their k best tokens of the pool; 0 for none
            (the paper has 4,000).
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
        """Unless there is a warm-up with pools that hold later positions."""
        return self.warmup_steps == 0 or self.pool.kind == "position"

    @property
    def experts_per_token(self) -> float:
        """The capacity factor that the thresholds are collected for."""
        return self.capacity_factor

    def check(self, batch: int, length: int, experts: int) -> None:
        """Refuses a capacity of zero slots: there would be no k-th score."""
        super().check(batch, length, experts)
        _, tokens = self.pool.shape(batch, length)
        try:
            expert_choice_capacity(tokens, self.capacity_factor, experts)
        except UserError as error:
            raise UserError(f"expert threshold, {self.pool.kind} pool: {error}") from None

    def init_state(self, experts: int) -> RouterState:
        """Returns thresholds of 1 / E, the probabilities of a router that knows nothing."""
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
        experts = jnp.arange(p_PNE.shape[-1], dtype=jnp.int32)
        pairs = Pairs(
            expert_index_PNK=jnp.broadcast_to(experts, p_PNE.shape),
            weight_PNK=jnp.where(chosen_PNE, p_PNE, 0.0),
            chosen_PNK=chosen_PNE,
            num_experts=p_PNE.shape[-1],
        )
        return RouterOutput(
            assignment=pairs,
            losses={"router_z": router_z_loss(scores)},
            metrics=health(pairs, scores),
            statistics=statistics,
        )

    def _kth_scores(self, scores: RouterScores) -> tuple[ScoresPE, CountP]:
        """Returns each expert's k-th largest score in each pool, and k of each pool."""
        p_PEN = jax.lax.stop_gradient(scores.probabilities_PNE).swapaxes(1, 2)
        p_PEN = jnp.where(scores.mask_PN[:, None, :], p_PEN, -1.0)
        experts, tokens = p_PEN.shape[1:]
        capacity = expert_choice_capacity(tokens, self.capacity_factor, experts)
        best_PEC = jax.lax.top_k(p_PEN, capacity)[0]
        real_P = scores.mask_PN.sum(-1, dtype=jnp.int32)
        fill_P = filled_capacity(real_P, self.capacity_factor, experts, capacity)
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
        """Returns the router after its warm-up: itself, if there is none."""
        return dataclasses.replace(self, warmup_steps=0) if self.warmup_steps else self
