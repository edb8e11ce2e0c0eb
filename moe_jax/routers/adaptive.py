"""Adaptive gating: one expert for tokens with a confident router, two for others (Li et al. 2023).

    R = softmax(x W_g);  i, j = the two largest;  both if R_i - R_j <= T, else only i

with T = 0.1 (section 3.1), y = sum of R_e FFN_e(x) over the chosen experts (eq. 3; without
renormalisation) and no capacity. The balance loss counts only tokens with one expert (eq. 4):

    L = E sum_e f_e p_e

where f_e is the fraction of the one-expert tokens that go to expert e, and p_e is its mean
probability over all tokens. The loss is 0 if there is no one-expert token. The mean number of
experts minus one is the fraction of two-expert tokens, r of the complexity vector (eq. 5).
"""

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.routing.assignment import Pairs, RouterOutput, RouterScores
from moe_jax.routing.losses import balance_loss, batch_shares, router_z_loss
from moe_jax.routing.metrics import health
from moe_jax.routing.pools import Pool
from moe_jax.routing.router import Description, Router, RouterState
from moe_jax.routing.selection import choice_counts, scores_of, top_experts
from moe_jax.settings import Range, Share
from moe_jax.types import ValuePN, WeightPNK

Gap = Literal["softmax", "top2_renorm"]


@configurable
@dataclasses.dataclass(frozen=True)
class Adaptive(Router):
    """Top-1 or top-2 by the gap of the two largest probabilities.

    Attributes:
        threshold: T; a token with a gap of at most T uses both experts.
        gap: `softmax`, the difference of the probabilities, or `top2_renorm`, that difference
            divided by their sum (the paper says only that probabilities are normalised).
        pool: the layout of the tokens; the choice does not depend on it.
        expected_experts: expected mean number of experts per token, from 1 to 2, which determines
            the size of the buffers between devices and the FLOP count. The choice does not depend
            on it: more rows than expected take further rounds, and none is dropped.
    """

    threshold: Annotated[Share, "(0: one expert, but for ties; 1: always two)"] = 0.1
    gap: Gap = "softmax"
    pool: Pool = dataclasses.field(default_factory=lambda: Pool("sequence"))
    expected_experts: Annotated[float, Range(least=1, most=2)] = 2.0

    name = "adaptive"
    loss_weights = {"balance": 0.01, "router_z": 0.0}
    description = Description(
        "the best two if p1 - p2 <= T, else the best alone; weights p",
        source="Li et al. 2023, eq. 2-4",
        balanced="loss on one-expert tokens (0.01)",
    )
    is_causal = True
    has_batch_balance_loss = True

    @property
    def experts_per_token(self) -> float:
        """The setting `expected_experts`; the metric `mean_experts` is the actual number."""
        return self.expected_experts

    def check(self, batch: int, length: int, experts: int) -> None:
        """Checks that there are at least two experts."""
        super().check(batch, length, experts)
        if experts < 2:
            raise UserError(
                f"adaptive gating chooses one or two of 2 or more experts, not {experts}"
            )

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Chooses one or two experts for every real token."""
        del state
        p_PNE = scores.probabilities_PNE
        expert_PNK = top_experts(p_PNE, 2)
        weight_PNK = scores_of(p_PNE, expert_PNK)
        both_PN = self._gaps(jax.lax.stop_gradient(weight_PNK)) <= self.threshold
        chosen_PNK = jnp.stack([scores.mask_PN, scores.mask_PN & both_PN], axis=-1)
        pairs = Pairs(
            expert_index_PNK=expert_PNK,
            weight_PNK=jnp.where(chosen_PNK, weight_PNK, 0.0),
            chosen_PNK=chosen_PNK,
            num_experts=p_PNE.shape[-1],
        )
        alone_PN1 = (scores.mask_PN & ~both_PN)[..., None]
        count_PE = choice_counts(expert_PNK[..., :1], alone_PN1, p_PNE.shape[-1])
        return RouterOutput(
            assignment=pairs,
            losses={
                "balance": balance_loss(
                    count_PE, p_PNE, scores.mask_PN, share_E=batch_shares(count_PE, scores)
                ),
                "router_z": router_z_loss(scores),
            },
            metrics=health(pairs, scores),
            statistics={"choices": count_PE.sum(0)},
        )

    def _gaps(self, weight_PNK: WeightPNK) -> ValuePN:
        first_PN, second_PN = weight_PNK[..., 0], weight_PNK[..., 1]
        gap_PN = first_PN - second_PN
        return gap_PN if self.gap == "softmax" else gap_PN / (first_PN + second_PN)
