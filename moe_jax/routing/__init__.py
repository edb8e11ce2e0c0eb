"""Routing: the building blocks of routers and the `Router` interface.

The routers are in `moe_jax.routers`. All names that a custom router needs can be imported from
here.
"""

from moe_jax.routing.assignment import Assignment, Pairs, RouterOutput, RouterScores, Slots
from moe_jax.routing.losses import balance_loss, batch_shares, masked_mean, router_z_loss
from moe_jax.routing.metrics import health
from moe_jax.routing.pools import Pool
from moe_jax.routing.router import Description, Router, RouterState
from moe_jax.routing.selection import choice_counts, scores_of, top_experts

__all__ = [
    "Assignment",
    "Description",
    "Pairs",
    "Pool",
    "Router",
    "RouterOutput",
    "RouterScores",
    "RouterState",
    "Slots",
    "balance_loss",
    "batch_shares",
    "choice_counts",
    "health",
    "masked_mean",
    "router_z_loss",
    "scores_of",
    "top_experts",
]
