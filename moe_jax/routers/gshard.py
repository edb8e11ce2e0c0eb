"""GShard's top-2 routing (Lepikhin et al. 2020)."""

import dataclasses

from moe_jax.registration import configurable
from moe_jax.routers.token_choice import CapacityFactor, Order, SecondChoice, TokenChoice
from moe_jax.routing.router import Description
from moe_jax.settings import Name


@configurable
@dataclasses.dataclass(frozen=True)
class GShardTop2(TokenChoice):
    """GShard's top-2 routing (Lepikhin et al. 2020, algorithm 1).

    Slots are assigned in the paper's order, which is not causal. The settings are those of
    `TokenChoice`, with other defaults.
    """

    name: Name = "gshard_top2"
    capacity_factor: CapacityFactor = 1.0
    order: Order = "choices_first"
    second_choice: SecondChoice = "random"
    balance_first_only: bool = True

    description = Description(
        "the two best, the second with probability min(1, 2 p2); weights p / (p1 + p2); all first "
        "choices get slots before any second",
        source="Lepikhin et al. 2020, algorithm 1",
        balanced="loss on first choices (0.01)",
    )
