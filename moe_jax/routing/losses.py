"""Auxiliary losses of routing, unscaled and without padding tokens.

| loss         | formula                                       | source                          |
|--------------|-----------------------------------------------|---------------------------------|
| `balance`    | E sum_e f_e P_e                               | Fedus et al. 2021, eq. 4-6      |
| `router_z`   | mean(logsumexp(logits)^2)                     | Zoph et al. 2022, eq. 5         |
| `importance` | CV^2 over experts of sum_n p_ne               | Riquelme et al. 2021, eq. 8     |
| `load`       | CV^2 over experts of the sum over tokens of   | Riquelme et al. 2021, eq. 9-10  |
|              | P(e in the top k under fresh noise)           |                                 |

where f_e is the fraction of the choices that go to expert e (they sum to 1 for every k), P_e is its
mean score, and CV is the coefficient of variation. A perfectly balanced router therefore has a
balance loss of 1 for every number of experts and choices, and importance and load losses of 0.
"""

import jax
import jax.numpy as jnp

from moe_jax.routing.assignment import RouterScores
from moe_jax.types import CountPE, MaskPN, Scalar, ScoresPNE, ValuePN, VectorE


def masked_mean(value_PN: ValuePN, mask_PN: MaskPN) -> Scalar:
    """Returns the mean of `value_PN` over real tokens, 0 if there is none."""
    total = jnp.sum(jnp.where(mask_PN, value_PN, 0.0))
    return total / jnp.maximum(jnp.sum(mask_PN.astype(jnp.float32)), 1.0)


def router_z_loss(scores: RouterScores) -> Scalar:
    """Returns mean(logsumexp(logits)^2) over real tokens (ST-MoE, Zoph et al. 2022, eq. 5)."""
    log_z_PN = jax.nn.logsumexp(scores.logits_PNE, axis=-1)
    return masked_mean(jnp.square(log_z_PN), scores.mask_PN)


def share(count_E: jax.Array) -> jax.Array:
    """Normalizes counts [..., E] to sum to 1 over the last axis; all-zero counts stay zero."""
    total = count_E.sum(-1, keepdims=True)
    return count_E / jnp.where(total > 0, total, 1.0)


def batch_shares(count_PE: CountPE, scores: RouterScores) -> VectorE:
    """Returns each expert's fraction of the choices of the whole batch, over all devices, [E].

    Args:
        count_PE: number of choices of each expert in each pool, including dropped ones.
        scores: the router inputs that the choices were made from.
    """
    if scores.share_E is not None:
        return scores.share_E
    return share(scores.total(count_PE.astype(jnp.float32).sum(0)))


def balance_loss(
    count_PE: CountPE,
    score_PNE: ScoresPNE,
    mask_PN: MaskPN,
    *,
    share_E: VectorE | None = None,
    by_pool: bool = False,
) -> Scalar:
    """Returns E sum_e f_e P_e: 1 for a balanced router, E if all tokens choose the same expert.

    Args:
        count_PE: number of choices of each expert in each pool, including dropped ones.
        score_PNE: non-negative scores that sum to 1 over the experts.
        mask_PN: true for real tokens.
        share_E: f of the whole batch, if these pools are only a part of it.
        by_pool: compute f and P separately for each pool and average over real tokens (with
            sequence pools, the sequence-wise loss of DeepSeek-V3, section 2.1.2).
    """
    num_experts = score_PNE.shape[-1]
    count_PE = jax.lax.stop_gradient(count_PE.astype(jnp.float32))
    score_PE = jnp.sum(jnp.where(mask_PN[..., None], score_PNE, 0.0), axis=1)
    real_P = mask_PN.sum(-1, dtype=jnp.float32)
    real = jnp.maximum(real_P.sum(), 1.0)
    if by_pool:
        return num_experts * jnp.sum(share(count_PE) * score_PE) / real
    f_E = share(count_PE.sum(0)) if share_E is None else jax.lax.stop_gradient(share_E)
    return num_experts * jnp.sum(f_E * score_PE.sum(0)) / real


def importance_loss(scores: RouterScores) -> Scalar:
    """Returns CV^2 over experts of the summed probabilities (V-MoE)."""
    p_PNE = jnp.where(scores.mask_PN[..., None], scores.probabilities_PNE, 0.0)
    return _squared_variation(scores.total(p_PNE.sum((0, 1))))


def load_loss(scores: RouterScores, noisy_PNE: ScoresPNE, noise: float, k: int) -> Scalar:
    """Returns CV^2 over experts of the expected number of tokens under fresh noise (V-MoE).

    The probability that expert e remains among a token's top k if only its noise is resampled is
    1 - Phi((threshold - logit_e) / noise), where the threshold is the k-th largest noisy logit.

    Args:
        scores: logits without noise, and the mask of real tokens.
        noisy_PNE: the noisy logits that determined the choice.
        noise: standard deviation of the noise.
        k: choices per token.
    """
    kth_PN1 = jax.lax.top_k(noisy_PNE, k)[0][..., -1:]
    wins_PNE = 1.0 - jax.scipy.stats.norm.cdf((kth_PN1 - scores.logits_PNE) / noise)
    wins_PNE = jnp.where(scores.mask_PN[..., None], wins_PNE, 0.0)
    return _squared_variation(scores.total(wins_PNE.sum((0, 1))))


def _squared_variation(value_E: VectorE) -> Scalar:
    mean = value_E.mean()
    return jnp.var(value_E) / jnp.square(jnp.where(mean > 0, mean, 1.0))
