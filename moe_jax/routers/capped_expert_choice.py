"""Capped expert choice: at most b experts per token (Zhou et al. 2022, section 3.3).

Experts choose tokens by A, the solution of the entropy-regularised linear program of
`moe_jax.routing.optimal_transport`, instead of by the scores: I = TopK(A, k). The combine weight
is the softmax probability, as in expert choice.

TopK(A, k) alone does not satisfy the cap: A is fractional, and has not converged after 100
iterations, especially with large pools and sharp probabilities. Here experts therefore choose
sequentially. Each takes the k tokens of highest A with remaining capacity, subject to the
constraint that enough tokens are left for the experts after it. As a result, no token has more than
b experts and every expert has exactly k tokens.

Let r[n] be the remaining capacity of token n, and let m experts be left. All of them can choose k
tokens if and only if sum_n min(r[n], m) >= k m (Gale 1957, Ryser 1957, for equal demands: the sum
is concave in m, so that the condition for m implies that for every smaller number). Taking a token
with r[n] > m leaves the sum unchanged; taking any other token reduces it by 1. Therefore, if the
sum exceeds k m by q, at least k - q of the chosen tokens must have r[n] > m: the expert takes the
best of those first.

Experts choose in the order of their index: if capacity is scarce, those with low indices have more
choice.
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
from moe_jax.settings import Positive, PositiveInt, rule
from moe_jax.types import CountP, MaskPEN, MaskPN, OrderPEN, Scalar


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
        iterations: number of iterations of Dykstra's algorithm.
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
        order_PEN = jnp.argsort(log_a_PEN, axis=-1, descending=True).astype(jnp.int32)
        return choose_in_turn(order_PEN, fill_P, self.cap, scores.mask_PN), {
            "over_cap_share": _over_cap_share(order_PEN, fill_P, self.cap, scores.mask_PN)
        }


def choose_in_turn(order_PEN: OrderPEN, k_P: CountP, cap: int, mask_PN: MaskPN) -> MaskPEN:
    """Chooses k tokens for each expert subject to the cap, [P, E, N] bool.

    Args:
        order_PEN: the tokens of each expert in descending order of preference, int32.
        k_P: tokens per expert in each pool, at most b n / E for n real tokens.
        cap: maximum number of experts per token, b.
        mask_PN: true for real tokens.
    """
    num_experts = order_PEN.shape[1]
    k_P1 = k_P[:, None]

    def choose(room_PN: jax.Array, xs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        order_PN, experts_after = xs
        spare_P = jnp.minimum(room_PN, experts_after).sum(-1) - k_P * experts_after
        forced_P1 = jnp.maximum(k_P - spare_P, 0)[:, None]
        # The following arrays are in the order of the expert's preference.
        sorted_room_PN = jnp.take_along_axis(room_PN, order_PN, axis=-1)
        forced_PN = _first(sorted_room_PN > experts_after, forced_P1)
        others_PN = _first((sorted_room_PN > 0) & ~forced_PN, k_P1 - forced_P1)
        taken_PN = _place(order_PN, forced_PN | others_PN)
        return room_PN - taken_PN, taken_PN

    room_PN = jnp.where(mask_PN, cap, 0).astype(jnp.int32)
    experts_after_E = jnp.arange(num_experts - 1, -1, -1, dtype=jnp.int32)
    _, taken_EPN = jax.lax.scan(choose, room_PN, (order_PEN.swapaxes(0, 1), experts_after_E))
    return taken_EPN.swapaxes(0, 1)


def _first(is_candidate_PN: jax.Array, count_P1: jax.Array) -> jax.Array:
    """Returns a mask of the first `count` candidates of each row."""
    place_PN = jnp.cumsum(is_candidate_PN, axis=-1, dtype=jnp.int32)
    return is_candidate_PN & (place_PN <= count_P1)


def _place(index_PN: jax.Array, value_PN: jax.Array) -> jax.Array:
    """Scatters the values of each row to the indices given by a permutation."""
    rows_P1 = jnp.arange(index_PN.shape[0])[:, None]
    return jnp.zeros_like(value_PN).at[rows_P1, index_PN].set(value_PN, unique_indices=True)


def _over_cap_share(order_PEN: OrderPEN, k_P: CountP, cap: int, mask_PN: MaskPN) -> Scalar:
    """Returns the fraction of real tokens that are among the first k of more than b experts."""
    pools, _, tokens = order_PEN.shape
    is_top_PEN = jnp.arange(tokens, dtype=jnp.int32) < k_P[:, None, None]
    rows_P11 = jnp.arange(pools)[:, None, None]
    count_PN = jnp.zeros((pools, tokens), jnp.int32)
    count_PN = count_PN.at[rows_P11, order_PEN].add(is_top_PEN.astype(jnp.int32))
    return masked_mean((count_PN > cap).astype(jnp.float32), mask_PN)
