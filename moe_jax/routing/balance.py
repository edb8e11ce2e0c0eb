"""Load balancing without an auxiliary loss: a bias per expert affects the choice, not the weights.

Tokens choose the top k of s + b; the combine weights are computed from s. After each step b is
updated from that step's tokens, so that a choice never depends on later tokens.

| rule       | b after a step                                       | source                       |
|------------|------------------------------------------------------|------------------------------|
| `bias`     | b_e + u sign(mean load - load_e)                     | Wang et al. 2024, algorithm 1|
|            | (loss-free balancing, arXiv 2408.15664)              |                              |
| `quantile` | minus the (1 - k/E)-quantile over tokens of          | the exact coordinate step of |
|            | s_e - (the token's (k+1)-th largest s + b), less     | the dual problem that `bias` |
|            | the mean over experts; no rate to set                | takes sign steps on          |
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from moe_jax.types import MaskPN, ScoresPNE, VectorLE

Rule = Literal["none", "bias", "quantile"]
RULES: tuple[Rule, ...] = get_args(Rule)

# The quantile is computed from a histogram, which can be summed over devices and micro-batches,
# with linear interpolation within a bin. Scores are in [0, 1]; differences that the biases move out
# of [-1, 1] are clipped to it.
_BINS = 4096


def init_bias(experts: int) -> dict[str, jax.Array]:
    """Returns the initial state: biases of 0."""
    return {"bias": jnp.zeros((experts,), jnp.float32)}


def statistics(
    rule: str, score_PNE: ScoresPNE, biased_PNE: ScoresPNE, mask_PN: MaskPN, k: int
) -> dict[str, jax.Array]:
    """Returns the statistics, beside the counts, that `update` needs, summed over tokens."""
    if rule != "quantile":
        return {}
    margin_PN1 = jax.lax.top_k(biased_PNE, k + 1)[0][..., k:]
    difference_PNE = jnp.clip(score_PNE - margin_PN1, -1.0, 1.0)
    bin_PNE = jnp.clip((difference_PNE + 1.0) * (_BINS / 2), 0, _BINS - 1).astype(jnp.int32)
    num_experts = score_PNE.shape[-1]
    real_PN1 = jnp.broadcast_to(mask_PN[..., None], score_PNE.shape).astype(jnp.float32)
    zeros = jnp.zeros((num_experts, _BINS), jnp.float32)
    return {"margin_histogram": zeros.at[jnp.arange(num_experts), bin_PNE].add(real_PN1)}


def update(
    rule: str, bias_LE: VectorLE, statistics: dict[str, jax.Array], rate: float, k: int
) -> VectorLE:
    """Returns the bias after a step; unchanged if no token was routed.

    Args:
        rule: `bias` or `quantile`.
        bias_LE: the bias before the step.
        statistics: `choices` [L, E] and the results of `statistics`.
        rate: u of the rule `bias`.
        k: choices per token.
    """
    count_LE = statistics["choices"]
    if rule == "bias":
        return bias_LE + rate * jnp.sign(count_LE.mean(-1, keepdims=True) - count_LE)
    num_experts = bias_LE.shape[-1]
    bias = -_quantile(statistics["margin_histogram"], 1.0 - k / num_experts)
    bias -= bias.mean(-1, keepdims=True)
    return jnp.where(count_LE.sum(-1, keepdims=True) > 0, bias, bias_LE)


def _quantile(histogram: jax.Array, q: float) -> jax.Array:
    """Returns the q-quantile of values in [-1, 1] from their histogram over the last axis."""
    below = jnp.cumsum(histogram, axis=-1)
    target = q * below[..., -1:]
    bin_ = jnp.argmax(below >= target, axis=-1)[..., None]
    inside = jnp.take_along_axis(histogram, bin_, axis=-1)
    before = jnp.take_along_axis(below, bin_, axis=-1) - inside
    fraction = (target - before) / jnp.where(inside > 0, inside, 1.0)
    return ((bin_ + fraction) * (2 / _BINS) - 1.0)[..., 0]
