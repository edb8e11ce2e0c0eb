"""From activations to router scores, always in float32."""

import jax
import jax.numpy as jnp

from moe_jax.routing.assignment import RouterScores
from moe_jax.types import ActivationsPND, MaskPN


def router_scores(x_PND: ActivationsPND, kernel_DE: jax.Array, mask_PN: MaskPN) -> RouterScores:
    """Scores every token for every expert: S = softmax(X W_g) over the experts.

    The matrix product and the softmax run in float32 at the highest precision, whatever the
    precision of the model: a router in bfloat16 diverges or differs (Fedus et al. 2021, 2.4).
    Source: Zhou et al. 2022, section 3.2, eq. 2 (the same scores as Switch and GShard).
    """
    logits_PNE = jnp.einsum(
        "pnd,de->pne",
        x_PND.astype(jnp.float32),
        kernel_DE.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )
    return RouterScores(logits_PNE, jax.nn.softmax(logits_PNE, axis=-1), mask_PN)
