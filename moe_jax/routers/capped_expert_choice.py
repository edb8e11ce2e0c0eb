"""Capped expert choice: at most b experts per token (Zhou et al. 2022, section 3.3).

Experts choose by A, the solution of the entropy-regularised linear program of
`moe_jax.routing.optimal_transport`, instead of by the scores: I = TopK(A, k). The combine weight
is the softmax probability, as in expert choice.

TopK(A, k) alone does not keep the cap: A is fractional, and has not converged after 100
iterations, the less so the larger the pool and the sharper the probabilities. So experts choose
one after the other here, each the k tokens of highest A that have room left for another expert,
and never so that an expert after it would find too few. Then no token has more than b experts and
every expert has exactly k tokens.

With r[n] the room of token n and m experts still to come, these can all choose if and only if
sum_n min(r[n], m) >= k m (Gale 1957, Ryser 1957, for equal demands: the sum is concave in m, so
that this is the condition for any number of them). A token with r[n] > m does not count less once
it is taken, another one counts 1 less. So if q is what the sum exceeds k m by, at least k - q of
the tokens must be such with r[n] > m: the expert takes the best of those first.

Experts choose in the order of their index: where room is short, the first ones choose more freely.
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
    """Expert choice with capacity factor c in which a token has at most b experts.

    Its own metric, `over_cap_share`, is the share of real tokens that TopK(A, k) alone would
    leave with more than b. A pool with too few real tokens for one slot per expert within the
    cap (b n < E) fills none.

    Attributes:
        cap: b; the paper has 2 and 3. With b = c every token gets b experts, but for rounding.
        regularisation: lambda of the linear program.
        iterations: of Dykstra's algorithm.
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
    """Returns which k tokens each expert takes so that the cap holds, [P, E, N] bool.

    Args:
        order_PEN: each expert's tokens, those it wants most first, int32.
        k_P: tokens per expert in each pool, at most b n / E of n real tokens.
        cap: b, experts per token.
        mask_PN: real tokens.
    """
    experts = order_PEN.shape[1]
    k_P1 = k_P[:, None]

    def choose(room_PN: jax.Array, xs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        order_PN, experts_after = xs
        spare_P = jnp.minimum(room_PN, experts_after).sum(-1) - k_P * experts_after
        forced_P1 = jnp.maximum(k_P - spare_P, 0)[:, None]
        # From here in the order of the expert's wishes.
        room_by_wish_PN = jnp.take_along_axis(room_PN, order_PN, axis=-1)
        forced_PN = _first(room_by_wish_PN > experts_after, forced_P1)
        others_PN = _first((room_by_wish_PN > 0) & ~forced_PN, k_P1 - forced_P1)
        taken_PN = _place(order_PN, forced_PN | others_PN)
        return room_PN - taken_PN, taken_PN

    room_PN = jnp.where(mask_PN, cap, 0).astype(jnp.int32)
    experts_after_E = jnp.arange(experts - 1, -1, -1, dtype=jnp.int32)
    _, taken_EPN = jax.lax.scan(choose, room_PN, (order_PEN.swapaxes(0, 1), experts_after_E))
    return taken_EPN.swapaxes(0, 1)


def _first(is_candidate_PN: jax.Array, count_P1: jax.Array) -> jax.Array:
    """Returns the first `count` candidates of each row, as a mask."""
    place_PN = jnp.cumsum(is_candidate_PN, axis=-1, dtype=jnp.int32)
    return is_candidate_PN & (place_PN <= count_P1)


def _place(index_PN: jax.Array, value_PN: jax.Array) -> jax.Array:
    """Returns the values at the places that a permutation of each row names."""
    rows_P1 = jnp.arange(index_PN.shape[0])[:, None]
    return jnp.zeros_like(value_PN).at[rows_P1, index_PN].set(value_PN, unique_indices=True)


def _over_cap_share(order_PEN: OrderPEN, k_P: CountP, cap: int, mask_PN: MaskPN) -> Scalar:
    """Returns the share of real tokens that are among the first k of more than b experts."""
    pools, _, tokens = order_PEN.shape
    is_top_PEN = jnp.arange(tokens, dtype=jnp.int32) < k_P[:, None, None]
    rows_P11 = jnp.arange(pools)[:, None, None]
    count_PN = jnp.zeros((pools, tokens), jnp.int32)
    count_PN = count_PN.at[rows_P11, order_PEN].add(is_top_PEN.astype(jnp.int32))
    return masked_mean((count_PN > cap).astype(jnp.float32), mask_PN)
