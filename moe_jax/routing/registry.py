"""Every router by its registered name, with the defaults of its paper.

The names are those of the files under `configs/routers/`; a test holds both to the same settings.
"""

from collections.abc import Callable

from moe_jax.errors import UserError, nearest
from moe_jax.routing.adaptive import Adaptive
from moe_jax.routing.capped import CappedExpertChoice
from moe_jax.routing.expert_choice import ExpertChoice
from moe_jax.routing.fixed import ForcedBalanced, Hash, RandomExperts, Thor
from moe_jax.routing.router import Router
from moe_jax.routing.threshold import ExpertThreshold
from moe_jax.routing.token_choice import TokenChoice


def switch() -> TokenChoice:
    """Returns Switch top-1 (Fedus et al. 2021): raw weights, capacity factor 1.25, jitter 1%."""
    return TokenChoice(name="switch", k=1, normalise=False, capacity_factor=1.25, jitter=0.01)


def gshard_top2() -> TokenChoice:
    """Returns GShard top-2 (Lepikhin et al. 2020, algorithm 1), slots in the paper's order."""
    return TokenChoice(
        name="gshard_top2",
        capacity_factor=1.0,
        order="choices_first",
        second_choice="random",
        balance_first_only=True,
    )


def glam_top2() -> TokenChoice:
    """Returns GLaM's top-2 (Du et al. 2022): both experts always, capacity 2 N / E."""
    return TokenChoice(
        name="glam_top2", capacity_factor=1.0, order="choices_first", balance_first_only=True
    )


def expert_threshold() -> ExpertThreshold:
    """Returns expert threshold for training, with the paper's warm-up of 4,000 steps."""
    return ExpertThreshold(warmup_steps=4000)


ROUTERS: dict[str, Callable[[], Router]] = {
    "expert_choice": ExpertChoice,
    "expert_choice_capped": CappedExpertChoice,
    "expert_threshold": expert_threshold,
    "switch": switch,
    "gshard_top2": gshard_top2,
    "glam_top2": glam_top2,
    "topk": TokenChoice,
    "adaptive": Adaptive,
    "hash": Hash,
    "random": RandomExperts,
    "forced_balanced": ForcedBalanced,
    "thor": Thor,
}


def get_router(name: str) -> Router:
    """Returns the router of that name with its defaults.

    Raises:
        UserError: for an unknown name.
    """
    if name not in ROUTERS:
        raise UserError(
            f"unknown router {name!r}; known: {', '.join(ROUTERS)}." + nearest(name, ROUTERS)
        )
    return ROUTERS[name]()
