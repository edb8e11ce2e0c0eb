"""Auxiliary losses of routing: unscaled; padding does not count."""

import jax
import jax.numpy as jnp

from moe_jax.routing.assignment import RouterScores
from moe_jax.types import MaskPN, Scalar


def masked_mean(value_PN: jax.Array, mask_PN: MaskPN) -> Scalar:
    """Returns the mean of `value_PN` over real tokens, 0 if there is none."""
    total = jnp.sum(jnp.where(mask_PN, value_PN, 0.0))
    return total / jnp.maximum(jnp.sum(mask_PN.astype(jnp.float32)), 1.0)


def router_z_loss(scores: RouterScores) -> Scalar:
    """Returns mean(logsumexp(logits)^2) over real tokens (ST-MoE, Zoph et al. 2022, eq. 5)."""
    log_z_PN = jax.nn.logsumexp(scores.logits_PNE, axis=-1)
    return masked_mean(jnp.square(log_z_PN), scores.mask_PN)
