"""Selection of experts by tokens: scores, groups of experts, and the top k."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from moe_jax.types import CountPE, IndexPNK, MaskPNK, ScoresPNE, WeightPNK

Score = Literal["softmax", "sigmoid", "sqrt_softplus"]
SCORES: tuple[Score, ...] = get_args(Score)


def expert_scores(logits_PNE: ScoresPNE, kind: str) -> ScoresPNE:
    """Returns non-negative scores of one of `SCORES`.

    `softmax` over the experts; `sigmoid` of each logit (DeepSeek-V3); the square root of its
    softplus (DeepSeek-V4).
    """
    if kind == "softmax":
        return jax.nn.softmax(logits_PNE, axis=-1)
    if kind == "sigmoid":
        return jax.nn.sigmoid(logits_PNE)
    return jnp.sqrt(jax.nn.softplus(logits_PNE))


def top_experts(score_PNE: ScoresPNE, k: int) -> IndexPNK:
    """Returns the k experts with the highest scores in descending order, [P, N, K] int32.

    Ties are broken by index. For k up to 2 it uses argmax, which is faster than a sort on CPU.
    """
    score_PNE = jax.lax.stop_gradient(score_PNE)
    if k > 2:
        return jax.lax.top_k(score_PNE, k)[1]
    first_PN = jnp.argmax(score_PNE, axis=-1).astype(jnp.int32)
    if k == 1:
        return first_PN[..., None]
    is_first_PNE = jnp.arange(score_PNE.shape[-1]) == first_PN[..., None]
    second_PN = jnp.argmax(jnp.where(is_first_PNE, -jnp.inf, score_PNE), axis=-1)
    return jnp.stack([first_PN, second_PN.astype(jnp.int32)], axis=-1)


def scores_of(score_PNE: ScoresPNE, expert_PNK: IndexPNK) -> WeightPNK:
    """Returns the scores of the chosen experts; the gradient is dense for up to 2 choices."""
    if expert_PNK.shape[-1] > 2:
        return jnp.take_along_axis(score_PNE, expert_PNK, axis=-1)
    one_hot_PNKE = jnp.arange(score_PNE.shape[-1]) == expert_PNK[..., None]
    return jnp.sum(jnp.where(one_hot_PNKE, score_PNE[..., None, :], 0.0), axis=-1)


def best_groups(score_PNE: ScoresPNE, groups: int, top_groups: int) -> ScoresPNE:
    """Sets the scores of experts outside the best groups of a token to -inf.

    The score of a group is the sum of its two highest scores (DeepSeek-V3, section 2.1.2:
    node-limited routing).
    """
    if top_groups == groups:
        return score_PNE
    experts = score_PNE.shape[-1]
    by_group = score_PNE.reshape(*score_PNE.shape[:-1], groups, experts // groups)
    best = min(2, experts // groups)
    group_PNG = jax.lax.top_k(by_group, best)[0].sum(-1)
    best_PNK = jax.lax.top_k(group_PNG, top_groups)[1]
    keep_PNG = jnp.any(jnp.arange(groups) == best_PNK[..., None], axis=-2)
    return jnp.where(keep_PNG[..., None], by_group, -jnp.inf).reshape(score_PNE.shape)


def choice_counts(expert_PNK: IndexPNK, wanted_PNK: MaskPNK, experts: int) -> CountPE:
    """Counts the requested choices of each expert in each pool, [P, E] float32."""
    pools = expert_PNK.shape[0]
    rows_P11 = jnp.arange(pools)[:, None, None]
    zeros_PE = jnp.zeros((pools, experts), jnp.float32)
    return zeros_PE.at[rows_P11, expert_PNK].add(wanted_PNK.astype(jnp.float32))
