"""Token choice: every token takes its k best experts (Switch, GShard, GLaM, and their successors).

    s = scores(x W_g);  chosen = the k largest s + b;  weight = s, or s / (sum of the chosen s)

Without a capacity no choice is ever dropped, and the router is causal. With capacity factor CF an
expert has C = floor(N K CF / E) slots in a pool of N tokens, assigned in a configurable order
(`moe_jax.routing.position_in_expert`). Choices beyond the capacity are dropped; their token gets
the output of its other experts, or only the residual. Padding makes no choices. It does not count
in C, except with `left_to_right`, where C must not reveal the number of later real tokens.

`Switch`, `GShardTop2` and `GLaMTop2` are token choice with the settings of their papers.

Sources: Fedus et al. 2021 (Switch; C = tokens / E x CF, jitter on the router's input); Lepikhin
et al. 2020 (GShard, algorithm 1; C = 2 N / E); Du et al. 2022 (GLaM, as in Praxis with the policy
`all` for second experts); Shazeer et al. 2017.
"""

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.routing import balance
from moe_jax.routing.assignment import Pairs, RouterOutput, RouterScores
from moe_jax.routing.balance import Rule as BalanceRule
from moe_jax.routing.capacity import expert_choice_capacity, filled_capacity
from moe_jax.routing.losses import (
    balance_loss,
    batch_shares,
    importance_loss,
    load_loss,
    router_z_loss,
)
from moe_jax.routing.metrics import health
from moe_jax.routing.pools import Pool
from moe_jax.routing.position_in_expert import Order, positions_in_expert
from moe_jax.routing.router import Description, Router, RouterState
from moe_jax.routing.selection import (
    Score,
    best_groups,
    choice_counts,
    expert_scores,
    scores_of,
    top_experts,
)
from moe_jax.settings import Decay, Name, NonNegative, Positive, PositiveInt, rule
from moe_jax.types import CountP, CountPE, IndexPNK, MaskPNK, ScoresPNE, WeightPNK

SecondChoice = Literal["all", "random"]
BalancedOver = Literal["batch", "pool"]
CapacityFactor = Annotated[Positive | None, "to drop nothing"]


