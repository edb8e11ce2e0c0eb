"""Sample the next token: temperature, top-k and nucleus sampling."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from moe_jax.registration import configurable
from moe_jax.settings import NonNegative, PositiveInt, Range, Seed, Settings, counted


@configurable
@dataclasses.dataclass(frozen=True)
class SamplingConfig(Settings, called="Sampling"):
    """Settings of text generation.

    Attributes:
        max_new_tokens: maximum number of generated tokens; generation ends with the document.
        temperature: divides the logits; 0 for greedy decoding.
        top_k: sample from the k most likely tokens only; 0 for all.
        top_p: sample from the fewest tokens that together have this probability; 1 for all.
        seed: random seed.
    """

    max_new_tokens: PositiveInt = 128
    temperature: NonNegative = 0.8
    top_k: Annotated[int, counted("all")] = 0
    top_p: Annotated[float, Range(above=0, most=1)] = 0.95
    seed: Seed = 0


def sample_tokens(logits_BV: jax.Array, key: jax.Array, config: SamplingConfig) -> jax.Array:
    """Samples a token for each row, [B] int32."""
    if config.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = logits_BV.astype(jnp.float32) / config.temperature
    if config.top_k or config.top_p < 1:
        logits_BV = jnp.where(_kept(logits_BV, config), logits_BV, -jnp.inf)
    return jax.random.categorical(key, logits_BV, axis=-1).astype(jnp.int32)


def _kept(logits_BV: jax.Array, config: SamplingConfig) -> jax.Array:
    """Returns the mask of tokens that may be sampled, [B, V]; ties go to the lower index.

    These are the `top_k` most likely tokens and of these, renormalised, the fewest that together
    have the probability `top_p` (nucleus sampling, Holtzman et al. 2020).
    """
    order_BV = jnp.argsort(logits_BV, axis=-1, descending=True, stable=True)
    sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
    kept_BV = jnp.ones(logits_BV.shape, jnp.bool_)
    if config.top_k:
        kept_BV &= jnp.arange(logits_BV.shape[-1]) < config.top_k
    if config.top_p < 1:
        p_BV = jax.nn.softmax(jnp.where(kept_BV, sorted_BV, -jnp.inf), axis=-1)
        kept_BV &= jnp.cumsum(p_BV, axis=-1) - p_BV < config.top_p
    rank_BV = jnp.argsort(order_BV, axis=-1)
    return jnp.take_along_axis(kept_BV, rank_BV, axis=-1)
