"""Switch routing: top-1 (Fedus et al. 2021)."""

import dataclasses

from moe_jax.registration import configurable
from moe_jax.routers.token_choice import CapacityFactor, TokenChoice
from moe_jax.routing.router import Description
from moe_jax.settings import Decay, Name, PositiveInt


@configurable
@dataclasses.dataclass(frozen=True)
class Switch(TokenChoice):
    """Switch routing, top-1 (Fedus et al. 2021): raw weights, capacity factor 1.25, jitter 1%.

    The settings are those of `TokenChoice`, with other defaults.
    """

    name: Name = "switch"
    k: PositiveInt = 1
    normalise: bool = False
    capacity_factor: CapacityFactor = 1.25
    jitter: Decay = 0.01

    description = Description(
        "the best expert; weight p; input jitter 1%",
        source="Fedus et al. 2021, eq. 1-6",
        balanced="loss (0.01)",
    )
