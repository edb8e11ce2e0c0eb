"""Balance without a loss: a bias on each expert's score decides, but never weighs.

Tokens choose the top k of s + b and weigh by s. After each step b moves, from that step's tokens
only, so that no token is chosen by what comes after it.

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

# The quantile is read off a histogram, which adds up over devices and micro-batches; within a
# bin it is interpolated. Scores are in [0, 1]; what biases push out of [-1, 1] counts at its end.
_BINS = 4096


def init_bias(experts: int) -> dict[str, jax.Array]:
    """Returns the state before the first step: no bias."""
    return {"bias": jnp.zeros((experts,), jnp.float32)}


def statistics(
    rule: str, score_PNE: ScoresPNE, biased_PNE: ScoresPNE, mask_PN: MaskPN, k: int
) -> dict[str, jax.Array]:
    """Returns what the rule's update needs beside the counts, summed over tokens."""
    if rule != "quantile":
        return {}
    margin_PN1 = jax.lax.top_k(biased_PNE, k + 1)[0][..., k:]
    difference_PNE = jnp.clip(score_PNE - margin_PN1, -1.0, 1.0)
    bin_PNE = jnp.clip((difference_PNE + 1.0) * (_BINS / 2), 0, _BINS - 1).astype(jnp.int32)
    experts = score_PNE.shape[-1]
    real_PN1 = jnp.broadcast_to(mask_PN[..., None], score_PNE.shape).astype(jnp.float32)
    zeros = jnp.zeros((experts, _BINS), jnp.float32)
    return {"margin_histogram": zeros.at[jnp.arange(experts), bin_PNE].add(real_PN1)}


def update(
    rule: str, bias_LE: VectorLE, statistics: dict[str, jax.Array], rate: float, k: int
) -> VectorLE:
    """Returns the bias after a step; unchanged if no token was routed.

    Args:
        rule: `bias` or `quantile`.
        bias_LE: before the step.
        statistics: `choices` [L, E], and what `statistics` returned.
        rate: u of the rule `bias`.
        k: choices per token.
    """
    count_LE = statistics["choices"]
    if rule == "bias":
        return bias_LE + rate * jnp.sign(count_LE.mean(-1, keepdims=True) - count_LE)
    experts = bias_LE.shape[-1]
    bias = -_quantile(statistics["margin_histogram"], 1.0 - k / experts)
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