@configurable
@dataclasses.dataclass(frozen=True)
class TokenChoice(Router):
    """Token choice: the k best experts of every token.

    Attributes:
        name: name of the preset, or a custom name.
        k: choices per token.
        score: one of `moe_jax.routing.selection.SCORES`.
        normalise: divide a token's weights by their sum (before any choice is dropped).
        scale: factor on all weights (DeepSeek-V3: 2.5).
        capacity_factor: CF, slots relative to the N K choices; None drops nothing.
        order: order in which slots are assigned; one of
            `moe_jax.routing.position_in_expert.ORDERS`.
        second_choice: `all`, or `random`: in training, use the second expert with probability
            min(1, 2 x its weight) (GShard).
        jitter: in training, the router's input is multiplied by U(1 - jitter, 1 + jitter).
        noise: in training, standard deviation of normal noise on the logits, in units of 1 / E
            (V-MoE: 1).
        groups: number of groups of experts; a token chooses from its `top_groups` best.
        top_groups: number of groups that a token chooses from.
        balance: `none`, `bias` or `quantile` (`moe_jax.routing.balance`).
        bias_rate: u of `bias`.
        balance_over: compute the balance loss over the whole `batch` or separately for each `pool`.
        balance_first_only: count only first choices in the balance loss (GShard).
        pool: the groups of tokens that share the slots; see also `balance_over`.
    """

    name: Name = "topk"
    k: PositiveInt = 2
    score: Score = "softmax"
    normalise: bool = True
    scale: Positive = 1.0
    capacity_factor: CapacityFactor = None
    order: Order = "left_to_right"
    second_choice: SecondChoice = "all"
    jitter: Decay = 0.0
    noise: NonNegative = 0.0
    groups: PositiveInt = 1
    top_groups: PositiveInt = 1
    balance: BalanceRule = "none"
    bias_rate: NonNegative = 1e-3
    balance_over: BalancedOver = "batch"
    balance_first_only: bool = False
    pool: Pool = dataclasses.field(default_factory=lambda: Pool("sequence"))

    loss_weights = {"balance": 0.01, "router_z": 0.0, "importance": 0.005, "load": 0.005}
    description = Description(
        "the k best; weights p / (sum of the chosen p); options: sigmoid scores, raw weights, bias "
        "or quantile balance, groups of experts, capacity, priority",
        source="Shazeer et al. 2017, section 2.1",
        balanced="loss (0.01), bias or quantiles",
    )

    @classmethod
    @rule
    def _weights_have_a_gradient(cls, k: int, normalise: bool) -> None:
        if k == 1 and normalise:
            raise UserError(
                f"{cls.settings_name}.k = 1 with normalise = True makes every weight 1, so that "
                f"the router gets no gradient; set {cls.settings_name}.normalise = False (Switch)"
            )

    @classmethod
    @rule
    def _second_choice_is_of_two(cls, second_choice: SecondChoice, k: int, normalise: bool) -> None:
        if second_choice == "random" and (k != 2 or not normalise):
            raise UserError(
                f"{cls.settings_name}.second_choice = 'random' is GShard's rule for two normalised "
                f"weights; it needs k = 2 and normalise = True, not k = {k}, "
                f"normalise = {normalise}"
            )

    @classmethod
    @rule
    def _groups_are_enough(cls, top_groups: int, groups: int) -> None:
        if top_groups > groups:
            raise UserError(
                f"{cls.settings_name}.top_groups = {top_groups} must be from 1 to "
                f"{cls.settings_name}.groups = {groups}"
            )

    @classmethod
    @rule
    def _quantiles_are_of_bounded_scores(cls, balance: BalanceRule, score: Score) -> None:
        if balance == "quantile" and score == "sqrt_softplus":
            raise UserError(
                f"{cls.settings_name}.balance = 'quantile' needs scores in [0, 1]: softmax or "
                "sigmoid"
            )

    @property
    def is_causal(self) -> bool:
        """True without a capacity, or if no later token can take the slot of an earlier one."""
        return (
            self.capacity_factor is None
            or self.order == "left_to_right"
            or self.pool.kind == "position"
        )

    @property
    def experts_per_token(self) -> float:
        """k, the number of experts per token if no choice is dropped."""
        return float(self.k)

    @property
    def slots_per_token(self) -> float | None:
        """K times the capacity factor: every slot is computed; None without a capacity."""
        return None if self.capacity_factor is None else self.k * self.capacity_factor

    @property
    def input_jitter(self) -> float:
        """The setting `jitter`."""
        return self.jitter

    @property
    def has_batch_balance_loss(self) -> bool:
        """True unless `balance_over` is `pool`."""
        return self.balance_over == "batch"

    def check(self, batch: int, length: int, experts: int) -> None:
        """Checks k and `groups` against the number of experts, and that the capacity is not 0."""
        super().check(batch, length, experts)
        if experts % self.groups:
            raise UserError(
                f"{self.settings_name}.groups = {self.groups} does not divide {experts} experts"
            )
        available = experts // self.groups * self.top_groups
        if self.k > available:
            raise UserError(
                f"{self.settings_name}.k = {self.k} is more than the {available} experts that a "
                "token can choose from"
            )
        if self.balance == "quantile" and self.k >= available:
            raise UserError(
                f"{self.settings_name}.balance = 'quantile' needs more than k = {self.k} experts "
                f"to choose from, not {available}"
            )
        if self.capacity_factor is not None:
            _, tokens = self.pool.shape(batch, length)
            try:
                self._capacity(tokens, experts)
            except UserError as error:
                raise UserError(f"token choice, {self.pool.kind} pool: {error}") from None

    def init_state(self, experts: int) -> RouterState:
        """Returns the initial biases, if there are any."""
        return {} if self.balance == "none" else balance.init_bias(experts)

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Chooses experts for every real token; noise and second choices depend on the key."""
        logits_PNE = self._noisy_logits(scores)
        score_PNE = expert_scores(logits_PNE, self.score)
        biased_PNE = score_PNE + state["bias"] if self.balance != "none" else score_PNE
        limited_PNE = best_groups(biased_PNE, self.groups, self.top_groups)
        expert_PNK = top_experts(limited_PNE, self.k)
        weight_PNK = scores_of(score_PNE, expert_PNK)
        if self.normalise:
            total_PN1 = weight_PNK.sum(-1, keepdims=True)
            weight_PNK = weight_PNK / jnp.maximum(total_PN1, jnp.finfo(jnp.float32).tiny)
        wanted_PNK = self._wanted(weight_PNK, scores)
        pairs = self._assign(expert_PNK, weight_PNK * self.scale, wanted_PNK, score_PNE, scores)
        num_experts = score_PNE.shape[-1]
        balanced_PNK = wanted_PNK[..., :1] if self.balance_first_only else wanted_PNK
        count_PE = choice_counts(
            expert_PNK[..., : balanced_PNK.shape[-1]], balanced_PNK, num_experts
        )
        statistics = {"choices": count_PE.sum(0)} | balance.statistics(
            self.balance, score_PNE, limited_PNE, scores.mask_PN, self.k
        )
        return RouterOutput(
            assignment=pairs,
            losses=self._losses(scores, logits_PNE, score_PNE, count_PE),
            metrics=health(pairs, scores, wanted_PNK.sum(-1)),
            statistics=jax.lax.stop_gradient(statistics),
        )

    def _noisy_logits(self, scores: RouterScores) -> ScoresPNE:
        if scores.key is None or not self.noise:
            return scores.logits_PNE
        _, *shape = scores.logits_PNE.shape
        noise_PNE = jax.vmap(lambda key: jax.random.normal(key, shape))(scores.pool_keys())
        return scores.logits_PNE + noise_PNE * (self.noise / shape[-1])

    def _wanted(self, weight_PNK: WeightPNK, scores: RouterScores) -> MaskPNK:
        wanted_PNK = jnp.broadcast_to(scores.mask_PN[..., None], weight_PNK.shape)
        if self.second_choice == "all" or scores.key is None:
            return wanted_PNK
        tokens = weight_PNK.shape[1]
        uniform_PN = jax.vmap(lambda key: jax.random.uniform(key, (tokens,)))(scores.pool_keys())
        second_PN = 2.0 * weight_PNK[..., 1] > uniform_PN
        return wanted_PNK & jnp.stack([jnp.ones_like(second_PN), second_PN], axis=-1)

    def _assign(
        self,
        expert_PNK: IndexPNK,
        weight_PNK: WeightPNK,
        wanted_PNK: MaskPNK,
        score_PNE: ScoresPNE,
        scores: RouterScores,
    ) -> Pairs:
        """Assigns slots, if there is a capacity, and drops the choices without a slot."""
        tokens, num_experts = score_PNE.shape[1:]
        chosen_PNK, slot_PNK, capacity = wanted_PNK, None, None
        if self.capacity_factor is not None:
            capacity = self._capacity(tokens, num_experts)
            slot_PNK = positions_in_expert(
                expert_PNK,
                wanted_PNK,
                num_experts,
                self.order,
                time_PN=scores.time_PN,
                score_PN=jax.lax.stop_gradient(score_PNE.max(-1)),
            )
            chosen_PNK = wanted_PNK & (slot_PNK < self._slots(scores, capacity)[:, None, None])
        return Pairs(
            expert_index_PNK=expert_PNK,
            weight_PNK=jnp.where(chosen_PNK, weight_PNK, 0.0),
            chosen_PNK=chosen_PNK,
            num_experts=num_experts,
            slot_PNK=slot_PNK,
            capacity=capacity,
        )

    def _slots(self, scores: RouterScores, capacity: int) -> CountP:
        """Returns the number of slots to fill in each pool, [P], at most C."""
        pools, _, num_experts = scores.logits_PNE.shape
        if self.order == "left_to_right":
            # The number of later real tokens must not affect earlier ones.
            return jnp.full((pools,), capacity, jnp.int32)
        assert self.capacity_factor is not None
        real_P = scores.mask_PN.sum(-1, dtype=jnp.int32)
        return filled_capacity(real_P, self.capacity_factor * self.k, num_experts, capacity)

    def _capacity(self, tokens: int, num_experts: int) -> int:
        assert self.capacity_factor is not None
        slots = min(self.capacity_factor * self.k, float(num_experts))
        return expert_choice_capacity(tokens, slots, num_experts)

    def _losses(
        self,
        scores: RouterScores,
        logits_PNE: ScoresPNE,
        score_PNE: ScoresPNE,
        count_PE: CountPE,
    ) -> dict[str, jax.Array]:
        if self.score != "softmax":
            score_PNE = score_PNE / score_PNE.sum(-1, keepdims=True)
        losses = {
            "balance": balance_loss(
                count_PE,
                score_PNE,
                scores.mask_PN,
                share_E=batch_shares(count_PE, scores),
                by_pool=self.balance_over == "pool",
            ),
            "router_z": router_z_loss(scores),
        }
        if self.noise:
            losses["importance"] = importance_loss(scores)
            if scores.key is not None:
                noise = self.noise / score_PNE.shape[-1]
                losses["load"] = load_loss(scores, logits_PNE, noise, self.k)
        return losses

    def update_state(
        self, state: RouterState, statistics: dict[str, jax.Array], step: jax.Array
    ) -> RouterState:
        """Updates the biases."""
        del step
        if self.balance == "none":
            return state
        return {
            "bias": balance.update(self.balance, state["bias"], statistics, self.bias_rate, self.k)
        }

    def causal(self) -> "TokenChoice":
        """Returns the router without a capacity; itself, if it has none."""
        if self.capacity_factor is None:
            return self
        return dataclasses.replace(self, capacity_factor=None)
