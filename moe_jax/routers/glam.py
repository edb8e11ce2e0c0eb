"""GLaM's top-2 routing (Du et al. 2022)."""

import dataclasses

from moe_jax.registration import configurable
from moe_jax.routers.token_choice import CapacityFactor, Order, TokenChoice
from moe_jax.routing.router import Description
from moe_jax.settings import Name


@configurable
@dataclasses.dataclass(frozen=True)
class GLaMTop2(TokenChoice):
    """GLaM's top-2 routing (Du et al. 2022): always both experts, capacity 2 N / E.

    Slots are assigned in GShard's order. The settings are those of `TokenChoice`, with other
    defaults.
    """

    name: Name = "glam_top2"
    capacity_factor: CapacityFactor = 1.0
    order: Order = "choices_first"
    balance_first_only: bool = True

    description = Description(
        "the two best; weights p / (p1 + p2); slots in GShard's order",
        source="Du et al. 2022, section 4 (Praxis)",
        balanced="loss on first choices (0.01)",
    )
