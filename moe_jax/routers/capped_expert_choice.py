"""Capped expert choice: at most b experts per token (Zhou et al. 2022, section 3.3).

Experts choose tokens by A, the solution of the entropy-regularised linear program of
`moe_jax.routing.optimal_transport`, instead of by the scores: I = TopK(A, k). The combine weight
is the softmax probability, as in expert choice.

TopK(A, k) alone does not satisfy the cap: A is fractional, and not fully converged. Here experts
therefore choose sequentially. Each takes the k tokens with the largest

    S + u - v - 0.1 max(0, 1 - d)

among those with remaining capacity, where S + u - v orders tokens as A does, and d is the remaining
capacity of the token minus the sum of A over the experts that choose later. Without the second
term, experts fill up with tokens that are worth little to them, whose last place another expert
needs. The factor 0.1 was found by experiment; half of it and twice as much are as good.

Enough tokens are left for the experts that choose later. As a result, no token has more than b
experts and every expert has exactly k tokens.

Let r[n] be the remaining capacity of token n, and let m experts be left. All of them can choose k
tokens if and only if sum_n min(r[n], m) >= k m (Gale 1957, Ryser 1957, for equal demands: the sum
is concave in m, so that the condition for m implies that for every smaller number). Taking a token
with r[n] > m leaves the sum unchanged; taking any other token reduces it by 1. Therefore, if the
sum exceeds k m by q, at least k - q of the chosen tokens must have r[n] > m: the expert takes the
best of those first.

Experts choose in the order of their index. The sum of the chosen scores is within 0.1% of the
optimum of the linear program on average over 50 random pools, and within 1% in the worst
(`tests/routers/test_capped_expert_choice.py`).
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.losses import masked_mean
from moe_jax.routing.optimal_transport import capped_transport
from moe_jax.routing.router import Description
from moe_jax.routing.top_mask import top_mask
from moe_jax.settings import Positive, PositiveInt, rule
from moe_jax.types import CountP, MaskPEN, MaskPN, Scalar, ScoresPEN

# Of a place that experts which choose later are expected to need, in units of the scores.
_PRICE = 0.1


@configurable
@dataclasses.dataclass(frozen=True)
class CappedExpertChoice(ExpertChoice):
    """Expert choice with capacity factor c and at most b experts per token.

    The additional metric `over_cap_share` is the fraction of real tokens to which TopK(A, k) alone
    would assign more than b experts. A pool with too few real tokens for one slot per expert within
    the cap (b n < E) fills no slots.

    Attributes:
        cap: b; 2 and 3 in the paper. With b = c every token has b experts, except for rounding.
        regularisation: lambda of the linear program.
        iterations: number of iterations of the program's solver.
    """

    cap: PositiveInt = 2
    regularisation: Positive = 1e-3
    iterations: PositiveInt = 100

    name = "expert_choice_capped"
    description = Description(
        "as expert choice, by TopK of the entropy-regularised assignment A, at most b experts a "
        "token, repaired so that both hold exactly; weight p",
        source="Zhou et al. 2022, section 3.3",
        balanced="always, by construction",
    )

    @staticmethod
    @rule
    def _cap_holds_the_mean(cap: int, capacity_factor: float) -> None:
        if cap < capacity_factor:
            raise UserError(
                f"CappedExpertChoice.cap = {cap}: a cap of {cap} expert{'s' * (cap > 1)} per token "
                f"cannot hold a mean of {capacity_factor:g} (CappedExpertChoice.capacity_factor)"
            )

    def _slots_to_fill(self, real_P: CountP, experts: int, capacity: int) -> CountP:
        fill_P = super()._slots_to_fill(real_P, experts, capacity)
        return jnp.minimum(fill_P, self.cap * real_P // experts)

    def _eligible(
        self, scores: RouterScores, fill_P: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        log_a_PEN = capped_transport(
            scores.probabilities_PNE.swapaxes(1, 2),
            fill_P,
            self.cap,
            scores.mask_PN,
            self.regularisation,
            self.iterations,
        )
        assigned_PEN = jnp.exp(jnp.minimum(log_a_PEN, 0.0))
        value_PEN = self.regularisation * log_a_PEN
        return choose_in_turn(value_PEN, assigned_PEN, fill_P, self.cap, scores.mask_PN), {
            "over_cap_share": _over_cap_share(log_a_PEN, fill_P, self.cap, scores.mask_PN)
        }


def choose_in_turn(
    value_PEN: ScoresPEN, assigned_PEN: ScoresPEN, k_P: CountP, cap: int, mask_PN: MaskPN
) -> MaskPEN:
    """Chooses k tokens for each expert subject to the cap, [P, E, N] bool.

    Args:
        value_PEN: how much an expert wants a token, in units of the scores.
        assigned_PEN: A, from 0 to 1: what an expert is expected to take of a token.
        k_P: tokens per expert in each pool, at most b n / E for n real tokens.
        cap: maximum number of experts per token, b.
        mask_PN: true for real tokens.
    """
    num_experts = value_PEN.shape[1]

    def choose(
        carry: tuple[jax.Array, jax.Array], xs: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        room_PN, expected_PN = carry
        value_PN, assigned_PN, experts_after = xs
        expected_PN -= assigned_PN
        value_PN -= _PRICE * jnp.maximum(0.0, 1.0 - (room_PN - expected_PN))
        spare_P = jnp.minimum(room_PN, experts_after).sum(-1) - k_P * experts_after
        forced_P = jnp.maximum(k_P - spare_P, 0)
        forced_PN = top_mask(value_PN, room_PN > experts_after, forced_P)
        taken_PN = forced_PN | top_mask(value_PN, (room_PN > 0) & ~forced_PN, k_P - forced_P)
        return (room_PN - taken_PN, expected_PN), taken_PN

    room_PN = jnp.where(mask_PN, cap, 0).astype(jnp.int32)
    experts_after_E = jnp.arange(num_experts - 1, -1, -1, dtype=jnp.int32)
    xs = (value_PEN.swapaxes(0, 1), assigned_PEN.swapaxes(0, 1), experts_after_E)
    _, taken_EPN = jax.lax.scan(choose, (room_PN, assigned_PEN.sum(1)), xs)
    return taken_EPN.swapaxes(0, 1)


def _over_cap_share(log_a_PEN: ScoresPEN, k_P: CountP, cap: int, mask_PN: MaskPN) -> Scalar:
    """Returns the fraction of real tokens that are among the top k of more than b experts."""
    by_expert = jax.vmap(top_mask, in_axes=(1, None, None), out_axes=1)
    count_PN = by_expert(log_a_PEN, mask_PN, k_P).sum(1)
    return masked_mean((count_PN > cap).astype(jnp.float32), mask_PN)
